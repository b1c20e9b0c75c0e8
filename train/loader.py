"""Batches of augmented films: the same ones for the same seed and epoch, whatever the number of workers or ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msloc_edge._ordered import map_ahead
from msloc_edge.train.augment import augment
from msloc_edge.train.data import PHANTOM, Films
from msloc_edge.train.losses import source_priors

Batch = tuple[Tensor, Tensor, Tensor]
"""images [B, 1, H, W] in [0, 1]; labels [B, K], nan where unknown; prior [B, K], source_priors of each film's source"""

LabelledFilm = tuple[NDArray[np.uint8], NDArray[np.float32]]
Insert = Callable[[NDArray[np.uint8], NDArray[np.float32], np.random.Generator], LabelledFilm]
"""(film [H, W], labels [K], generator) -> a film with something put into it, and its labels."""


def epoch_films(sources: Sequence[Films], limit: int) -> int:
    """Count the films of an epoch that takes at most `limit` of each source; 0: all."""
    return sum(min(len(source), limit or len(source)) for source in sources)


def batch_indices(sources: Sequence[Films], seed: int, epoch: int, batch: int, limit: int = 0) -> list[list[int]]:
    """Draw the films of each batch of an epoch, counted through all sources; the last, incomplete batch is left out.

    Of a source with more than `limit` films some are drawn, others in each epoch; 0: all.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    chosen: list[int] = []
    first = 0
    for source in sources:
        drawn = torch.randperm(len(source), generator=generator)[: limit or len(source)]
        chosen += (first + drawn).tolist()
        first += len(source)
    order = [chosen[at] for at in torch.randperm(len(chosen), generator=generator).tolist()]
    batch = min(batch, len(order))
    return [order[at : at + batch] for at in range(0, len(order) - batch + 1, batch)]


def film_names(sources: Sequence[Films], indices: Sequence[int]) -> list[str]:
    """Name the films at these indices into all sources."""
    names = [name for source in sources for name in source.names]
    return [names[index] for index in indices]


def epoch_batches(
    sources: Sequence[Films],
    *,
    size: int,
    seed: int,
    epoch: int,
    groups: Sequence[list[int]],
    workers: int,
    insert: Insert | None = None,
    part: Callable[[list[int]], list[int]] = list,
    pin: bool = False,
) -> Iterator[Batch]:
    """Load the batches of films that `groups` (batch_indices) names.

    A real film is first given to `insert`; then films are scaled to `size` and augmented. Each has its own generator
    (seed, epoch, index). `part` picks the films of this process from each batch. Films are loaded in `workers`
    threads, or in the caller's with 0. Threads, not processes: OpenCV and numpy let go of Python's lock, while a
    forked process can hang on engines and pools that the parent holds. With `pin` the batches are in page-locked
    memory, which a GPU copies from while it computes.
    """
    priors = source_priors(sources)
    films = [
        (source, prior, index) for source, prior in zip(sources, priors, strict=True) for index in range(len(source))
    ]
    parts = map(part, groups)

    def film(index: int) -> tuple[Tensor, Tensor, Tensor]:
        source, prior, at = films[index]
        rng = np.random.default_rng((seed, epoch, index))
        pixels, labels = source.pixels[at], source.labels[at]
        if insert is not None and source.source != PHANTOM:
            pixels, labels = insert(pixels, labels, rng)
        return torch.from_numpy(augment(resized(pixels, size), rng))[None], torch.from_numpy(labels), prior

    def load(indices: list[int]) -> Batch:
        images, labels, prior = (torch.stack(part) for part in zip(*map(film, indices), strict=True))
        return (images.pin_memory(), labels.pin_memory(), prior.pin_memory()) if pin else (images, labels, prior)

    if not workers:
        yield from map(load, parts)
        return
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="films") as pool,
        closing(map_ahead(pool, load, parts, 2 * workers)) as loaded,
    ):
        for _, batch in loaded:
            yield batch


def resized(film: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square film: averaged where it shrinks, bilinear where it grows."""
    if size == film.shape[0]:
        return film
    method = cv2.INTER_AREA if size < film.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film, (size, size), interpolation=method), np.uint8)


def plain_batches(source: Films, size: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Load all films of a source in order, not augmented: images [B, 1, H, W], labels [B, K]."""
    for at in range(0, len(source), batch):
        films = np.stack([resized(film, size) for film in source.pixels[at : at + batch]]).astype(np.float32) / 255
        yield torch.from_numpy(films)[:, None], torch.from_numpy(source.labels[at : at + batch])
