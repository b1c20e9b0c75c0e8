"""A stand-in for TensorRT, with the part of its interface that is used: its plan is the graph, which onnxruntime runs.

A CamFuse node is run by its definition, if its plugin is in the plan or in the runtime's registry. Plans have
TensorRT's header. A context works on the addresses that it was given, and puts its work on the stream that it was
given, if that is one of libcuda.c: a graph captures it as a real one would.
"""

from __future__ import annotations

import ctypes
import json
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from msloc_edge.export.graphs import definition

__version__ = "10.16.1.11"
SETTINGS = SimpleNamespace(
    steps=[], no_device=False, broken_plans="", libraries=[], configs=[], plugins=set(), contexts=[], compiled=[]
)
"""What the next build does, and what was asked of builders, engines and TensorRT-RTX's compiler."""

Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
DataType = Enum("DataType", "FLOAT HALF")
BuilderFlag = Enum("BuilderFlag", "TF32 VERSION_COMPATIBLE REQUIRE_USER_ALLOCATION GPU_FALLBACK")
DeviceType = Enum("DeviceType", "GPU DLA")
HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
MemoryPoolType = Enum("MemoryPoolType", "WORKSPACE")
ExecutionContextAllocationStrategy = Enum("ExecutionContextAllocationStrategy", "STATIC USER_MANAGED")
DynamicShapesKernelSpecializationStrategy = Enum("DynamicShapesKernelSpecializationStrategy", "LAZY EAGER")
SCRATCH = 1001
"""Bytes that a context needs for each film of its batch."""


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


class ILogger:
    def __init__(self) -> None: ...


class IProgressMonitor:
    def __init__(self) -> None: ...


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.foreign = data.startswith(b"foreign")
        self.entries = set(data.decode().split())

    def combine(self, other: TimingCache, ignore_mismatch: bool) -> bool:
        if not other.foreign:
            self.entries |= other.entries
        return not other.foreign

    def serialize(self) -> bytes:
        return " ".join(sorted(self.entries)).encode()


class Config:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1
        self.progress_monitor: Any = None
        self.pools: dict[Any, int] = {}
        self.profile: Any = None
        self.cache: Any = None
        SETTINGS.configs.append(self)

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, data: bytes) -> TimingCache | None:
        return None if data.startswith(b"damaged") else TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.foreign:
            return False
        self.cache = cache
        return True


class Profile:
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes = {name: shapes}


class Builder:
    num_DLA_cores = 2  # noqa: N815 (its name)

    def __init__(self, log: Any) -> None:
        if SETTINGS.no_device:
            log.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log, self.registry = log, Registry()

    def get_plugin_registry(self) -> Registry:
        return self.registry

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return SimpleNamespace(model=b"", registry=self.registry)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: SimpleNamespace, config: Config) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 3)
        for step in range(3):
            for action in SETTINGS.steps:
                action()
            if not monitor.step_complete("Building engine", step):
                monitor.phase_finish("Building engine")
                self.log.log(Severity.ERROR, "BuildCanceled")
                return None
        monitor.phase_finish("Building engine")
        if config.cache:
            config.cache.entries.add(f"{len(network.model)}:1.5us")
        facts = json.dumps(
            {"shapes": config.profile.shapes, "plugins": sorted(SETTINGS.plugins), "dla": config.DLA_core}
        ).encode()
        body = len(facts).to_bytes(8, "little") + facts + network.model
        version = bytes(int(part) for part in __version__.split("."))
        tag = b"vtrt" if BuilderFlag.REQUIRE_USER_ALLOCATION in config.flags else b"ftrt"  # TensorRT-RTX sets it
        return tag + bytes(12) + (28 + len(body)).to_bytes(8, "little") + version + body


class OnnxParser:
    def __init__(self, network: SimpleNamespace, log: Any) -> None:
        self.network = network

    def parse(self, model: bytes) -> bool:
        self.network.model = model
        try:
            nodes = onnx.load_from_string(model).graph.node
        except Exception:
            self.errors = [SimpleNamespace(node_name=lambda: "", desc=lambda: "ModelProto cannot be parsed")]
            return False
        known = SETTINGS.plugins | self.network.registry.creators
        self.errors = [
            SimpleNamespace(
                node_name=lambda node=node: node.name,
                node_operator=lambda node=node: node.op_type,
                desc=lambda: "Plugin not found, are the plugin name, version, and namespace correct?",
            )
            for node in nodes
            if node.domain and (node.domain, node.op_type) not in known
        ]
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, at: int) -> SimpleNamespace:
        return self.errors[at]


