"""A film that the input gate refuses, on the command line: its line, its sentence, exit status, files, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msloc_edge.imaging.gate import default_gate
from msloc_edge.train.phantom import generate

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def gated(bundle_with: Callable[..., Path]) -> Path:
    return bundle_with(input_gate=default_gate().numbers)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film on its side, and the same film upright: 1-turned.png, 2-upright.png."""
    folder = tmp_path_factory.mktemp("pair")
    film = np.round(generate(3, (180, 150)).display() * 255).astype(np.uint8)
    cv2.imwrite(str(folder / "1-turned.png"), np.rot90(film))
    cv2.imwrite(str(folder / "2-upright.png"), film)
    return folder


def test_a_refused_film_has_its_line_and_fails_the_run(msloc: Run, gated: Path, pair: Path) -> None:
    ran = msloc("infer", pair, "--model", gated)
    assert ran.code == 1
    turned, upright = sorted(ran.lines, key=lambda line: str(line["input"]))
    assert (turned["refused"], turned["findings"], turned["abnormal"]) == ("rotated", [], None)
    assert (upright["refused"], upright["warnings"]) == (None, [])
    assert upright["findings"]
    sentence = next(line for line in ran.err.splitlines() if line.startswith("msloc-edge: [rotated]"))
    assert str(pair / "1-turned.png") in sentence
    assert "--no-input-gate" in sentence
    assert "refused: rotated" in ran.err
    assert "1 film localized, 1 refused" in ran.err


def test_files_and_report_say_so(msloc: Run, gated: Path, pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert msloc("infer", pair, "--model", gated, "--out", out).code == 1
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {Path(line["input"]).name: line["refused"] for line in lines} == {
        "1-turned.png": "rotated",
        "2-upright.png": None,
    }
    assert not (out / "failures.jsonl").exists()
    assert (out / "1-turned.overlay.png").is_file()
    assert '"refused":"rotated"' in (out / "report.html").read_text()


def test_fail_fast_stops_at_it(msloc: Run, gated: Path, pair: Path) -> None:
    ran = msloc("infer", pair / "1-turned.png", pair / "2-upright.png", "--model", gated, "--fail-fast")
    assert (ran.code, [line["refused"] for line in ran.lines]) == (1, ["rotated"])


def test_without_the_gate_all_films_are_localized(msloc: Run, gated: Path, pair: Path) -> None:
    ran = msloc("infer", pair, "--model", gated, "--no-input-gate")
    assert (ran.code, {line["refused"] for line in ran.lines}) == (0, {None})
    assert all(line["findings"] for line in ran.lines)
