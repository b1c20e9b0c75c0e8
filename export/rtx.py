"""TensorRT-RTX: an engine for consoles with RTX cards, built ahead of time, on a machine without a GPU.

What a user's first start would otherwise spend on parsing and optimising is done here; the kernels themselves are
compiled on the user's card when the engine is loaded. Precision is in the graph: TensorRT-RTX is strongly typed.
"""

from __future__ import annotations

import tensorrt_rtx as trt
from rich.progress import Progress, TaskID

from msloc_edge.errors import ExportError
from msloc_edge.export.choices import Batch

VERSION: str = trt.__version__


def build(model: bytes, batch: Batch, size: tuple[int, int], progress: Progress) -> tuple[bytes, str]:
    """An ONNX graph with the input image [B, 1, H, W] -> the engine, and the log of its building.

    Raises ExportError (engine) when TensorRT-RTX refuses the graph or cannot build it.
    """
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        found = parser.get_error(0)
        where = f"node {found.node_name()} ({found.node_operator()})" if found.node_name() else "the graph"
        raise ExportError("engine", f"TensorRT-RTX {VERSION} refuses {where}: {found.desc()}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *((count, 1, *size) for count in (batch.least, batch.best, batch.most)))
    config.add_optimization_profile(profile)
    monitor = _Monitor(progress)
    config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError("engine", f"TensorRT-RTX {VERSION} cannot build the engine: {log.last_error()}")
    return bytes(engine), "\n".join(log.lines) + "\n"


class _Log(trt.ILogger):  # type: ignore[misc] # tensorrt_rtx has no types
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        self.lines.append(f"[{severity.name}] {message}")

    def last_error(self) -> str:
        errors = [line for line in self.lines if line.startswith(("[ERROR]", "[INTERNAL_ERROR]"))]
        return errors[-1] if errors else "it gives no reason"


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc] # tensorrt_rtx has no types
    """A bar for each phase that is under way."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._tasks[phase_name] = self._progress.add_task(phase_name.lower(), total=num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Whether to go on."""
        self._progress.update(self._tasks[phase_name], completed=step + 1)
        return True

    def phase_finish(self, phase_name: str) -> None:
        self._progress.remove_task(self._tasks.pop(phase_name))
