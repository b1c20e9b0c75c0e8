"""The fit of the input gate: its pictures, its thresholds, and all of it at once on a few phantoms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msloc_edge.imaging.gate import REASONS, SIDE, read_gate
from msloc_edge.train.gate import __main__ as command
from msloc_edge.train.gate import drawn
from msloc_edge.train.gate.fit import thresholds
from msloc_edge.train.gate.pictures import KINDS, SHARES, Pictures, cut, read_foreign, vary
from msloc_edge.train.phantom import generate, write_png


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures that are no chest film, among them one of a single colour."""
    folder, rng = tmp_path_factory.mktemp("foreign"), np.random.default_rng(2)
    for kind, draw in (("not_chest", drawn.bones), ("not_xray", drawn.page)):
        (folder / kind).mkdir()
        for at in range(3):
            cv2.imwrite(str(folder / kind / f"{at}.png"), np.round(255 * draw(rng)).astype(np.uint8))
    cv2.imwrite(str(folder / "not_xray" / "grey.png"), np.full((64, 64), 128, np.uint8))
    return folder


@pytest.mark.parametrize("draw", [drawn.bones, drawn.page, drawn.plot, drawn.texture])
def test_drawings_are_pictures_each_another(draw: object, rng: np.random.Generator) -> None:
    made = [draw(rng) for _ in range(12)]  # type: ignore[operator]
    assert all(picture.shape == (drawn.SIDE, drawn.SIDE) for picture in made)
    assert all(picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.01 for picture in made)
    assert len({picture.tobytes() for picture in made}) == 12


def test_a_cut_film_is_a_part_of_it(rng: np.random.Generator) -> None:
    columns = np.tile(np.linspace(0, 1, 128, dtype=np.float32), (128, 1))  # brightness tells the column
    rows = np.ascontiguousarray(columns.T)
    for seed in range(20):
        spans = [np.ptp(cut(film, np.random.default_rng(seed))) for film in (columns, rows)]
        assert min(spans) < 0.67, "a third is gone, of one axis at least"
        assert min(spans) > 0.1


def test_a_varied_film_is_still_upright_and_in_its_polarity(rng: np.random.Generator) -> None:
    film = np.zeros((128, 128), np.float32)
    film[:40] = 0.2
    film[90:, 30:98] = 1  # bright below
    for _ in range(20):
        varied = vary(film, rng)
        assert (varied.min() >= 0, varied.max() <= 1) == (True, True)
        assert varied[80:, 40:88].mean() > varied[:48, 40:88].mean()


def test_an_epoch_has_all_kinds_in_their_shares(foreign: Path, rng: np.random.Generator) -> None:
    films = [np.round(255 * generate(seed, 128).display()).astype(np.uint8) for seed in range(3)]
    made, kinds = Pictures(films, read_foreign(foreign), drawings=3, seed=0).epoch(600, rng)
    assert (made.shape, made.dtype) == ((600, 1, SIDE, SIDE), np.float32)
    assert np.abs(made.mean(axis=(1, 2, 3))).max() < 1e-3
    shares = np.bincount(kinds, minlength=len(KINDS)) / 600
    assert shares == pytest.approx([SHARES[kind] for kind in KINDS], abs=0.06)
    assert sum(SHARES.values()) == pytest.approx(1)


def test_foreign_pictures_that_never_reach_the_gate_are_left_out(foreign: Path) -> None:
    assert {kind: len(found) for kind, found in read_foreign(foreign).items()} == {"not_chest": 3, "not_xray": 3}


def test_one_film_in_five_thousand_may_be_named_for_each_reason() -> None:
    chances = np.full((5000, 6), 0.01, np.float32)
    chances[:, 0] = 0.95
    chances[0] = [0.02, 0.9, 0.02, 0.02, 0.02, 0.02]  # allowed
    chances[1] = [0.08, 0.8, 0.03, 0.03, 0.03, 0.03]
    assert thresholds(chances) == [0.04, 0.2, 0.2, 0.2, 0.2]
    assert len(thresholds(chances)) == len(REASONS)


def test_a_fit_from_the_command_line(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "cache"))
    rows = ["image,patient,Mass"]
    for seed in range(12):
        write_png(generate(seed, 96), tmp_path / f"{seed}.png")
        rows.append(f"{seed}.png,{seed},0")
    (tmp_path / "films.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "gate.json"
    few = ["--phantoms", "2", "--drawings", "3", "--epochs", "2", "--count", "256"]
    command.main(["--data", f"csv:{tmp_path / 'films.csv'}", "--foreign", str(foreign), "--out", str(out), *few])
    told = capsys.readouterr()
    assert "epoch 2/2: loss" in told.err
    assert f"{out}: " in told.out
    gate = read_gate(out)
    assert gate.probabilities(generate(0, 96).display()).sum() == pytest.approx(1, abs=1e-5)
    assert 0 <= gate.clipped < 1
