"""One's own findings from a csv alone, without a mask: train, calibrate, infer, eval, as a user takes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.bundle import Bundle
from msloc_edge.train.phantom import generate, write_png

Run = Callable[..., Any]

NAMES = {"big heart": "Cardiomegaly", "water": "Effusion"}
"""Made-up names of findings -> those of the phantoms that show them."""

FILMS = 56
QUICK = ("--size", 64, "--epochs", 2, "--batch", 8, "--workers", 0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of FILMS small phantoms with the findings NAMES; there is no split and no patient in it."""
    folder = tmp_path_factory.mktemp("own")
    rows = []
    for seed in range(FILMS):
        shown = [label for at, label in enumerate(NAMES) if seed % 4 in (at + 1, 3)]
        write_png(generate(seed, 64, tuple(NAMES[label] for label in shown)), folder / f"{seed}.png")
        rows.append([f"{seed}.png", *(int(label in shown) for label in NAMES)])
    return _write(folder / "films.csv", ["image", *NAMES], rows)


def test_a_csv_is_all_it_takes(msloc: Run, table: Path, tmp_path: Path) -> None:
    data, run = ("--data", f"csv:{table}"), tmp_path / "my run"
    assert msloc("train", *data, *QUICK, "--out", run).code == 0
    bundle = Bundle.open(run / "bundle")
    assert (bundle.name, bundle.classes) == ("my-run", tuple(NAMES))
    assert bundle.default_profile == "normal-90"
    assert set(bundle.manifest["calibration"]["maps"].values()) == {"half of the height of the maps of real positives"}
    rates = bundle.profile().rates
    assert rates["patients"] >= 12
    assert rates["label_recall"]["high"] - rates["label_recall"]["low"] > 0.2  # few films: a wide interval, no error

    assert msloc("calibrate", run, *data, "--split", "all", "--out", tmp_path / "wider", "-q").code == 0
    assert Bundle.open(tmp_path / "wider").profile().rates["films"] == FILMS

    pictures = [table.parent / f"{seed}.png" for seed in range(3)]
    ran = msloc("infer", *pictures, "--model", run / "bundle")
    assert (ran.code, [[finding["label"] for finding in line["findings"]] for line in ran.lines]) == (
        0,
        [list(NAMES)] * 3,
    )

    assert (
        msloc("eval", "--model", run / "bundle", *data, "--out", tmp_path / "eval", "-q", "--resamples", 20).code == 0
    )
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["run"]["films"] == FILMS


def test_a_hundred_findings(msloc: Run, table: Path, tmp_path: Path) -> None:
    with table.open(newline="") as file:
        rows = [[table.parent / row["image"], row["water"]] for row in csv.DictReader(file)]
    columns = [f"finding {k}" for k in range(100)]
    shown = [
        [image, *(int(water) if k == 0 else (n + k) % 9 // 8 for k in range(100))]
        for n, (image, water) in enumerate(rows)
    ]
    films = _write(tmp_path / "films.csv", ["image", *columns], shown)
    ran = msloc("train", "--data", f"csv:{films}", *QUICK, "--epochs", 1, "--name", "many", "--out", tmp_path / "run")
    assert ran.code == 0
    bundle = Bundle.open(tmp_path / "run" / "bundle")
    assert (bundle.name, bundle.classes) == ("many", tuple(columns))
    (line,) = msloc("infer", rows[0][0], "--model", bundle.path).lines
    assert [finding["label"] for finding in line["findings"]] == columns


def test_what_calibration_needs_is_told_before_the_first_epoch(msloc: Run, table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    normal = [lines[0], *(line for line in lines[1:] if line.endswith(",0,0"))]
    (table.parent / "normal.csv").write_text("\n".join(normal))
    ran = msloc("train", "--data", f"csv:{table.parent / 'normal.csv'}", *QUICK, "--out", tmp_path / "run")
    assert (ran.code, ran.reasons) == (1, ["data_missing"])
    assert "none with a finding" in ran.err
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_name_that_no_model_can_have(msloc: Run, table: Path, tmp_path: Path) -> None:
    ran = msloc("train", "--data", f"csv:{table}", "--name", "a/b", "--out", tmp_path / "run")
    assert (ran.code, ran.lines) == (2, [])
    assert "expected name to be letters" in ran.err


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
