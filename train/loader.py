"""Batches of augmented films: the same ones for the same seed and epoch, whatever the number of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msloc_edge.train.augment import augment
from msloc_edge.train.data import Films

Batch = tuple[Tensor, Tensor]


def epoch_batches(
    sources: Sequence[Films], *, size: int, seed: int, epoch: int, batch: int, workers: int
) -> Iterator[Batch]:
    """Shuffled batches of the films of all sources (images [B, 1, H, W] in [0, 1], labels [B, K], nan where unknown);
    the last, incomplete batch is left out.

    Films are scaled to `size` and augmented, each by its own generator (seed, epoch, index), in `workers` threads,
    or in the caller's with 0. Threads, not processes: OpenCV and numpy let go of Python's lock, while a forked
    process can hang on engines and pools that the parent holds.
    """
    films = [(source, index) for source in sources for index in range(len(source))]
    batch = min(batch, len(films))
    order = torch.randperm(len(films), generator=torch.Generator().manual_seed(seed * 100_003 + epoch)).tolist()
    groups = iter([order[at : at + batch] for at in range(0, len(order) - batch + 1, batch)])

    def load(indices: list[int]) -> Batch:
        images = np.stack([_film(*films[index], size, (seed, epoch, index)) for index in indices])
        labels = np.stack([source.labels[at] for source, at in (films[index] for index in indices)])
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels)

    if not workers:
        yield from map(load, groups)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="films") as pool:
        ahead: deque[Future[Batch]] = deque(pool.submit(load, group) for group in islice(groups, 2 * workers))
        while ahead:
            ready = ahead.popleft().result()
            ahead.extend(pool.submit(load, group) for group in islice(groups, 1))
            yield ready


def _film(source: Films, index: int, size: int, key: tuple[int, int, int]) -> NDArray[np.float32]:
    return augment(resized(source.pixels[index], size), np.random.default_rng(key))


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
