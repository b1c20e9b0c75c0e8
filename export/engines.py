"""What gives logits and maps for a batch of films: a backend with the bundle, or a graph that ends in the heatmap."""

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
Engine = Callable[[Array], tuple[Array, Array]]
"""Films [B, 1, H, W] -> logits [B, K], maps [B, K, H, W]."""


def of_backend(name: str, bundle: Bundle) -> Engine:
    """The bundle in a backend, its maps fused as the backend does it. Raises BackendError."""
    backend, classes = load_backend(name, bundle), range(len(bundle.classes))
    backend.wait()

    def run(batch: Array) -> tuple[Array, Array]:
        found = backend.run(batch)
        maps = [found.maps(image, bundle.relevance, bundle.input_size, classes).dense() for image in range(len(batch))]
        return found.logits, np.stack(maps)

    return run


def in_onnxruntime(model: onnx.ModelProto) -> Engine:
    """A graph in onnxruntime, on the CPU. Raises BackendError (backend_failed) when it cannot be loaded."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BackendError("backend_failed", f"onnxruntime cannot load the graph: {error}") from error

    def run(batch: Array) -> tuple[Array, Array]:
        logits, maps = session.run(["logits", HEATMAP], {"image": batch})
        return logits, maps

    return run


def in_openvino(model: onnx.ModelProto) -> Engine:
    """A graph in OpenVINO, on the CPU, in 32 bits where the graph is. Raises BackendError."""
    try:
        from msloc_edge.backends.openvino import shared_core
    except ImportError as error:
        install = "pip install 'msloc-edge[openvino]'"
        raise DependencyError("backend_missing", f"openvino: {error}; install it with: {install}") from error
    core = shared_core()
    try:
        read = core.read_model(model.SerializeToString(), b"")
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise BackendError("backend_failed", f"openvino cannot load the graph: {error}") from error

    def run(batch: Array) -> tuple[Array, Array]:
        found = compiled([batch])
        return np.array(found["logits"]), np.array(found[HEATMAP])

    return run
