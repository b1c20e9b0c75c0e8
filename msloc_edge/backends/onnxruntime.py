"""onnxruntime: the default engine, a plain CPU and nothing to set up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from msloc_edge.backends.base import Backend, Outputs
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3


class OnnxRuntimeBackend(Backend):
    """device: cpu (default) or cuda, where onnxruntime-gpu is installed."""

    name = "onnxruntime"

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session, self._device = session, device

    @classmethod
    def load(cls, bundle: Bundle, device: str | None = None, threads: int | None = None) -> OnnxRuntimeBackend:
        device = device or "cpu"
        provider = PROVIDERS.get(device)
        if provider not in ort.get_available_providers():
            known = ", ".join(name for name, p in PROVIDERS.items() if p in ort.get_available_providers())
            raise BackendError("backend_device", f"onnxruntime: expected a device of {known}, got {device!r}")
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = threads or 0  # 0: one for each core
        # A thread that spins while it waits takes the core from the threads that read the next films.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(bundle.onnx), options, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise BackendError("backend_failed", f"onnxruntime cannot load {bundle.onnx}: {error}") from error
        return cls(session, device)

    def run(self, batch: NDArray[np.float32]) -> Outputs:
        try:
            logits, *cams = self._session.run(None, {"image": batch})
        except Exception as error:
            raise BackendError(
                "backend_failed", f"onnxruntime failed on a batch of shape {batch.shape}: {error}"
            ) from error
        return Outputs(logits, tuple(cams))

    def describe(self) -> Mapping[str, str]:
        return {"engine": self.name, "version": ort.__version__, "device": self._device}
