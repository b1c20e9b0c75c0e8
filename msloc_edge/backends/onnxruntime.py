"""onnxruntime: the default backend, a plain CPU and nothing to set up."""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort

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

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3


class OnnxRuntimeBackend(Backend):
    """A bundle's graph in a session."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, session: ort.InferenceSession, device: str) -> None:
        self._bundle, self._session, self._device = bundle, session, device
        self.concurrent = device == "cpu"
        self._outputs = list(output_shapes(bundle))

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        batch = host_batch(films)
        try:
            logits, *cams = self._session.run(self._outputs, {"image": batch})
        except Exception as error:
            raise BackendError(
                "backend_failed", f"onnxruntime failed on a batch of shape {batch.shape}: {error}"
            ) from error
        return Outputs(self._bundle, logits, tuple(cams), search)

    def describe(self) -> Mapping[str, str]:
        return {"engine": self.name, "version": ort.__version__, "device": self._device}


def load(
    bundle: Bundle, device: str | None = None, precision: str = "fp32", threads: int | None = None
) -> OnnxRuntimeBackend:
    """Load a bundle on cpu (default), or on cuda where onnxruntime-gpu is installed; see `load_backend`."""
    device = device or "cpu"
    available = [name for name, provider in PROVIDERS.items() if provider in ort.get_available_providers()]
    if device not in available:
        raise BackendError(
            "backend_device", f"onnxruntime: expected a device of {', '.join(available)}, got {device!r}"
        )
    model = bundle.read(ONNX)
    try:
        session = open_session(model, device, threads)
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BackendError("backend_failed", f"onnxruntime cannot load {bundle.onnx}: {error}") from error
    outputs = [output.name for output in session.get_outputs()]
    require_names(bundle, {each.name: each.shape for each in session.get_inputs()}, outputs)
    backend = OnnxRuntimeBackend(bundle, session, device)
    try_out(bundle, backend)
    return backend


def open_session(model: bytes, device: str = "cpu", threads: int | None = None) -> ort.InferenceSession:
    """Open a graph by its bytes in a session. Raises what onnxruntime raises."""
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    # A thread that spins while it waits takes the core from the threads that read the next films.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=[PROVIDERS[device]])
