"""Digital phantoms as films of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

import msloc_edge.train.phantom
from msloc_edge.train.data.cache import films_folder, new_pixels
from msloc_edge.train.data.films import Films, label_array
from msloc_edge.train.phantom import FINDINGS, generate

VALIDATION_SEED = 1_000_000
TEST_SEED = 2_000_000
TRAINING_SEED = 10_000_000
"""First phantom seeds of the splits: one seed is one patient, so the splits share none. Run seed r trains on the
phantoms from TRAINING_SEED * (r + 1) on."""

_MAKERS = 2
_CHUNK = 16


def phantom_films(
    first_seed: int, count: int, side: int, progress: Progress, classes: Sequence[str] = FINDINGS
) -> Films:
    """`count` phantoms with consecutive seeds, `side` pixels square.

    Findings that phantoms do not have are unknown, but on a phantom without any finding they are absent, too.

    Their masks are made again from the seed when they are asked for, so that none is ever stored.
    """
    seeds = range(first_seed, first_seed + count)
    stem = f"phantom-{side}-{first_seed}-{count}-{_generator_version()}"
    pixels_file, labels_file = (films_folder() / f"{stem}.{what}.npy" for what in ("pixels", "labels"))
    if not (pixels_file.exists() and labels_file.exists()):
        _make(seeds, side, pixels_file, labels_file, progress)
    known: list[Mapping[str, float]] = [
        dict(zip(FINDINGS, row, strict=True)) if any(row) else dict.fromkeys(classes, 0.0)
        for row in np.load(labels_file).tolist()
    ]

    def masks(index: int) -> dict[str, NDArray[np.bool_]]:
        found: dict[str, NDArray[np.bool_]] = {}
        for region in generate(seeds[index], side).regions:
            found[region.label] = found.get(region.label, np.zeros((side, side), bool)) | region.mask
        return found

    names = tuple(f"phantom {seed}" for seed in seeds)
    pixels = np.load(pixels_file, mmap_mode="r")
    return Films("phantom", tuple(classes), pixels, label_array(known, classes), names, names, masks=masks)


def _generator_version() -> str:
    """A digest of the generator's sources: films made by another version are never mistaken for these."""
    sources = sorted(Path(msloc_edge.train.phantom.__path__[0]).glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _make(seeds: range, side: int, pixels_file: Path, labels_file: Path, progress: Progress) -> None:
    labels = np.zeros((len(seeds), len(FINDINGS)), np.float32)
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    task = progress.add_task("phantoms", total=len(seeds))
    # spawn: a forked child would inherit the parent's OpenCV and torch threads in an unknown state
    with (
        new_pixels(pixels_file, len(seeds), side) as pixels,
        ProcessPoolExecutor(_MAKERS, mp_context=get_context("spawn")) as pool,
    ):
        for chunk, (films, vectors) in zip(chunks, pool.map(_make_chunk, chunks, [side] * len(chunks)), strict=True):
            at = chunk.start - seeds.start
            pixels[at : at + len(chunk)], labels[at : at + len(chunk)] = films, vectors
            progress.advance(task, len(chunk))
        np.save(labels_file, labels)  # before the pixels take their name: both are there, or neither counts
    progress.remove_task(task)


def _make_chunk(seeds: range, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    cv2.setNumThreads(1)
    phantoms = [generate(seed, side) for seed in seeds]
    films = np.stack([np.round(phantom.display() * 255).astype(np.uint8) for phantom in phantoms])
    return films, np.stack([phantom.label_vector() for phantom in phantoms])