class Runtime:
    def __init__(self, log: Any) -> None:
        if SETTINGS.no_device:
            log.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log, self.registry = log, Registry()
        self.engine_host_code_allowed, self.DLA_core = False, -1

    def get_plugin_registry(self) -> Registry:
        return self.registry

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if SETTINGS.broken_plans:
            self.log.log(Severity.ERROR, SETTINGS.broken_plans)
            return None
        engine = Engine(plan, self.registry.creators)
        assert engine.dla == self.DLA_core, "it would run on core 0, whatever it was built for"
        return engine


class Registry:
    """Of one builder or runtime. A second library with the same plugins is refused, as by the real one."""

    def __init__(self) -> None:
        self.creators: set[tuple[str, str]] = set()

    def load_library(self, library: str) -> object | None:
        SETTINGS.libraries.append(library)
        if library == "/broken.so" or self.creators:
            return None
        self.creators.add(("msloc", "CamFuse"))
        return object()


class Engine:
    def __init__(self, plan: bytes, plugins: set[tuple[str, str]]) -> None:
        assert plan[:4] in (b"ftrt", b"vtrt")
        begin = 36 + int.from_bytes(plan[28:36], "little")
        facts = json.loads(plan[36:begin])
        self.dla = facts["dla"]
        self.shapes, plugins = facts["shapes"], plugins | {tuple(plugin) for plugin in facts["plugins"]}
        self.device_memory_size_v2 = SCRATCH * self.shapes["image"][2][0]
        options = ort.SessionOptions()
        options.log_severity_level = 3
        model = onnx.load_from_string(plan[begin:])
        for node in model.graph.node:
            if (node.domain, node.op_type) in plugins:
                sizes = [attribute for attribute in node.attribute if attribute.name in ("height", "width")]
                del node.attribute[:]
                node.attribute.extend(sizes)
                model.functions.append(definition(len(node.input) - 1, model.opset_import[0].version))
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.names = [node.name for node in (*self.session.get_inputs(), *self.session.get_outputs())]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, at: int) -> str:
        return self.names[at]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        nodes = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        return (-1, *nodes[name].shape[1:])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.shapes[name]]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, chosen: Any) -> Context:
        cache = None
        if isinstance(chosen, RuntimeConfig):  # as TensorRT-RTX has it
            assert (
                chosen.dynamic_shapes_kernel_specialization_strategy is DynamicShapesKernelSpecializationStrategy.EAGER
            )
            chosen, cache = chosen.strategy, chosen.cache
        assert chosen is ExecutionContextAllocationStrategy.USER_MANAGED
        SETTINGS.contexts.append(context := Context(self, cache))
        return context


class RuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    """Shapes whose kernels were compiled."""

    def __init__(self) -> None:
        self.entries: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels "):
            return False
        self.entries |= set(blob.decode().split()[1:])
        return True

    def serialize(self) -> bytes:
        return " ".join(["kernels", *sorted(self.entries)]).encode() + b" "


class Context:
    def __init__(self, engine: Engine, cache: RuntimeCache | None) -> None:
        self.engine, self.addresses, self.enqueued, self.scratch, self.cache = engine, {}, 0, 0, cache
        self._kept: list[Any] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.shapes[name]
        self.batch, kernels = shape[0], "x".join(map(str, shape))
        if self.cache and kernels not in self.cache.entries:
            self.cache.entries.add(kernels)
            SETTINGS.compiled.append(kernels)
        return all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, *self.engine.get_tensor_shape(name)[1:])

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH * self.batch

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= SCRATCH * self.batch
        self.scratch = address

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.enqueued += 1

        def work(_: Any = None) -> None:
            ctypes.memset(self.scratch, 0xFF, SCRATCH * self.batch)
            films = self._at("image")
            found = self.engine.session.run(None, {"image": films})
            for node, value in zip(self.engine.session.get_outputs(), found, strict=True):
                self._at(node.name)[:] = value

        if not stream:  # no driver at all: nothing to wait for
            work()
            return True
        driver = ctypes.CDLL("libcuda.so.1")
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(work)
        self._kept.append(function)
        return driver.cuLaunchHostFunc(ctypes.c_void_p(stream), function, None) == 0

    def _at(self, name: str) -> np.ndarray:
        shape = self.get_tensor_shape(name)
        values = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name])
        return np.ctypeslib.as_array(values).reshape(shape)
