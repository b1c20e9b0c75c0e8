"""Changes of films and what is measured on them: by hand, and against scipy."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.train.evaluate import perturb
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.probe import box_overlap
from msloc_edge.types import Frame


def ramp(height: int = 10, width: int = 10) -> np.ndarray:
    """[h, w]: 0 at the top left, rising in reading order to 1."""
    return (np.arange(height * width, dtype=np.float32) / (height * width - 1)).reshape(height, width)


def test_deletion_takes_the_highest_first() -> None:
    film, map = np.ones((10, 10), np.float32), ramp()
    scores = perturb.replacement_curve(lambda changed: float(changed[5:].mean()), film, np.zeros_like(film), map)
    # The lower half of the map is its highest: the score falls by a fifth a step, and is gone at the middle.
    assert scores == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0, 0, 0])
    assert perturb.area(scores) == pytest.approx(0.25)
    assert (film == 1).all()
    worst = perturb.replacement_curve(lambda changed: float(changed[5:].mean()), film, np.zeros_like(film), -map)
    assert perturb.area(worst) == pytest.approx(0.75)


def test_insertion_ends_with_the_film() -> None:
    film = ramp()
    seen: list[np.ndarray] = []
    perturb.replacement_curve(
        lambda changed: float(seen.append(changed.copy()) or 0), perturb.blurred(film), film, film
    )
    assert len(seen) == perturb.STEPS + 1
    assert (seen[-1] == film).all()
    assert (seen[1] == film).sum() >= 10
    assert not (seen[0] == film).all()


def test_a_changed_film_keeps_its_letterbox() -> None:
    geometry = Geometry.fit((20, 40), (32, 32))
    whole = np.zeros((32, 32), np.float32)
    whole[geometry.content] = 0.5
    frame = Frame(np.zeros((20, 40), np.uint8), np.linspace(0, 1, 256, dtype=np.float32))
    prepared = Prepared(frame, whole, geometry, {})
    film = perturb.film_of(prepared)
    assert film.shape == (16, 32)
    changed = perturb.with_film(prepared, perturb.windowed(film + 0.1, 2.0))
    assert changed.input[geometry.content] == pytest.approx(0.7)
    assert not changed.input[:8].any()
    assert (whole[geometry.content] == 0.5).all()
    assert perturb.plain(ramp()) == pytest.approx(0.5)


def test_noise_has_its_deviation_and_stays_in_range() -> None:
    changed = perturb.noisy(np.full((200, 200), 0.5, np.float32), np.random.default_rng(0))
    assert (changed - 0.5).std() == pytest.approx(perturb.NOISE, rel=0.02)
    assert perturb.noisy(np.ones((50, 50), np.float32), np.random.default_rng(0)).max() == 1


def test_what_is_moved_comes_back() -> None:
    film = ramp()
    there = perturb.moved(film, 2, 3)
    assert there[2, 3] == film[0, 0]
    assert (there[:3, :4] == film[0, 0]).all()  # the edge is repeated
    assert (perturb.moved(there, -2, -3)[:8, :7] == film[:8, :7]).all()
    assert perturb.shift_of(np.zeros((100, 300))) == (2, 6)


def test_rank_correlation_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = np.random.default_rng(0).integers(0, 20, (2, 12, 12)).astype(np.float32)
    expected = stats.spearmanr(first.ravel(), (first + second).ravel()).statistic
    assert perturb.rank_correlation(first, first + second) == pytest.approx(expected)
    assert perturb.rank_correlation(first, -(first**3)) == pytest.approx(-1)
    assert np.isnan(perturb.rank_correlation(first, np.zeros_like(first)))


def test_a_box_that_moves_with_the_film_is_stable() -> None:
    def evidence(x: int, y: int) -> Evidence:
        values = np.zeros((60, 60), np.float32)
        values[y : y + 10, x : x + 10] = 1
        return Evidence.above(values, 0.5)

    assert box_overlap(evidence(10, 10), evidence(14, 12), (-2, -4)) == 1
    assert box_overlap(evidence(10, 10), evidence(15, 10), (0, 0)) == pytest.approx(50 / 150)
    nothing = Evidence.above(np.zeros((60, 60), np.float32), 0.5)
    assert box_overlap(evidence(10, 10), nothing, (0, 0)) == 0
    assert np.isnan(box_overlap(nothing, evidence(10, 10), (0, 0)))
