"""msloc-edge calibrate, as a user runs it: other films, other thresholds, the same network."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msloc_edge.bundle import Bundle
from msloc_edge.train.calibration.calibrate import GATED
from msloc_edge.train.calibration.thresholds import PROFILES
from msloc_edge.train.phantom import FINDINGS, generate, write_png

Run = Callable[..., Any]

SHOWN = FINDINGS[:3]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of 30 small phantoms of 15 patients, a third of them normal, and of three findings alone."""
    folder = tmp_path_factory.mktemp("mine")
    rows = []
    for seed in range(30):
        finding = None if seed % 3 == 0 else SHOWN[seed // 3 % len(SHOWN)]
        write_png(generate(seed, 64, (finding,) if finding else ()), folder / f"{seed}.png")
        rows.append([f"{seed}.png", f"patient {seed // 2}", "PA", *(int(label == finding) for label in SHOWN)])
    with (folder / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "patient", "view", *SHOWN), *rows])
    return folder / "films.csv"


@pytest.fixture(scope="module")
def calibrated(tiny_bundle: Path, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle as it was, and the folder that its calibration went to."""
    folder = tmp_path_factory.mktemp("calibrated")
    return shutil.copytree(tiny_bundle, folder / "before"), folder / "after"


@pytest.fixture(scope="module")
def contents(calibrated: tuple[Path, Path]) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in calibrated[0].iterdir()}


def test_a_bundle_is_calibrated(
    msloc: Run, calibrated: tuple[Path, Path], contents: dict[str, bytes], mine: Path
) -> None:
    before, after = calibrated
    ran = msloc("calibrate", before, "--data", f"csv:{mine}", "--out", after)
    assert ran.code == 0
    assert {file.name: file.read_bytes() for file in before.iterdir()} == contents  # it is never touched
    old, new = Bundle.open(before), Bundle.open(after)
    assert (new.name, new.version) == (old.name, f"{old.version}.1")
    for name in ("model.onnx", "weights.safetensors"):
        assert (after / name).read_bytes() == contents[name]
    assert list(new.profiles) == [*GATED, *PROFILES]
    assert new.default_profile == "normal-90"
    assert new.profile().film is not None
    assert new.profile().map == old.profile().map
    rates = new.profile().rates
    assert (rates["films"], rates["normals"], rates["patients"]) == (30, 10, 15)
    assert set(rates["normals_flagged_by"]["view"]) == {"PA"}
    line = ran.lines[0]
    assert line["profiles"]["normal-90"]["rates"] == rates
    for words in ("Operating points", "normal-90", "Findings at normal-90", f"{FINDINGS[5]}: no film with it"):
        assert words in ran.err


def test_a_class_that_the_films_do_not_show_keeps_its_thresholds(calibrated: tuple[Path, Path]) -> None:
    old, new = map(Bundle.open, calibrated)
    logits = [[z * b.temperature for z in map(_logit, b.profiles["youden"].score[len(SHOWN) :])] for b in (old, new)]
    assert logits[0] == pytest.approx(logits[1], abs=1e-6)  # by the logit: the temperature is another
    assert new.manifest["calibration"]["guessed"] == list(FINDINGS[len(SHOWN) :])


def test_the_new_bundle_runs_and_its_golden_result_is_its_own(
    msloc: Run, calibrated: tuple[Path, Path], mine: Path
) -> None:
    ran = msloc("selftest", "--model", calibrated[1], "--backend", "torch")
    assert (ran.code, ran.lines[0]["state"]) == (0, "passed")
    assert 0 <= json.loads((calibrated[1] / "manifest.json").read_text())["golden"]["abnormal"] <= 1
    ran = msloc("infer", mine.parent, "--model", calibrated[1])
    flagged = [any(finding["positive"] for finding in line["findings"]) for line in ran.lines]
    passing = [line["abnormal"]["score"] >= line["abnormal"]["threshold"] for line in ran.lines]
    assert all(passes for passes, flag in zip(passing, flagged, strict=True) if flag)


def test_its_card_and_show_tell_the_rates(msloc: Run, calibrated: tuple[Path, Path]) -> None:
    card = (calibrated[1] / "model_card.md").read_text()
    assert "## Operating points" in card
    assert "| normal-90 |" in card
    assert "30 films of 15 patients, 10 normal" in card
    ran = msloc("models", "show", calibrated[1])
    assert ran.code == 0
    assert "normal films" in ran.err.replace("\n", " ")
    assert ran.lines[0]["profiles"]["normal-90"]["rates"]["films"] == 30


def test_films_to_leave_out_and_a_version(msloc: Run, tiny_bundle: Path, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("0.png\n1.png\n")
    options = ("--exclude", tmp_path / "out.txt", "--version", "7", "-q", "--out", tmp_path / "b")
    ran = msloc("calibrate", tiny_bundle, "--data", f"csv:{mine}", *options)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0]["model"]["version"] == "7"
    assert Bundle.open(tmp_path / "b").profile().rates["films"] == 28


def test_a_run_that_was_never_calibrated_is_rescued(
    msloc: Run, tiny_state: dict[str, Any], mine: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    keys = ("schema", "config", "epoch", "best", "model")
    torch.save({key: tiny_state[key] for key in keys}, run / "best.pt")
    ran = msloc("calibrate", run, "--data", f"csv:{mine}", "--split", "all", "--out", tmp_path / "b", "-q")
    assert ran.code == 0
    rescued = Bundle.open(tmp_path / "b")
    assert rescued.default_profile == "normal-90"
    assert set(rescued.manifest["calibration"]["maps"].values()) == {
        "half of the height of the maps of real positives",
        "half of the height of the maps of other findings' positives",
    }


@pytest.mark.parametrize("lines", [1, 4])
def test_films_that_tell_nothing_are_refused(
    msloc: Run, tiny_bundle: Path, mine: Path, tmp_path: Path, lines: int
) -> None:
    text = mine.read_text().splitlines(keepends=True)
    kept = [text[0], *(line for line in text[1:] if int(line.split(".")[0]) % 3 == 0)][: 1 + lines]
    shutil.copytree(mine.parent, tmp_path / "films")
    (tmp_path / "films" / "few.csv").write_text("".join(kept))
    ran = msloc("calibrate", tiny_bundle, "--data", f"csv:{tmp_path}/films/few.csv", "--out", tmp_path / "b")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["data_missing"])
    assert not (tmp_path / "b").exists()


def test_a_folder_with_other_files_is_not_replaced(msloc: Run, tiny_bundle: Path, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tiny_bundle):
        ran = msloc("calibrate", tiny_bundle, "--data", f"csv:{mine}", "--out", out)
        assert (ran.code, ran.lines, ran.reasons[-1:]) == (1, [], ["out_occupied"])
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_bundle_does_not_say_which_films_are_yours(msloc: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    ran = msloc("calibrate", tiny_bundle, "--out", tmp_path / "b")
    assert (ran.code, ran.lines) == (2, [])
    assert "--data" in ran.err


def _logit(score: float) -> float:
    return math.log(score / (1 - score))
