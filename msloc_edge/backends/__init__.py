"""The engines, by name. An engine's package is imported when it is loaded, not before."""

from __future__ import annotations

import importlib

from msloc_edge.backends.base import Backend, Outputs
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError

__all__ = ["BACKENDS", "DEFAULT_BACKEND", "Backend", "Outputs", "load_backend"]

DEFAULT_BACKEND = "onnxruntime"

BACKENDS = {
    "onnxruntime": ("msloc_edge.backends.onnxruntime", "OnnxRuntimeBackend", "pip install onnxruntime"),
    "openvino": ("msloc_edge.backends.openvino", "OpenVinoBackend", "pip install 'msloc-edge[openvino]'"),
    "torch": ("msloc_edge.backends.torch.backend", "TorchBackend", "pip install 'msloc-edge[train]'"),
    "tensorrt": ("msloc_edge.backends.tensorrt.backend", "TensorRtBackend", "pip install tensorrt-cu13"),
    "tensorrt_rtx": ("msloc_edge.backends.tensorrt.backend", "TensorRtRtxBackend", "pip install 'msloc-edge[rtx]'"),
}
"""name -> (module, class, the command that installs what it needs)"""


def load_backend(name: str, bundle: Bundle, device: str | None = None, threads: int | None = None) -> Backend:
    """Load `bundle` into the engine called `name`, on a CPU with at most `threads` threads.

    Raises BackendError: backend_unknown, backend_missing, or whatever the engine's own `load` raises.
    """
    if name not in BACKENDS:
        raise BackendError("backend_unknown", f"expected a backend of {', '.join(BACKENDS)}, got {name!r}")
    module, cls, install = BACKENDS[name]
    try:
        backend: type[Backend] = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        raise BackendError("backend_missing", f"{name}: {error}; install it with: {install}") from error
    return backend.load(bundle, device, threads)
