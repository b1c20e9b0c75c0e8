"""A stand-in for TensorRT, with the part of its interface that is used: its plan is the graph, which onnxruntime runs.

Plans have TensorRT's header. A context works on the addresses that it was given, and puts its work on the stream that
it was given, if that is one of libcuda_stand_in.c: a graph captures it as a real one would.
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

__version__ = "10.16.1.11"
SETTINGS = SimpleNamespace(steps=[], seconds=0.0, no_device=False, broken_plans=False, libraries=[], configs=[])
"""What the next build does, and what was asked of the builders."""

Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
DataType = Enum("DataType", "FLOAT HALF")
BuilderFlag = Enum("BuilderFlag", "TF32 VERSION_COMPATIBLE")
HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
MemoryPoolType = Enum("MemoryPoolType", "WORKSPACE")


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


class ILogger:
    def __init__(self) -> None: ...


class IProgressMonitor:
    def __init__(self) -> None: ...


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.entries = set(data.decode().split())

    def combine(self, other: TimingCache, ignore_mismatch: bool) -> bool:
        self.entries |= other.entries
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.entries)).encode()


class Config:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
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

    def add_optimization_profile(self, profile: Profile) -> None:
        self.profile = profile

    def create_timing_cache(self, data: bytes) -> TimingCache:
        return TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True


class Profile:
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes = {name: shapes}


class Builder:
    def __init__(self, log: Any) -> None:
        if SETTINGS.no_device:
            log.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log = log

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return SimpleNamespace(model=b"")

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
        shapes = json.dumps(config.profile.shapes).encode()
        body = len(shapes).to_bytes(8, "little") + shapes + network.model
        version = bytes(int(part) for part in __version__.split("."))
        return b"ftrt" + bytes(12) + (28 + len(body)).to_bytes(8, "little") + version + body


class OnnxParser:
    def __init__(self, network: SimpleNamespace, log: Any) -> None:
        self.network = network

    def parse(self, model: bytes) -> bool:
        self.network.model = model
        try:
            onnx.load_from_string(model)
        except Exception:
            return False
        return True

    def get_error(self, at: int) -> SimpleNamespace:
        return SimpleNamespace(node_name=lambda: "", desc=lambda: "ModelProto cannot be parsed")


class Runtime:
    def __init__(self, log: Any) -> None:
        self.log = log
        self.engine_host_code_allowed = False

    def get_plugin_registry(self) -> SimpleNamespace:
        return get_plugin_registry()

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if SETTINGS.broken_plans:
            self.log.log(Severity.ERROR, "Platform (device) differs from that of the plan")
            return None
        return Engine(plan)


def get_plugin_registry() -> SimpleNamespace:
    def load_library(library: str) -> object:
        SETTINGS.libraries.append(library)
        return None if library == "/broken.so" else object()

    return SimpleNamespace(load_library=load_library)


class Engine:
    def __init__(self, plan: bytes) -> None:
        assert plan.startswith(b"ftrt")
        begin = 36 + int.from_bytes(plan[28:36], "little")
        self.shapes = json.loads(plan[36:begin])
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(plan[begin:], options, providers=["CPUExecutionProvider"])
        self.names = [node.name for node in (*self.session.get_inputs(), *self.session.get_outputs())]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, at: int) -> str:
        return self.names[at]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.shapes[name]]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses, self.enqueued = engine, {}, 0
        self._kept: list[Any] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.shapes[name]
        self.batch = shape[0]
        return all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        nodes = {node.name: node for node in (*self.engine.session.get_inputs(), *self.engine.session.get_outputs())}
        return (self.batch, *nodes[name].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.enqueued += 1

        def work(_: Any = None) -> None:
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
