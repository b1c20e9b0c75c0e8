"""Graphs with the heatmap: by standard operators or as a CamFuse node, they give what fuse_cams gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError
from msloc_edge.export import export_bundle
from msloc_edge.export.graphs import CAMFUSE, HEATMAP, check_graph, class_maps, outputs, with_camfuse, with_heatmap
from msloc_edge.export.runtimes import Predict, in_onnxruntime, in_openvino
from msloc_edge.kernels.fuse_cams.reference import fuse_cams

LIMIT = 1e-4


def expected(network: onnx.ModelProto, bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """The class maps of the bundle's own network, fused by the reference."""
    session = ort.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    cams = [torch.from_numpy(cam) for cam in session.run(class_maps(bundle), {"image": images})]
    return fuse_cams(cams, torch.from_numpy(bundle.relevance), bundle.input_size).numpy()


@pytest.mark.parametrize("load", [in_onnxruntime, in_openvino])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_heatmap_is_the_reference(
    opened: Bundle, network: onnx.ModelProto, images: np.ndarray, load: Callable[..., Predict], batch: int
) -> None:
    _, maps = load(with_heatmap(network, opened))(images[:batch])
    assert maps.shape == (batch, 8, 64, 64)
    assert np.abs(maps - expected(network, opened, images[:batch])).max() < LIMIT


def test_the_node_means_the_same(opened: Bundle, network: onnx.ModelProto, images: np.ndarray) -> None:
    model = with_camfuse(network, opened, defined=True)
    onnx.checker.check_model(model, full_check=True)
    logits, maps = in_onnxruntime(model)(images)
    assert np.abs(maps - expected(network, opened, images)).max() < LIMIT
    np.testing.assert_array_equal(logits, in_onnxruntime(with_heatmap(network, opened))(images)[0])


def test_the_heatmap_graph_is_standard(opened: Bundle, network: onnx.ModelProto) -> None:
    before = network.SerializeToString()
    model = onnx.load_from_string(check_graph(with_heatmap(network, opened), outputs(opened)))
    assert network.SerializeToString() == before, "the network itself is left as it was"
    added = list(model.graph.node)[len(network.graph.node) :]
    assert [node.op_type for node in added] == ["Mul", "Resize"] * 4 + ["Sum"]
    shape = [d.dim_param or d.dim_value for d in model.graph.output[-1].type.tensor_type.shape.dim]
    assert shape == ["batch", 8, 64, 64]


def test_the_node_carries_what_a_plugin_needs(opened: Bundle, network: onnx.ModelProto) -> None:
    model = with_camfuse(network, opened)
    node = model.graph.node[-1]
    assert (node.op_type, node.domain) == (CAMFUSE, "msloc")
    assert list(node.input) == ["cams_1", "cams_2", "cams_3", "cams_4", "relevance"]
    assert list(node.output) == [HEATMAP]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes == {"height": 64, "width": 64, "plugin_namespace": b"msloc", "plugin_version": b"1"}
    relevance = next(value for value in model.graph.initializer if value.name == "relevance")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(relevance), opened.relevance)
    with pytest.raises(BackendError, match="CamFuse") as caught:
        in_onnxruntime(model)
    assert caught.value.reason == "backend_failed"


def test_a_single_stage(
    make_state: Callable[..., dict[str, Any]], images: np.ndarray, phantom_films: list, tmp_path: Path
) -> None:
    state = make_state(stages="last")
    bundle = export_bundle(state, tmp_path / "bundle", phantom_films[:1], name="last")[0]
    network = onnx.load(bundle.onnx)
    for model in (with_heatmap(network, bundle), with_camfuse(network, bundle, defined=True)):
        assert np.abs(in_onnxruntime(model)(images)[1] - expected(network, bundle, images)).max() < LIMIT
