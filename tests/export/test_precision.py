"""FP16 and INT8 as the graph has them, and how far they may go."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from msloc_edge.bundle import Bundle
from msloc_edge.errors import ExportError
from msloc_edge.export.graphs import with_heatmap
from msloc_edge.export.precision import convert as conversion
from msloc_edge.export.precision.convert import Films, after_the_maps, convert, groups, layers
from msloc_edge.export.precision.fp16 import to_fp16, with_rounding
from msloc_edge.export.precision.gate import ClassFigures, GateFilms
from msloc_edge.export.precision.int8 import calibrate, to_int8
from msloc_edge.export.runtimes import in_onnxruntime


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_fp16_is_in_the_tensors(opened: Bundle, network: onnx.ModelProto) -> None:
    head = after_the_maps(network, opened)
    model = to_fp16(network, head)
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert {types[name] for name in node.output} == {TensorProto.FLOAT16}
        if node.name in head:
            assert {types[name] for name in node.output} == {TensorProto.FLOAT}
    assert types["image"] == types["logits"] == types["cams_1"] == TensorProto.FLOAT
    assert len(model.SerializeToString()) < 0.55 * len(network.SerializeToString())


def test_the_head_is_not_with_rounding(opened: Bundle, network: onnx.ModelProto) -> None:
    """One cast for the image and at most two for each class map: none between the nodes of the head."""
    model = to_fp16(network, after_the_maps(network, opened))
    assert len([node for node in model.graph.node if node.op_type == "Cast"]) <= 1 + 2 * 4


def test_rounding_shows_the_true_error_of_fp16(opened: Bundle, network: onnx.ModelProto, images: np.ndarray) -> None:
    """onnx's reference computes in 16 bits; onnxruntime on a CPU does not, until it is made to round."""
    half = to_fp16(network, after_the_maps(network, opened))
    exact = in_onnxruntime(with_heatmap(network, opened))(images[:1])[1]
    true = ReferenceEvaluator(with_heatmap(half, opened)).run(["heatmap"], {"image": images[:1]})[0]
    shown = in_onnxruntime(with_rounding(with_heatmap(half, opened)))(images[:1])[1]
    error, emulated = np.abs(true - exact).mean(), np.abs(shown - exact).mean()
    assert error > 0
    assert 0.5 < emulated / error < 2


def test_a_layer_stays_in_fp32(opened: Bundle, network: onnx.ModelProto) -> None:
    first = next(node for node in network.graph.node if node.op_type == "Conv")
    model = to_fp16(network, {first.name, *after_the_maps(network, opened)})
    onnx.checker.check_model(model, full_check=True)
    kept = next(node for node in model.graph.node if node.name == first.name)
    assert types_of(model)[kept.output[0]] == TensorProto.FLOAT


def test_int8_is_per_channel_and_symmetric(network: onnx.ModelProto, small_films: Films) -> None:
    ranges = calibrate(network, small_films.calibration)
    names = layers(network)
    kept = {node for node, layer in names.items() if layer.startswith("head.")}
    model = to_int8(network, ranges, kept)
    onnx.checker.check_model(model, full_check=True)
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        quantized = [makers[name].op_type if name in makers else None for name in node.input[:2]]
        if node.name in kept:
            assert "DequantizeLinear" not in quantized
            continue
        assert quantized == ["DequantizeLinear"] * 2
        weight, scale, zero = (values[name] for name in makers[node.input[1]].input)
        assert weight.dtype == np.int8
        assert scale.shape == (len(weight),)
        assert not zero.any()
        assert not values[makers[node.input[0]].input[2]].any()
    assert len(model.SerializeToString()) < 0.5 * len(network.SerializeToString())


def test_ranges_are_those_of_the_films(network: onnx.ModelProto, small_films: Films) -> None:
    """A film of half the contrast gives a first convolution of half the range."""
    name = next(node.input[0] for node in network.graph.node if node.op_type == "Conv")

    def greatest(films: list[np.ndarray]) -> float:
        return float(max(np.abs(calibrate(network, films)[name].range_value)))

    film = small_films.calibration[0]
    bright, faint = greatest([film]), greatest([0.449 + (film - 0.449) / 2])
    assert bright == pytest.approx(np.abs((film - 0.449) / 0.226).max(), rel=0.01)
    assert faint == pytest.approx(bright / 2, rel=0.01)


def test_groups_begin_with_the_head(network: onnx.ModelProto) -> None:
    found = groups(network)
    assert next(iter(found)) == "head and neck"
    assert list(found)[1] == "backbone.conv1"
    assert sorted(layer for group in found.values() for layer in group) == sorted(layers(network).values())


def test_fp16_passes_the_gate(opened: Bundle, small_films: Films) -> None:
    done = convert(opened, "fp16", small_films)
    assert done.kept == ()
    assert all(row.passes for row in done.figures)
    assert [row.label for row in done.figures] == list(opened.classes)
    assert 0 < max(row.map for row in done.figures) < 0.1


def test_patterns_choose_layers(opened: Bundle, small_films: Films) -> None:
    done = convert(opened, "fp16", small_films, ["head.*", "backbone.conv1"])
    assert done.kept[0] == "backbone.conv1"
    assert {layer.split(".")[0] for layer in done.kept} == {"backbone", "head"}
    with pytest.raises(ExportError, match="'tail': expected a pattern of layers such as") as caught:
        convert(opened, "fp16", small_films, ["head.*", "tail"])
    assert caught.value.reason == "option_invalid"


def worse(row: ClassFigures) -> ClassFigures:
    return ClassFigures(row.label, row.auroc_drop, 0.5, 0.2, row.boxes, 0.1, row.logit, row.map)


def test_int8_keeps_groups_until_it_passes(opened: Bundle, small_films: Films, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first two trials judged bad, the third has the head, the neck and the first convolution in fp32."""
    judged, measure = [], conversion.measure

    def strict(*arguments: object) -> list[ClassFigures]:
        judged.append(measure(*arguments))
        bad = len(judged) < 3
        return [worse(row) if bad else ClassFigures(row.label, 0, 1, 0, 1, 1, 0, 0) for row in judged[-1]]

    monkeypatch.setattr(conversion, "measure", strict)
    done = convert(opened, "int8", small_films)
    found = list(groups(onnx.load(opened.onnx)).values())
    assert list(done.kept) == [*found[0], *found[1]]
    assert [len(trial["failed"]) for trial in done.trials] == [8, 8, 0]
    quantized = {node.name for node in done.network.graph.node if node.op_type == "DequantizeLinear"}
    assert quantized


def test_int8_that_never_passes_is_refused(opened: Bundle, small_films: Films) -> None:
    """Calibrated on almost black films: the ranges of real ones are cut off."""
    black = [np.full((64, 64), 0.449, np.float32) + 1e-3 * film for film in small_films.calibration[:2]]
    films = Films(black, "black", GateFilms(small_films.gate.films[:4], small_films.gate.labels[:4], "4 phantoms"))
    with pytest.raises(ExportError) as caught:
        convert(opened, "int8", films)
    assert caught.value.reason == "parity"
    count = len(groups(onnx.load(opened.onnx)))
    assert f"all {count} trials fail, also with only backbone.layer4 in 8 bits" in str(caught.value)
    assert "box IoU" in str(caught.value)
    assert "--keep-fp32 PATTERN (groups: head and neck, backbone.conv1" in str(caught.value)
