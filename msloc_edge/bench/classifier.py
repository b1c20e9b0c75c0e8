"""The bare classifier inside a bundle: what its network would cost without localization.

    image -> backbone -> deepest feature map F_S -> global average -> linear -> logits [B, K]

No neck, no class maps, no pooling of maps: the floor for "what does localization cost?". The linear layer's weights are
seeded, not trained: time does not depend on them, and the logits mean nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends import Backend, load_backend
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.errors import BackendError, DependencyError
from msloc_edge.model.config import is_own

if TYPE_CHECKING:
    from onnx import NodeProto

NECK, HEAD = "neck.laterals", "head.classifiers"
READER = re.compile(rf"({re.escape(NECK)}|{re.escape(HEAD)})\.(\d+)\.weight")
"""Weights of the 1x1 convolutions that read the stages, by stage. With a neck the head reads what the neck gives."""


def bare_classifier(
    bundle: Bundle,
    backend: str,
    device: str | None,
    folder: Path,
    threads: int | None = None,
    precision: str = "fp32",
) -> Backend:
    """Load the bundle's bare classifier in a backend: `run` gives logits and no class maps.

    folder  gets model.onnx, for the backends that read one

    Raises BackendError as `load_backend` and `classifier_onnx` do.
    """
    if backend == "torch" and is_own(bundle):
        return without_maps(load_backend(backend, bundle, device, precision, threads))
    model = classifier_onnx(bundle)
    (folder / ONNX).write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    manifest = {**bundle.manifest, "files": {ONNX: digest}}
    bare = replace(bundle, path=folder, stages=(), manifest=manifest, sha256=digest)
    return load_backend(backend, bare, device, precision, threads)


def classifier_onnx(bundle: Bundle) -> bytes:
    """Cut the bare classifier as ONNX from the bundle's model.onnx: image [B, 1, H, W] -> logits [B, K].

    Raises BackendError: backend_missing without the onnx package, backend_failed where the graph shows no backbone.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise DependencyError(
            "backend_missing", f"the bare classifier: {error}; install it with: pip install onnx"
        ) from error
    model = onnx.load_model_from_string(bundle.read(ONNX))
    graph, image = model.graph, model.graph.input[0]
    try:
        features, weight = deepest_features(graph.node)
        channels = next(tensor.dims[1] for tensor in graph.initializer if tensor.name == weight)
    except (ValueError, StopIteration) as error:
        raise BackendError(
            "backend_failed", f"{bundle.onnx}: no convolution {NECK}.N or {HEAD}.N reads a backbone; export it again"
        ) from error
    needed = ancestors(graph.node, features)
    classes = len(bundle.classes)
    classifier = helper.make_graph(
        [
            *(node for node in graph.node if needed.intersection(node.output)),
            helper.make_node("GlobalAveragePool", [features], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "classifier.weight"], ["logits"], transB=1),
        ],
        "classifier",
        [image],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, [image.type.tensor_type.shape.dim[0].dim_param, classes]
            )
        ],
        [
            *(tensor for tensor in graph.initializer if tensor.name in needed),
            numpy_helper.from_array(linear_weights(classes, channels), "classifier.weight"),
        ],
    )
    cut = helper.make_model(classifier, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(cut, full_check=True)
    return cut.SerializeToString()


def linear_weights(classes: int, channels: int) -> NDArray[np.float32]:
    """Draw the linear layer [K, C] of every bare classifier of this shape: the same numbers each time."""
    return np.random.default_rng(0).standard_normal((classes, channels), np.float32)


def deepest_features(nodes: Iterable[NodeProto]) -> tuple[str, str]:
    """Name the backbone's deepest feature map and the weight that reads it. Raises ValueError where nothing does."""
    readers = [
        (found[1] == NECK, int(found[2]), node.input[0], node.input[1])
        for node in nodes
        if node.op_type == "Conv" and (found := READER.fullmatch(node.input[1]))
    ]
    _, _, features, weight = max(readers)
    return features, weight


def ancestors(nodes: Iterable[NodeProto], tensor: str) -> set[str]:
    """Name all tensors that `tensor` is computed from, and itself."""
    sources = {output: node.input for node in nodes for output in node.output}
    needed: set[str] = set()
    todo = [tensor]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo += sources.get(name, ())
    return needed


def without_maps(backend: Backend) -> Backend:
    """Take neck and head off a loaded torch backend's network: its deepest features, averaged, multiplied -> logits."""
    import torch

    from msloc_edge.backends.torch.backend import TorchBackend
    from msloc_edge.backends.torch.precision import DTYPES
    from msloc_edge.model.network import BACKBONES, CamNet, Prediction

    assert isinstance(backend, TorchBackend)
    net, device, precision = backend.net, backend._device, backend._precision
    assert isinstance(net, CamNet)
    channels = BACKBONES[net.config.backbone].channels[-1]
    weight = torch.from_numpy(linear_weights(len(net.config.classes), channels)).to(device)
    net.neck = torch.nn.Identity()

    def classify(films: torch.Tensor) -> Prediction:
        with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            deepest = net.features(films)[-1]
        return Prediction(deepest.float().mean(dim=(2, 3)) @ weight.T, ())

    return TorchBackend(backend._bundle, net, device, precision, classify)
