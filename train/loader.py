"""Batches of augmented films: the same ones for the same seed and epoch, whatever the number of workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from msloc_edge.train.augment import augment
from msloc_edge.train.films import PhantomFilms


class _Epoch(Dataset[tuple[Tensor, Tensor]]):
    """One epoch's films, scaled to `size`, each augmented by its own generator (seed, epoch, index)."""

    def __init__(self, films: PhantomFilms, size: int, seed: int, epoch: int) -> None:
        self.films, self.size, self.seed, self.epoch = films, size, seed, epoch

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        film = np.asarray(self.films.pixels[index])
        if self.size < film.shape[0]:
            film = np.asarray(cv2.resize(film, (self.size, self.size), interpolation=cv2.INTER_AREA), np.uint8)
        film = augment(film, rng)
        return torch.from_numpy(film)[None], torch.from_numpy(self.films.labels[index])


def epoch_batches(
    films: PhantomFilms, *, size: int, seed: int, epoch: int, batch: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches (images [B, 1, H, W] in [0, 1], labels [B, K]); the last, incomplete batch is left out."""
    order = torch.Generator().manual_seed(seed * 100_003 + epoch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        yield from DataLoader(
            _Epoch(films, size, seed, epoch),
            batch_size=min(batch, len(films)),
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            generator=order,
        )


def plain_batches(films: PhantomFilms, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All films in order, not augmented."""
    for at in range(0, len(films), batch):
        pixels = torch.from_numpy(np.array(films.pixels[at : at + batch], np.float32) / 255)
        yield pixels[:, None], torch.from_numpy(films.labels[at : at + batch])
