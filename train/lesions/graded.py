"""Lesions of graded size in films that have none: what a benchmark of small findings measures on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.lesions.insertion import Lesion, check_film, insert
from msloc_edge.train.lesions.lungs import lung_fields

DIAMETERS = (20.0, 28.0, 36.0, 60.0, 90.0, 140.0, 220.0)
"""Pixels of a 1024-px film."""

NODULE, MASS = 80.0, 180.0
"""Largest diameters of a nodule (3 cm, the radiologists' limit, at 37 cm a film) and of a mass."""


def kind_of(diameter: float) -> str:
    """The kind of lesion that has this diameter, in pixels of 1024: Nodule, Mass or Opacity."""
    return "Nodule" if diameter <= NODULE else "Mass" if diameter <= MASS else "Opacity"


def graded(
    films: Iterable[NDArray[np.uint8] | str | os.PathLike[str]],
    seed: int,
    diameters: Iterable[float] = DIAMETERS,
    kind: str | None = None,
    contrast: float | None = None,
) -> Iterator[tuple[NDArray[np.uint8], Lesion]]:
    """Each film with one lesion of each diameter in turn: len(diameters) copies of the first, of the second, ...

    films: arrays [H, W] uint8 or files; kind: of all lesions, where not given that of their diameter; contrast: as for
    `insert`. A copy hangs on the seed, the film's place in the row and the diameter alone. Raises as `insert` and
    `read_frame` do.
    """
    diameters = tuple(diameters)
    for number, film in enumerate(films):
        pixels = film if isinstance(film, np.ndarray) else read_film(film)
        check_film(pixels)
        lungs = lung_fields(pixels)
        for diameter in diameters:
            rng = np.random.default_rng([seed, number, round(diameter * 16)])
            yield insert(pixels, rng, kind or kind_of(diameter), diameter, contrast, lungs)


def read_film(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """A film file as shown, [H, W] uint8. Raises InputError."""
    return np.asarray(np.round(read_frame(Path(path)).display() * 255), np.uint8)
