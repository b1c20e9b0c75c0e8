"""OpenVINO: Intel's CPUs, GPUs and NPUs, from the same ONNX file."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import openvino as ov

from msloc_edge.backends.base import (
    Backend,
    Films,
    Outputs,
    Search,
    host_batch,
    output_shapes,
    require_names,
    try_out,
)
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.errors import BackendError


class OpenVinoBackend(Backend):
    """A bundle's graph, compiled for a device."""

    name = "openvino"

    def __init__(self, bundle: Bundle, model: ov.CompiledModel, device: str) -> None:
        self._bundle, self._model, self._device = bundle, model, device

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        batch = host_batch(films)
        try:
            results = self._model([batch])
        except RuntimeError as error:
            raise BackendError(
                "backend_failed", f"openvino failed on a batch of shape {batch.shape}: {error}"
            ) from error
        logits, *cams = (np.array(results[name]) for name in output_shapes(self._bundle))
        return Outputs(self._bundle, logits, tuple(cams), search)

    def describe(self) -> Mapping[str, str]:
        return {"engine": self.name, "version": ov.__version__, "device": self._device.lower()}


def load(
    bundle: Bundle, device: str | None = None, precision: str = "fp32", threads: int | None = None
) -> OpenVinoBackend:
    """Load a bundle on a device that OpenVINO names, such as CPU (default), GPU or NPU; see `load_backend`."""
    device, available = (device or "cpu").upper(), shared_core().available_devices
    if device.split(".")[0] not in available:
        raise BackendError("backend_device", f"openvino: expected a device of {', '.join(available)}, got {device!r}")
    model = bundle.read(ONNX)
    try:
        compiled = compile_model(model, device, threads)
    except RuntimeError as error:
        raise BackendError("backend_failed", f"openvino cannot load {bundle.onnx}: {error}") from error
    inputs = {
        _name(port): [side.get_length() if side.is_static else None for side in port.partial_shape]
        for port in compiled.inputs
    }
    require_names(bundle, inputs, [_name(port) for port in compiled.outputs])
    backend = OpenVinoBackend(bundle, compiled, device)
    try_out(bundle, backend)
    return backend


def _name(port: ov.ConstOutput) -> str:
    return min(port.names, default="")


def compile_model(model: bytes, device: str = "CPU", threads: int | None = None) -> ov.CompiledModel:
    """Compile a graph by its bytes for a device. Raises RuntimeError as OpenVINO does."""
    core = shared_core()
    network = core.read_model(model, b"")
    # Accuracy first: on CPUs with bf16 units OpenVINO would otherwise compute in bf16 and break parity.
    settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads and device.split(".")[0] == "CPU":
        settings["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(network, device, settings)


@functools.cache
def shared_core() -> ov.Core:
    """The one Core of this process, never freed.

    A Core's CPU plugin sets the thread's signal stack and puts the one before back when it is freed: of several Cores
    freed out of order that one is gone, and the next signal, Ctrl-C say, ends the process (OpenVINO 2026.4).
    """
    return ov.Core()
