"""Batches of augmented films: the same ones for the same seed and epoch, whatever the number of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msloc_edge.train.augment import augment
from msloc_edge.train.films import PhantomFilms

Batch = tuple[Tensor, Tensor]


def epoch_batches(
    films: PhantomFilms, *, size: int, seed: int, epoch: int, batch: int, workers: int
) -> Iterator[Batch]:
    """Shuffled batches (images [B, 1, H, W] in [0, 1], labels [B, K]); the last, incomplete batch is left out.

    Films are scaled to `size` and augmented, each by its own generator (seed, epoch, index), in `workers` threads,
    or in the caller's with 0. Threads, not processes: OpenCV and numpy let go of Python's lock, while a forked
    process can hang on engines and pools that the parent holds.
    """
    batch = min(batch, len(films))
    order = torch.randperm(len(films), generator=torch.Generator().manual_seed(seed * 100_003 + epoch)).tolist()
    groups = iter([order[at : at + batch] for at in range(0, len(order) - batch + 1, batch)])

    def load(indices: list[int]) -> Batch:
        images = np.stack([_film(films, index, size, (seed, epoch, index)) for index in indices])
        return torch.from_numpy(images)[:, None], torch.from_numpy(films.labels[indices])

    if not workers:
        yield from map(load, groups)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="films") as pool:
        ahead: deque[Future[Batch]] = deque(pool.submit(load, group) for group in islice(groups, 2 * workers))
        while ahead:
            ready = ahead.popleft().result()
            ahead.extend(pool.submit(load, group) for group in islice(groups, 1))
            yield ready


def _film(films: PhantomFilms, index: int, size: int, key: tuple[int, int, int]) -> NDArray[np.float32]:
    film = np.asarray(films.pixels[index])
    if size < film.shape[0]:
        film = np.asarray(cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    return augment(film, np.random.default_rng(key))


def plain_batches(films: PhantomFilms, batch: int) -> Iterator[Batch]:
    """All films in order, not augmented."""
    for at in range(0, len(films), batch):
        pixels = torch.from_numpy(np.array(films.pixels[at : at + batch], np.float32) / 255)
        yield pixels[:, None], torch.from_numpy(films.labels[at : at + batch])
