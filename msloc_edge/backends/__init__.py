"""Backends by name. A backend's package is imported when it is loaded, not before."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from msloc_edge.backends.base import Backend, Outputs, Search
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError, DependencyError
from msloc_edge.types import PLAN_PRECISIONS, TORCH_PRECISIONS

__all__ = ["BACKENDS", "DEFAULT_BACKEND", "Backend", "Outputs", "Search", "load_backend"]

DEFAULT_BACKEND = "onnxruntime"


class Entry(NamedTuple):
    """Facts of a backend that is not loaded: module and name of its `load`, its precisions, what installs it."""

    module: str
    load: str
    precisions: tuple[str, ...]
    install: str


BACKENDS = {
    "onnxruntime": Entry("msloc_edge.backends.onnxruntime", "load", ("fp32",), "pip install onnxruntime"),
    "openvino": Entry("msloc_edge.backends.openvino", "load", ("fp32",), "pip install 'msloc-edge[openvino]'"),
    "torch": Entry("msloc_edge.backends.torch.backend", "load", TORCH_PRECISIONS, "pip install 'msloc-edge[train]'"),
    "tensorrt": Entry(
        "msloc_edge.backends.tensorrt.backend", "load_tensorrt", PLAN_PRECISIONS, "pip install tensorrt-cu13"
    ),
    "tensorrt_rtx": Entry(
        "msloc_edge.backends.tensorrt.backend", "load_tensorrt_rtx", PLAN_PRECISIONS, "pip install 'msloc-edge[rtx]'"
    ),
}


def load_backend(
    name: str, bundle: Bundle, device: str | None = None, precision: str = "fp32", threads: int | None = None
) -> Backend:
    """Load a bundle into the backend called `name`.

    device     as the backend names it; None: its default
    precision  one of the backend's
    threads    at most so many for the network on a CPU; None lets the backend choose

    Raises BackendError (backend_unknown, backend_device, backend_failed) and DependencyError (backend_missing).
    """
    if name not in BACKENDS:
        raise BackendError("backend_unknown", f"expected a backend of {', '.join(BACKENDS)}, got {name!r}")
    entry = BACKENDS[name]
    if precision not in entry.precisions:
        raise BackendError(
            "backend_device", f"{name}: expected a precision of {', '.join(entry.precisions)}, got {precision!r}"
        )
    try:
        load: Callable[..., Backend] = getattr(importlib.import_module(entry.module), entry.load)
    except ImportError as error:
        raise DependencyError("backend_missing", f"{name}: {error}; install it with: {entry.install}") from error
    return load(bundle, device, precision, threads)
