"""The reckoning of docs/gpu.md: bounds by hand, work from a real graph, and what was measured beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import ModuleType

import pytest

from msloc_edge.backends.base import STEPS
from msloc_edge.bundle import Bundle

pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture
def predict(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")  # as where it runs: machine.py is there
    return script("benchmarks/predict.py")


def test_a_step_is_bound_by_what_takes_longest(predict: ModuleType) -> None:
    """2 multiprocessors of 1 GHz issue 256e9 instructions a second; memory 100 GB/s, link 10 GB/s."""
    card = predict.Device("card", 90, 2, 1.0, 100, 10, "")
    board = predict.Device("board", 87, 2, 1.0, 100, None, "")
    assert predict.Work(link_bytes=10e6).on(card) == {"bound_ms": 1.0, "gaps_ms": 0}
    assert predict.Work(link_bytes=10e6).on(board) == {"bound_ms": 0.2, "gaps_ms": 0}, "read and written in its memory"
    assert predict.Work(memory_bytes=50e6, instructions=64e6, kernels=3).on(card) == {"bound_ms": 0.5, "gaps_ms": 0.006}
    assert predict.Work(memory_bytes=50e6, instructions=256e6).on(card)["bound_ms"] == 1.0
    assert predict.Work(operations=1024e6).on(card)["bound_ms"] == 2.0, "a multiply-add is two"


def test_the_work_of_a_film(predict: ModuleType, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    names = [name for forms in predict.FORMS.values() for name in forms]
    found = predict.steps(bundle, dict.fromkeys(names, 2.0))
    assert set(found) == set(STEPS)
    stored, image, classes = prod(predict.FILM), 64 * 64, len(bundle.classes)
    assert found["copy_in"].link_bytes == stored + 4 * 256
    assert found["window"].instructions == 2 * stored
    assert found["locate"].instructions == 2 * (3 * classes * image + 64 * classes)
    assert found["network"].kernels > 10
    assert found["network"].operations > 1e6
    assert found["network"].memory_bytes > 4 * image


def test_a_convolution_by_hand(predict: ModuleType, tmp_path: Path) -> None:
    """8 x 8 pixels, 3 x 3 to 4 channels, then a ReLU that is no pass of its own."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    shape = ("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["sum"], ["out"]),
    ]
    weights = numpy_helper.from_array(np.zeros((4, 1, 3, 3), np.float32), "weights")
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 4, 8, 8])
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(*shape)], [out], [weights])
    save(helper.make_model(graph), tmp_path / "model.onnx")
    bundle = type("Bundle", (), {"onnx": tmp_path / "model.onnx"})
    operations, numbers, layers = predict.network(bundle)
    assert operations == 2 * 8 * 8 * 4 * 9
    assert numbers == 4 * 9 + 8 * 8 + 4 * 8 * 8
    assert layers == 1


def test_what_is_published_is_what_was_reckoned(predict: ModuleType) -> None:
    """docs/gpu.md has the bounds of predicted.json."""
    root = Path(__file__).parents[2]
    result = json.loads((root / "benchmarks/results/predicted.json").read_text())
    page = (root / "docs/gpu.md").read_text()
    for step in STEPS:
        cells = next(line for line in page.splitlines() if line.startswith(f"| `{step}` | 0.")).split("|")[2:5]
        bounds = [f"{row['steps'][step]['bound_ms']:.3f}" for row in result["devices"]]
        assert [cell.split()[0] for cell in cells] == bounds


def test_measured_beside_predicted(predict: ModuleType) -> None:
    root = Path(__file__).parents[2]
    result = json.loads((root / "benchmarks/results/predicted.json").read_text())
    row = {"scenario": "single-stream", "scope": "device", "samples_ms": [1.0, 3.0, 2.0]}
    row["stages_ms"] = {"window": {"p50": {"value": 0.4321}}}
    bench = {"measurements": [row], "environment": {"gpus": [{"name": "NVIDIA H200"}]}, "films": {"what": "8 films"}}
    first, *lines = predict.beside(bench, result).splitlines()
    assert first.startswith("measured on NVIDIA H200, 8 films")
    assert [line.split()[0] for line in lines] == [*STEPS, "whole"]
    assert lines[1].split()[1] == "0.432"
    assert "not told" in lines[0]
    assert lines[-1].split()[1] == "2.000"
