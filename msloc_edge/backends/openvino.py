"""OpenVINO: Intel's CPUs, GPUs and NPUs, from the same ONNX file."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from msloc_edge.backends.base import Backend, Outputs
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError


@functools.cache
def shared_core() -> ov.Core:
    """The one Core of this process, never freed.

    A Core's CPU plugin sets the thread's signal stack and puts the one before back when it is freed: of several Cores
    freed out of order that one is gone, and the next signal, Ctrl-C say, ends the process (OpenVINO 2026.4).
    """
    return ov.Core()


class OpenVinoBackend(Backend):
    """device: one that OpenVINO names, such as CPU (default), GPU or NPU."""

    name = "openvino"

    def __init__(self, model: ov.CompiledModel, device: str) -> None:
        self._model, self._device = model, device

    @classmethod
    def load(cls, bundle: Bundle, device: str | None = None, threads: int | None = None) -> OpenVinoBackend:
        core, device = shared_core(), (device or "cpu").upper()
        if device.split(".")[0] not in core.available_devices:
            known = ", ".join(core.available_devices)
            raise BackendError("backend_device", f"openvino: expected a device of {known}, got {device!r}")
        # Accuracy first: on CPUs with bf16 units OpenVINO would otherwise compute in bf16 and break parity.
        settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads and device.split(".")[0] == "CPU":
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.compile_model(core.read_model(bundle.onnx), device, settings)
        except RuntimeError as error:
            raise BackendError("backend_failed", f"openvino cannot load {bundle.onnx}: {error}") from error
        return cls(model, device)

    def run(self, batch: NDArray[np.float32]) -> Outputs:
        try:
            results = self._model([batch])
        except RuntimeError as error:
            raise BackendError(
                "backend_failed", f"openvino failed on a batch of shape {batch.shape}: {error}"
            ) from error
        logits, *cams = (np.array(results[output]) for output in self._model.outputs)
        return Outputs(logits, tuple(cams))

    def describe(self) -> Mapping[str, str]:
        return {"engine": self.name, "version": ov.__version__, "device": self._device.lower()}
