"""The torch backend on ONNX graphs of anybody: the standard's own test cases, and a shipped bundle without weights."""

from __future__ import annotations

import importlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as standard

from msloc_edge.backends import load_backend
from msloc_edge.backends.torch.graph import OPERATORS, OnnxNetwork
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError

MODULES = {"BatchNormalization": "batch_normalization"}
"""Modules of the standard's cases that are not named like their operators."""

LEFT_OUT = (
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_averagepool_2d_dilations",  # of opset 19
    "test_reduce_max_empty_set",
)

CHOSEN = {
    "Resize": ("test_resize_upsample_scales_linear", "test_resize_upsample_sizes_nearest"),
    "Dropout": ("test_dropout_default",),
    "BatchNormalization": ("test_batchnorm_example", "test_batchnorm_epsilon"),
}
"""Operators of which only some cases are of convolutional networks: not cubic, not in training, no unusual types."""


def cases() -> list[object]:
    """The standard's cases of one node of each operator, over two axes where they pool or convolve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about the overflows that some cases are for
        for op in OPERATORS:
            importlib.import_module(f"{standard.__name__}.{MODULES.get(op, op.lower())}")
    return [
        pytest.param(case, id=case.name)
        for case in standard._NodeTestCases
        if (op := case.model.graph.node[0].op_type) in OPERATORS
        and len(case.model.graph.node) == 1
        and case.name not in LEFT_OUT
        and case.name in CHOSEN.get(op, (case.name,))
        and _is_ours(case)
    ]


def _is_ours(case: object) -> bool:
    inputs, outputs = case.data_sets[0]  # type: ignore[attr-defined]
    node = case.model.graph.node[0]  # type: ignore[attr-defined]
    told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    arrays = [value for value in (*inputs, *outputs) if isinstance(value, np.ndarray)]
    kinds = {value.dtype.kind for value in arrays}
    spatial = node.op_type in ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    return (
        len(arrays) == len(inputs) + len(outputs)
        and kinds <= {"f", "i"}
        and all(value.dtype.itemsize > 2 for value in arrays)
        and (not spatial or arrays[0].ndim == 4)
        and (len(node.output) == 1 or node.op_type in ("LayerNormalization", "Split"))
        and told.get("mode", b"") not in (b"wrap",)
        and told.get("storage_order", 0) == 0
        and told.get("keepdims", 1) in (0, 1)
    )


@pytest.mark.parametrize("case", cases())
def test_the_standards_cases(case: object) -> None:
    inputs, outputs = case.data_sets[0]  # type: ignore[attr-defined]
    node = case.model.graph.node[0]  # type: ignore[attr-defined]
    told = {a.name: helper.get_attribute_value(a) for a in node.attribute} | {"outputs": len(node.output)}
    told = {key: value.decode() if isinstance(value, bytes) else value for key, value in told.items()}
    told = {k: numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for k, v in told.items()}
    given = iter(inputs)
    tensors = [torch.from_numpy(np.array(next(given))) if name else None for name in node.input]
    found = OPERATORS[node.op_type](told, *tensors)
    for expected, value in zip(outputs, found if isinstance(found, tuple) else (found,), strict=len(node.output) == 1):
        assert tuple(value.shape) == expected.shape
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    shown = {case.values[0].model.graph.node[0].op_type for case in cases()}  # type: ignore[attr-defined]
    assert set(OPERATORS) - shown == {"Cast"}  # whose cases are of types that numpy has not


def test_a_bundle_without_weights_runs_its_graph(
    tiny_bundle: Path, tmp_path: Path, bundle_without_weights: Path
) -> None:
    films = np.random.default_rng(0).random((3, 1, 64, 64), np.float32)
    weights, graph = (
        load_backend("torch", Bundle.open(path)).run(films) for path in (tiny_bundle, bundle_without_weights)
    )
    np.testing.assert_allclose(graph.logits, weights.logits, atol=1e-4)
    for ours, theirs in zip(graph.cams, weights.cams, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_another_precision_is_refused(bundle_without_weights: Path) -> None:
    with pytest.raises(BackendError, match="expected fp32 for the graph of tiny, got bf16"):
        load_backend("torch", Bundle.open(bundle_without_weights), precision="bf16")


def test_an_operator_that_is_not_known() -> None:
    node = helper.make_node("Einsum", ["image"], ["logits"], equation="bchw->bc")
    value = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["b", 1, 8, 8])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("logits", 1, ["b", 1])])
    with pytest.raises(BackendError, match=r"operators that this backend knows, got Einsum; use another backend"):
        OnnxNetwork(helper.make_model(graph))


@pytest.fixture
def bundle_without_weights(bundle_with: object, tiny_bundle: Path, tmp_path: Path) -> Path:
    import json

    folder = shutil.copytree(tiny_bundle, tmp_path / "graph")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["weights.safetensors"]
    (folder / "weights.safetensors").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
