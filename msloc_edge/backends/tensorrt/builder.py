"""From an ONNX graph to a plan, by TensorRT 10.3 to 11.x or TensorRT-RTX: one builder, which takes the module.

Networks are strongly typed: precision is in the graph. TensorRT builds on the GPU that is to run the engine;
TensorRT-RTX needs none, as the kernels are compiled on the user's card when the engine is loaded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msloc_edge._files import atomic_write
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, TensorRTLibrary
from msloc_edge.backends.tensorrt.plan import Plan
from msloc_edge.backends.tensorrt.progress import Watch
from msloc_edge.errors import BackendError


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of a build.

    workspace            at most so many MiB of device memory for one layer's scratch; None: what the device has
    version_compatible   the plan also runs in later versions of the library (TensorRT only; larger)
    hardware_compatible  the plan also runs on other devices from Ampere on (TensorRT only; slower)
    dla                  core of an Orin's accelerator that takes the layers that it can; the GPU has the others
    """

    batch: Batch = field(default_factory=Batch)
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A new plan, what the library said, and the seconds that it took."""

    data: bytes
    log: str
    seconds: float

    def plan(self, key: Key, facts: Mapping[str, Any] | None = None) -> Plan:
        """Give the plan as the cache keeps it."""
        return Plan(self.data, key, self.seconds, facts or {})


def build(
    library: TensorRTLibrary,
    model: bytes,
    size: tuple[int, int],
    settings: Settings,
    watch: Watch,
    timing: Path | None = None,
    cancelled: threading.Event | None = None,
    plugins: Path | None = None,
) -> Built:
    """Build the plan of an ONNX graph with the input image [B, 1, H, W].

    timing     file of the kernels' measured times, read and written, which makes the next build faster
    cancelled  set by another thread, it ends the build at its next step
    plugins    a C++ library of those that the graph needs
    Raises DependencyError; BackendError: backend_failed (the library does not work with this driver), build_failed (it
    refuses the graph or cannot build it, or is cancelled).
    """
    trt = library.load()
    begin = time.perf_counter()
    log = logger(trt)
    try:
        builder = trt.Builder(log)
    except Exception as error:  # pybind11 calls a constructor that gives nothing a TypeError
        raise BackendError("backend_failed", cannot_start(library, trt, log)) from error
    if plugins:
        load_plugins(builder.get_plugin_registry(), plugins)  # of this builder: a process may build again
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        found = parser.get_error(0) if parser.num_errors else None
        where = f"node {found.node_name()} ({found.node_operator()})" if found and found.node_name() else "the graph"
        words = found.desc() if found else log.last_error()
        raise BackendError("build_failed", f"{library.title} {trt.__version__} refuses {where}: {words}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 as on the CPU: TF32 would move logits by about 1e-3
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace << 20)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.dla is not None:
        _use_dla(trt, builder, config, settings.dla)
    if library is TENSORRT_RTX:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # without it no CUDA graph can be captured
    profile, batch = builder.create_optimization_profile(), settings.batch
    profile.set_shape("image", *((count, 1, *size) for count in (batch.least, batch.best, batch.most)))
    if config.add_optimization_profile(profile) < 0:
        words = (
            f"{library.title} {trt.__version__} refuses batches of {batch.least} to {batch.most}: {log.last_error()}"
        )
        raise BackendError("build_failed", words)
    # TensorRT holds no reference of its own: the monitor and the times have names until the engine is built.
    monitor = _monitor(trt, watch, cancelled or threading.Event())
    config.progress_monitor = monitor
    # In TensorRT-RTX a timing cache does nothing, and is deprecated.
    times = _times(config, timing) if timing and library is TENSORRT else None
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        words = f"{library.title} {trt.__version__} cannot build the engine: {log.last_error()}"
        raise BackendError("build_failed", words)
    if timing and times:
        _keep_times(config, times, timing)
    return Built(bytes(plan), "\n".join(log.lines) + "\n", time.perf_counter() - begin)


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    """Give the accelerator all layers that it can run, and the GPU the others."""
    if core >= (count := builder.num_DLA_cores):
        raise BackendError("build_failed", f"expected a DLA core of this device, which has {count}, got core {core}")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def logger(trt: Any, max_lines: int | None = None) -> Any:
    """A logger that keeps its last `max_lines`; `last_error()` is what the library said before it failed."""

    class Log(trt.ILogger):  # type: ignore[misc] # the module has no types
        def __init__(self) -> None:
            super().__init__()
            self.lines: deque[str] = deque(maxlen=max_lines)

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(f"[{severity.name}] {message}")

        def last_error(self) -> str:
            errors = [line for line in self.lines if line.startswith(("[ERROR]", "[INTERNAL_ERROR]"))]
            return errors[-1] if errors else "it gives no reason"

    return Log()


def cannot_start(library: TensorRTLibrary, trt: Any, log: Any) -> str:
    """Sentence for a library whose builder or runtime cannot be made: a driver that is too old for it, mostly."""
    return (
        f"{library.title} {trt.__version__} cannot start on this device: {log.last_error()}; nvidia-smi shows the "
        f"driver and its CUDA version, take the library for that one: {library.install}"
    )


def load_plugins(registry: Any, plugins: Path | str) -> None:
    """Load a C++ library of plugins into the registry of a builder or a runtime. Raises BackendError (build_failed)."""
    if registry.load_library(str(plugins)) is None:
        raise BackendError(
            "build_failed", f"{plugins}: TensorRT cannot load this library of plugins; build it for this version"
        )


def _monitor(trt: Any, watch: Watch, cancelled: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the module has no types
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Tell whether to go on."""
            watch.step(phase_name, step + 1)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()


def _read(timing: Path) -> bytes:
    try:
        return timing.read_bytes()
    except OSError:
        return b""


def _times(config: Any, timing: Path) -> Any:
    """Timing cache of the file, in use; a new one when it is damaged, or of another device of this SM."""
    for data in (_read(timing), b""):
        times = config.create_timing_cache(data)
        if times is not None and config.set_timing_cache(times, ignore_mismatch=False):
            return times
    return None


def _keep_times(config: Any, times: Any, timing: Path) -> None:
    """Write the times together with what another build wrote meanwhile. They only save time: a failure is no error."""
    written = _read(timing)
    if written and (others := config.create_timing_cache(written)) is not None:
        times.combine(others, ignore_mismatch=False)
    try:
        timing.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(timing, bytes(times.serialize()))
    except OSError:
        return
