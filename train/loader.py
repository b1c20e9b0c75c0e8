"""Batches of augmented films: the same ones for the same seed and epoch, whatever the number of workers or ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msloc_edge.train.augment import augment
from msloc_edge.train.data import PHANTOM, Films

Batch = tuple[Tensor, Tensor]
Labelled = tuple[NDArray[np.uint8], NDArray[np.float32]]
Insert = Callable[[NDArray[np.uint8], NDArray[np.float32], np.random.Generator], Labelled]
"""(film [H, W], labels [K], generator) -> a film with something put into it, and its labels."""


def batch_indices(count: int, seed: int, epoch: int, batch: int) -> list[list[int]]:
    """Which of `count` films are in each batch of an epoch; the last, incomplete batch is left out."""
    batch = min(batch, count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch)).tolist()
    return [order[at : at + batch] for at in range(0, count - batch + 1, batch)]


def film_names(sources: Sequence[Films], indices: Sequence[int]) -> list[str]:
    """What the films at these indices into all sources are called."""
    names = [name for source in sources for name in source.names]
    return [names[index] for index in indices]


def epoch_batches(
    sources: Sequence[Films],
    *,
    size: int,
    seed: int,
    epoch: int,
    batch: int,
    workers: int,
    insert: Insert | None = None,
    part: Callable[[list[int]], list[int]] = list,
    pin: bool = False,
) -> Iterator[Batch]:
    """Shuffled batches of the films of all sources (images [B, 1, H, W] in [0, 1], labels [B, K], nan where unknown);
    the last, incomplete batch is left out.

    A real film is first given to `insert`; then films are scaled to `size` and augmented. Each has its own generator
    (seed, epoch, index). `part` picks the films of this process from each batch. Films are loaded in `workers`
    threads, or in the caller's with 0. Threads, not processes: OpenCV and numpy let go of Python's lock, while a
    forked process can hang on engines and pools that the parent holds. With `pin` the batches are in page-locked
    memory, which a GPU copies from while it computes.
    """
    films = [(source, index) for source in sources for index in range(len(source))]
    groups = map(part, batch_indices(len(films), seed, epoch, batch))

    def film(index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        source, at = films[index]
        rng = np.random.default_rng((seed, epoch, index))
        pixels, labels = source.pixels[at], source.labels[at]
        if insert is not None and source.source != PHANTOM:
            pixels, labels = insert(pixels, labels, rng)
        return augment(resized(pixels, size), rng), labels

    def load(indices: list[int]) -> Batch:
        images, labels = zip(*map(film, indices), strict=True)
        loaded = torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(labels))
        return (loaded[0].pin_memory(), loaded[1].pin_memory()) if pin else loaded

    if not workers:
        yield from map(load, groups)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="films") as pool:
        ahead: deque[Future[Batch]] = deque(pool.submit(load, group) for group in islice(groups, 2 * workers))
        while ahead:
            ready = ahead.popleft().result()
            ahead.extend(pool.submit(load, group) for group in islice(groups, 1))
            yield ready


def resized(film: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square film at another size: averaged where it shrinks, bilinear where it grows."""
    if size == film.shape[0]:
        return film
    method = cv2.INTER_AREA if size < film.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film, (size, size), interpolation=method), np.uint8)


def plain_batches(source: Films, size: int, batch: int) -> Iterator[Batch]:
    """All films of a source in order, not augmented."""
    for at in range(0, len(source), batch):
        films = np.stack([resized(film, size) for film in source.pixels[at : at + batch]]).astype(np.float32) / 255
        yield torch.from_numpy(films)[:, None], torch.from_numpy(source.labels[at : at + batch])
