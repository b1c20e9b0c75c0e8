"""msloc-edge models wrap and train --backbone, as a user runs them: a network of one's own, and a bundle at the end."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.bundle import Bundle
from msloc_edge.train.phantom import generate, write_png

Run = Callable[..., Any]

NETWORKS = Path(__file__).parents[1] / "export" / "networks.py"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in which the user's module lies."""
    shutil.copy(NETWORKS, tmp_path / "mynets.py")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mynets", None)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of 30 small phantoms with two findings."""
    folder = tmp_path_factory.mktemp("films")
    rows = [("image", "big heart", "water")]
    for seed in range(30):
        shown = (seed % 3 == 1, seed % 3 == 2)
        wanted = tuple(label for label, there in zip(("Cardiomegaly", "Effusion"), shown, strict=True) if there)
        write_png(generate(seed, 64, wanted), folder / f"{seed}.png")
        rows.append((f"{seed}.png", *map(int, shown)))  # type: ignore[arg-type]
    with (folder / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "films.csv"


def test_a_classifier_is_wrapped_and_runs_without_its_code(msloc: Run, here: Path, table: Path) -> None:
    options = ("--classes", "big heart, water", "--normalisation", "imagenet", "--size", 64)
    ran = msloc("models", "wrap", "mynets:densenet", "ward", *options, "--data", f"csv:{table}")
    assert ran.code == 0, ran.err
    (line,) = ran.lines
    assert (line["name"], line["classes"]) == ("ward", ["big heart", "water"])
    assert line["profiles"]["normal-90"]["rates"]["films"] == 30
    assert "engines agree over" in ran.err
    (here / "mynets.py").unlink()
    sys.modules.pop("mynets")
    found = {
        backend: msloc("infer", table.parent / "1.png", "--model", "ward", "--backend", backend, "--all-classes").lines
        for backend in ("onnxruntime", "openvino", "torch")
    }
    boxes = {backend: [f["boxes"] for f in lines[0]["findings"]] for backend, lines in found.items()}
    for other in ("openvino", "torch"):
        for ours, theirs in zip(boxes["onnxruntime"], boxes[other], strict=True):
            assert [box["x"] for box in theirs] == pytest.approx([box["x"] for box in ours], abs=0.5)
        ran = msloc("selftest", "--model", "ward", "--backend", other)
        assert (ran.code, ran.lines[0]["state"]) == (0, "passed")
    again = msloc("calibrate", "ward", "--data", f"csv:{table}", "--out", "later", "-q")
    assert (again.code, Bundle.open("later").version) == (0, "0.1.1")


def test_our_head_on_a_backbone_of_ones_own(msloc: Run, here: Path, table: Path) -> None:
    stages = [word for stage in (2, 3, 4) for word in ("--stages-at", f"layer{stage}")]
    (here / "recipe.toml").write_text('freeze = "backbone"\n\n[model]\nneck = "topdown"\n')
    options = ("--size", 64, "--epochs", 1, "--batch", 8, "--workers", 0, "--config", "recipe.toml")
    ran = msloc("train", "--data", f"csv:{table}", "--backbone", "mynets:resnet", *stages, *options, "--out", "run")
    assert ran.code == 0, ran.err
    bundle = Bundle.open("run/bundle")
    assert [stage.stride for stage in bundle.stages] == [8, 16, 32]
    assert json.loads((here / "run/config.json").read_text())["model"]["stages_at"] == ["layer2", "layer3", "layer4"]
    (here / "mynets.py").unlink()
    sys.modules.pop("mynets")
    assert msloc("infer", table.parent / "1.png", "--model", "run/bundle", "--backend", "torch").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("mynets:plain", "--normalisation", "none"), 2, "Missing option '--size'"),
        (("mynets:plain", "--normalisation", "0.5", "--size", 64), 2, "expected none, imagenet or MEAN/STD"),
        (
            ("mynets:two_linear_layers", "--normalisation", "none", "--size", 64),
            1,
            "[wrap_unsupported] expected global",
        ),
        (
            ("mynets:nobody", "--normalisation", "none", "--size", 64),
            1,
            "[option_invalid] mynets:nobody cannot be imported",
        ),
        (("none.onnx", "--normalisation", "none"), 1, "[wrap_unsupported] none.onnx: expected an ONNX file"),
        (("a.onnx", "--normalisation", "none", "--weights", "b"), 2, "--weights belongs to"),
        (("a.onnx", "--normalisation", "none", "--classes", "a,a"), 2, "no two alike, got 'a,a'"),
        (("a.onnx", "--normalisation", "none", "--classes", "a,"), 2, "expected a name for each output"),
    ],
)
def test_what_cannot_be_wrapped(
    msloc: Run, here: Path, table: Path, arguments: tuple[object, ...], code: int, words: str
) -> None:
    source, *options = arguments
    ran = msloc("models", "wrap", source, "out", "--classes", "a,b", "--data", f"csv:{table}", *options)
    assert (ran.code, ran.lines) == (code, [])
    assert words in " ".join(ran.err.split())
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--backbone", "mynets:resnet"), 2, "expected stages_at with a backbone of PACKAGE.MODULE:FACTORY"),
        (("--backbone", "vgg"), 2, "expected backbone to be one of edge"),
        (
            ("--backbone", "mynets:resnet", "--stages-at", "layer9"),
            1,
            "has no module 'layer9'; the outermost are conv1",
        ),
        (("--backbone", "mynets:resnet", "--stages-at", "fc"), 1, "expected stages_at to give maps"),
        (("--backbone", "mynets:resnet", "--stages-at", "layer4", "--stages-at", "layer1"), 1, "shallow to deep"),
    ],
)
def test_backbones_that_do_not_fit(msloc: Run, table: Path, options: tuple[object, ...], code: int, words: str) -> None:
    ran = msloc("train", "--data", f"csv:{table}", "--size", 64, "--epochs", 1, *options, "--out", "run")
    assert (ran.code, ran.lines) == (code, [])
    assert words in " ".join(ran.err.split())
