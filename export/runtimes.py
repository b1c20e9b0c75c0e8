"""Logits and maps of films, by a backend with the bundle or by a runtime with a graph that ends in the heatmap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from msloc_edge.backends import load_backend
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError, DependencyError
from msloc_edge.export.graphs import HEATMAP

Array = NDArray[np.float32]
Predict = Callable[[Array], tuple[Array, Array]]
"""Films [B, 1, H, W] in [0, 1] -> logits [B, K], maps [B, K, H, W]."""


def in_backend(name: str, bundle: Bundle) -> Predict:
    """Load the bundle in a backend, whose own form fuses the maps. Raises what `load_backend` does."""
    backend, classes = load_backend(name, bundle), range(len(bundle.classes))
    backend.wait()

    def predict(batch: Array) -> tuple[Array, Array]:
        found = backend.run(batch)
        return found.logits, np.stack([found.fuse(image, classes).dense() for image in range(len(batch))])

    return predict


def in_onnxruntime(model: onnx.ModelProto) -> Predict:
    """Load a graph in onnxruntime, on the CPU. Raises BackendError (backend_failed) when it cannot be loaded."""
    from msloc_edge.backends.onnxruntime import open_session

    try:
        session = open_session(model.SerializeToString())
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BackendError("backend_failed", f"onnxruntime cannot load the graph: {error}") from error

    def predict(batch: Array) -> tuple[Array, Array]:
        logits, maps = session.run(["logits", HEATMAP], {"image": batch})
        return logits, maps

    return predict


def in_openvino(model: onnx.ModelProto) -> Predict:
    """Load a graph in OpenVINO, on the CPU, in 32 bits where the graph is. Raises DependencyError, BackendError."""
    try:
        from msloc_edge.backends.openvino import compile_model
    except ImportError as error:
        install = "pip install 'msloc-edge[openvino]'"
        raise DependencyError("backend_missing", f"openvino: {error}; install it with: {install}") from error
    try:
        compiled = compile_model(model.SerializeToString())
    except RuntimeError as error:
        raise BackendError("backend_failed", f"openvino cannot load the graph: {error}") from error

    def predict(batch: Array) -> tuple[Array, Array]:
        found = compiled([batch])
        return np.array(found["logits"]), np.array(found[HEATMAP])

    return predict
