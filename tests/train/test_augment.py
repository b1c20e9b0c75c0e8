"""Augmentation: seeded, plausible, never mirrored; and the batches that it goes into."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from msloc_edge.train.augment import augment
from msloc_edge.train.loader import epoch_batches, plain_batches
from msloc_edge.train.phantom import FINDINGS, generate

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


@pytest.fixture(scope="module")
def films() -> SimpleNamespace:
    """Ten films as train.films gives them, without its files; the first label tells them apart."""
    pixels = np.stack([np.round(generate(n, 64).display() * 255).astype(np.uint8) for n in range(10)])
    labels = np.zeros((10, len(FINDINGS)), np.float32)
    labels[:, 0] = np.arange(10)

    class Films(SimpleNamespace):
        def __len__(self) -> int:
            return 10

    return Films(pixels=pixels, labels=labels)


def batches(films: SimpleNamespace, **choices: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(epoch_batches(films, **{"size": 64, "seed": 1, "epoch": 2, "batch": 4, "workers": 0, **choices}))


def same(first: list, second: list) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def test_batches_follow_seed_and_epoch_alone(films: SimpleNamespace) -> None:
    one = batches(films)
    assert same(one, batches(films))
    assert same(one, batches(films, workers=1))
    assert same(one, batches(films, workers=2))
    assert not same(one, batches(films, epoch=3))
    assert not same(one, batches(films, seed=2))


def test_batches_hold_every_film_at_most_once(films: SimpleNamespace) -> None:
    made = batches(films)
    assert [tuple(images.shape) for images, _ in made] == [(4, 1, 64, 64)] * 2  # the incomplete third is left out
    seen = torch.cat([labels[:, 0] for _, labels in made]).tolist()
    assert len(set(seen)) == 8
    assert seen != sorted(seen)
    assert all(images.dtype == torch.float32 for images, _ in made)


def test_fewer_films_than_a_batch_make_one_batch(films: SimpleNamespace) -> None:
    ((images, labels),) = batches(films, batch=64)
    assert images.shape[0] == 10
    assert sorted(labels[:, 0].tolist()) == list(range(10))


def test_early_epochs_take_smaller_films(films: SimpleNamespace) -> None:
    whole, small = batches(films), batches(films, size=32)
    assert [tuple(images.shape) for images, _ in small] == [(4, 1, 32, 32)] * 2
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(whole, small, strict=True))  # the same films
    means = [torch.cat([images.mean(dim=(1, 2, 3)) for images, _ in made]) for made in (whole, small)]
    torch.testing.assert_close(*means, atol=0.02, rtol=0)


def test_plain_batches_hold_all_films_in_order(films: SimpleNamespace) -> None:
    made = list(plain_batches(films, 4))
    assert [images.shape[0] for images, _ in made] == [4, 4, 2]
    images, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
    assert labels[:, 0].tolist() == list(range(10))
    assert np.array_equal(np.round(images[:, 0].numpy() * 255), films.pixels)
