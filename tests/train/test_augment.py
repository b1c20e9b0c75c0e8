"""Augmentation: seeded, plausible, never mirrored."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.train.augment import augment
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


def test_left_stays_left(film: np.ndarray) -> None:
    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    plain = film / 255
    for seed in range(40):
        out = augment(film, np.random.default_rng(seed))
        assert alike(out, plain) > alike(out[:, ::-1], plain)


def test_position_changes(film: np.ndarray) -> None:
    dot = np.zeros((128, 128), np.uint8)
    dot[60:68, 60:68] = 255
    # Where nothing of a small spot is left at its old place, it was moved, scaled or turned.
    weights = [augment(dot, np.random.default_rng(seed)) for seed in range(30)]
    at = np.array([np.unravel_index(w.argmax(), w.shape) for w in weights])
    assert np.abs(at - 64).max() <= 0.06 * 128 + 8
    assert np.abs(at - 64).max() > 4


def test_films_need_not_be_square() -> None:
    film = np.round(generate(3, (96, 128), ()).display() * 255).astype(np.uint8)
    assert augment(film, np.random.default_rng(0)).shape == (96, 128)
