"""Decoded films, kept between runs as one memory-mapped array of uint8 per set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msloc_edge._files import cache_folder


def films_folder() -> Path:
    """The folder of the arrays, made when it is not there."""
    folder = cache_folder() / "films"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def new_pixels(path: Path, count: int, side: int) -> Iterator[NDArray[np.uint8]]:
    """An array [count, side, side] to be filled; it takes its name when the block ends, and goes when it fails."""
    scratch = path.with_suffix(f".{os.getpid()}.part")
    try:
        pixels = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint8, shape=(count, side, side))
        yield pixels
        pixels.flush()
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)  # of a run that was stopped: as large as the films
