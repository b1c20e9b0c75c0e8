"""Batches: the same films for the same seed and epoch, whatever the number of workers or ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from msloc_edge.train.data import PHANTOM, Films
from msloc_edge.train.distributed import Ranks
from msloc_edge.train.loader import batch_indices, epoch_batches, epoch_films, film_names, plain_batches
from msloc_edge.train.phantom import generate

COUNT = 10


def made(source: str, first: int, count: int = COUNT) -> Films:
    """Films whose first label is their number."""
    pixels = np.stack([np.round(generate(first + n, 64).display() * 255).astype(np.uint8) for n in range(count)])
    labels = np.zeros((count, 3), np.float32)
    labels[:, 0] = np.arange(first, first + count)
    names = tuple(f"{source} {first + n}" for n in range(count))
    return Films(source, ("a", "b", "c"), pixels, labels, names, names)


@pytest.fixture(scope="module")
def films() -> list[Films]:
    return [made("nih:x", 0, 6), made(PHANTOM, 6, 4)]


def batches(films: list[Films], **choices: Any) -> list[tuple[torch.Tensor, ...]]:
    wanted = {"size": 64, "seed": 1, "epoch": 2, "batch": 4, "limit": 0, "workers": 0, **choices}
    groups = batch_indices(films, wanted["seed"], wanted["epoch"], wanted.pop("batch"), wanted.pop("limit"))
    return list(epoch_batches(films, groups=groups, **wanted))


def numbers(made: list[tuple[torch.Tensor, ...]]) -> list[list[float]]:
    return [labels[:, 0].tolist() for _, labels, _ in made]


def same(first: list, second: list) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def test_batches_follow_seed_and_epoch_alone(films: list[Films]) -> None:
    one = batches(films)
    assert same(one, batches(films))
    assert same(one, batches(films, workers=1))
    assert same(one, batches(films, workers=3))
    assert not same(one, batches(films, epoch=3))
    assert not same(one, batches(films, seed=2))


def test_batches_hold_every_film_at_most_once(films: list[Films]) -> None:
    found = batches(films)
    assert [tuple(images.shape) for images, *_ in found] == [(4, 1, 64, 64)] * 2  # the incomplete third is left out
    seen = [number for part in numbers(found) for number in part]
    assert len(set(seen)) == 8
    assert seen != sorted(seen)
    assert all(images.dtype == torch.float32 for images, *_ in found)


def test_batches_are_of_the_films_that_are_named(films: list[Films]) -> None:
    groups = batch_indices(films, seed=1, epoch=2, batch=4)
    assert numbers(batches(films)) == groups  # the films are numbered as they come
    assert film_names(films, [0, 9, 5]) == ["nih:x 0", "phantom 9", "nih:x 5"]


def test_fewer_films_than_a_batch_make_one_batch(films: list[Films]) -> None:
    ((images, labels, _),) = batches(films, batch=64)
    assert images.shape[0] == COUNT
    assert sorted(labels[:, 0].tolist()) == list(range(COUNT))


def test_a_large_source_lends_other_films_to_each_epoch(films: list[Films]) -> None:
    seen = set()
    for epoch in range(40):
        ((number, *others),) = [sorted(numbers(batches(films, batch=64, limit=1, epoch=epoch))[0])]
        assert number < 6 <= others[0]
        assert len(others) == 1
        seen |= {number, *others}
    assert seen == set(range(COUNT))
    assert epoch_films(films, 5) == 5 + 4
    assert epoch_films(films, 0) == COUNT


def test_early_epochs_take_smaller_films(films: list[Films]) -> None:
    whole, small = batches(films), batches(films, size=32)
    assert [tuple(images.shape) for images, *_ in small] == [(4, 1, 32, 32)] * 2
    assert numbers(whole) == numbers(small)
    means = [torch.cat([images.mean(dim=(1, 2, 3)) for images, *_ in found]) for found in (whole, small)]
    torch.testing.assert_close(*means, atol=0.02, rtol=0)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_part_every_batch(films: list[Films], world: int) -> None:
    whole = batches(films)
    ranks = [Ranks(rank, world, torch.device("cpu")) for rank in range(world)]
    parts = [batches(films, part=ranks[rank].part, workers=rank) for rank in range(world)]
    for number, (images, labels, _) in enumerate(whole):
        assert torch.equal(images, torch.cat([part[number][0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[number][1] for part in parts]))


def test_real_films_are_given_to_the_inserter(films: list[Films]) -> None:
    asked: list[float] = []

    def insert(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        assert film.shape == (64, 64)  # before it is scaled
        asked.append(labels[0])
        changed = labels.copy()
        changed[1], changed[2] = 1, rng.random()
        return np.full_like(film, 255), changed

    plain, found = batches(films, batch=10, size=32), batches(films, batch=10, size=32, insert=insert)
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]
    for image, labels, _ in zip(*found[0], strict=True):
        assert (labels[1] == 1) == (labels[0] < 6)
        assert (image.median() > 0.7) == (labels[0] < 6)
    assert torch.equal(plain[0][1][:, 0], found[0][1][:, 0])
    again = batches(films, batch=10, size=32, insert=insert, workers=2)
    assert same(found, again)


def test_plain_batches_hold_all_films_in_order(films: list[Films]) -> None:
    found = list(plain_batches(films[0], 64, 4))
    assert [images.shape[0] for images, _ in found] == [4, 2]
    images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert labels[:, 0].tolist() == list(range(6))
    assert np.array_equal(np.round(images[:, 0].numpy() * 255), films[0].pixels)
