"""msloc-edge export as a user runs it: targets, precisions, and the check of all that a bundle can become."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.cli import export
from msloc_edge.export import parity
from msloc_edge.export.precision import gate
from msloc_edge.train.phantom import FINDINGS


def test_onnx(msloc: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = msloc("export", "target", tiny_bundle, out, "--target", "onnx")
    assert done.code == 0
    (report,) = done.lines
    assert report == json.loads((out / "export.json").read_text())
    assert (report["schema"], report["target"], report["precision"]) == ("msloc-edge/export/1", "onnx", "fp32")
    assert set(report["files"]) == {"model.onnx", "model.camfuse.onnx"}
    for name, digest in report["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert list(out.parent.iterdir()) == [out]
    assert msloc("export", "target", tiny_bundle, out, "--target", "triton-server").code == 0, (
        "an earlier export is replaced"
    )
    assert {path.name for path in out.iterdir()} == {"export.json", "tiny", "client.py"}


def test_other_files_are_left_alone(msloc: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    done = msloc("export", "target", tiny_bundle, tmp_path, "--target", "onnx")
    assert (done.code, done.reasons) == (1, ["out_occupied"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_tensorrt_says_what_is_missing(msloc: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    done = msloc("export", "target", tiny_bundle, tmp_path / "out", "--target", "tensorrt")
    assert (done.code, done.reasons) == (1, ["backend_missing"])
    assert all(word in done.err for word in ("tensorrt: ", "JetPack 6: ", "JetPack 7: ", "x86: pip install"))
    assert not (tmp_path / "out").exists()


def test_tensorrt_rtx(msloc: Callable, tiny_bundle: Path, tmp_path: Path) -> None:
    """Built for real, without a GPU; the engine cache has it then, too."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    out = tmp_path / "out"
    sizes = ("--batch", "1:2:4", "--workspace", "256")
    done = msloc("export", "target", tiny_bundle, out, "--target", "tensorrt-rtx", "--graph", "heatmap", *sizes)
    assert done.code == 0, done.err
    (report,) = done.lines
    assert set(report["files"]) == {"model.engine", "model.engine.json", "build.log", "model.onnx"}
    assert report["plugin"]["route"] == "plain"
    assert "heatmap: plain (TensorRT-RTX has no plugins)" in done.err
    sidecar = json.loads((out / "model.engine.json").read_text())
    assert sidecar["sha256"] == report["files"]["model.engine"]
    key = Key.from_dict(sidecar["key"])
    assert (key.version, key.sm, key.graph, key.batch) == (rtx.__version__, 0, "heatmap", Batch(1, 2, 4))
    kept = Cache().find(key)
    assert kept is not None
    assert kept.data == (out / "model.engine").read_bytes()


@pytest.mark.parametrize(("least", "passes"), [(0.0, True), (1.1, False)])
def test_a_precision_comes_with_its_gate(
    msloc: Callable,
    tiny_bundle: Path,
    films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    least: float,
    passes: bool,
) -> None:
    """Seeded weights find boxes by chance: here the limits are such that all pass, or none."""
    monkeypatch.setattr(export, "GATE_FILMS", 4)
    monkeypatch.setattr(gate, "IOU_LIMIT", least)
    monkeypatch.setattr(gate, "SHIFT_LIMIT", 1)
    monkeypatch.setattr(gate, "AUROC_LIMIT", 1)
    out = tmp_path / "out"
    done = msloc(
        "export", "target", tiny_bundle, out, "--target", "onnx", "--precision", "int8", "--calibration", films
    )
    if passes:
        assert done.code == 0
        assert done.lines[0]["calibration"] == f"3 of {films}"
        assert [row["label"] for row in done.lines[0]["gate"]["classes"]] == list(FINDINGS)
        assert "box IoU" in done.err
    else:
        assert (done.code, done.reasons, done.lines) == (1, ["parity"], [])
        assert not out.exists()


def test_check_fails_with_what_differs(msloc: Callable, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHECK_FILMS", 4)
    monkeypatch.setattr(parity, "PLAN_PRECISIONS", ("fp32",))  # seeded weights need not pass the gate
    done = msloc("export", "check", tiny_bundle)
    assert done.code == 0
    assert [(line["what"], line["engine"]) for line in done.lines] == [
        *(("bundle", "onnxruntime"), ("bundle", "openvino"), ("heatmap graph", "onnxruntime")),
        *(("heatmap graph", "openvino"), ("CamFuse graph", "onnxruntime")),
    ]
    assert {line["state"] for line in done.lines} == {"passed"}
    monkeypatch.setattr(parity, "MAP_LIMIT", 0)
    done = msloc("export", "check", tiny_bundle)
    assert (done.code, {line["state"] for line in done.lines}) == (1, {"failed"})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bundle", "b"], "Missing argument 'OUT'"),
        (["bundle", "b", "out", "--boxes", "x"], "--boxes belongs to --fit-boxes"),
        (["bundle", "b", "out", "--precision", "fp16"], "No such option"),
        (["check", "b", "out"], "Got unexpected extra argument"),
        (["target", "b", "out"], "Missing option '--target'"),
        (["target", "b", "out", "--target", "onnx", "--calibration", "x"], "belong to --precision fp16 or int8"),
        (["target", "b", "out", "--target", "onnx", "--keep-fp32", "x"], "belong to --precision fp16 or int8"),
        (["target", "b", "out", "--target", "onnx", "--precision", "bf16"], "'bf16' is not one of"),
        (["target", "b", "out", "--target", "onnx", "--name", "x"], "No such option"),
        (["target", "b", "out", "--target", "onnx", "--batch", "4"], "expected MIN:OPT:MAX"),
        (["target", "b", "out", "--target", "onnx", "--batch", "1:9:8"], "1 <= MIN <= OPT <= MAX"),
        (["target", "b", "out", "--target", "onnx", "--workspace", "64"], "--workspace: not of --target onnx"),
        (["target", "b", "out", "--target", "tensorrt", "--workspace", "0"], "0 is not in the range x>=1"),
        (
            ["target", "b", "out", "--target", "tensorrt-rtx", "--plugin", "aot", "--version-compatible"],
            "--plugin, --version-compatible: not of --target tensorrt-rtx",
        ),
    ],
)
def test_wrong_usage(msloc: Callable, arguments: list[str], says: str) -> None:
    done = msloc("export", *arguments)
    assert done.code == 2
    assert says in done.err


def test_batches() -> None:
    assert Batch.parse("1:4:8") == Batch(1, 4, 8)
