"""Augmentation: seeded, plausible, never mirrored."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.train.augment import SHIFT, SIDE, augment, cover
from msloc_edge.train.phantom import generate

NOISE = 0.15
"""How far beyond [0, 1] the detector noise (0.02 at most) may reach."""


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return np.round(generate(3, 128, ()).display() * 255).astype(np.uint8)


def test_same_seed_same_film(film: np.ndarray) -> None:
    before = film.copy()
    first, second = (augment(film, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, augment(film, np.random.default_rng(6)))
    assert np.array_equal(film, before)


def test_films_stay_films(film: np.ndarray) -> None:
    for seed in range(60):
        out = augment(film, np.random.default_rng(seed))
        assert out.dtype == np.float32
        assert out.shape == film.shape
        assert -NOISE < out.min() <= out.max() < 1 + NOISE
        assert 0.15 < out.mean() < 0.85
        assert out.std() > 0.1


def test_left_stays_left() -> None:
    ramp = np.tile(np.arange(128, dtype=np.uint8), (128, 1))
    for seed in range(40):
        out = augment(ramp, np.random.default_rng(seed))
        assert np.corrcoef(out.ravel(), ramp.ravel())[0, 1] > 0


def test_position_changes(film: np.ndarray) -> None:
    dot = np.zeros((128, 128), np.uint8)
    dot[60:68, 60:68] = 255
    # Where nothing of a small spot is left at its old place, it was moved, scaled or turned.
    weights = [augment(dot, np.random.default_rng(seed)) for seed in range(30)]
    at = np.array([np.unravel_index(w.argmax(), w.shape) for w in weights])
    assert np.abs(at - 64).max() <= SHIFT * 128 + 11
    assert np.abs(at - 64).max() > 4


def test_films_need_not_be_square() -> None:
    film = np.round(generate(3, (96, 128), ()).display() * 255).astype(np.uint8)
    assert augment(film, np.random.default_rng(0)).shape == (96, 128)


def test_covered_parts_are_few_rectangles_of_one_grey() -> None:
    for seed in range(30):
        film = np.full((96, 128), 300, np.uint16)  # no grey of eight bits
        cover(film, np.random.default_rng(seed))
        greys = set(np.unique(film)) - {300}
        assert 1 <= len(greys) <= 3
        assert 0 < (film != 300).mean() <= 3 * SIDE**2
        for grey in greys:
            rows, columns = np.nonzero(film == grey)
            assert np.ptp(rows) < SIDE * 96
            assert np.ptp(columns) < SIDE * 128


def test_a_part_of_the_films_is_covered() -> None:
    """A black film stays black but for noise, brightness and what covers it."""
    black = np.zeros((128, 128), np.uint8)
    bright = [augment(black, np.random.default_rng(seed)).max() > 0.3 for seed in range(200)]
    assert 60 < sum(bright) < 120
