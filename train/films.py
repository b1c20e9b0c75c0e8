"""The films of a run: phantoms, made once, kept as a memory-mapped array of uint8."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.train.phantom import FINDINGS, generate

VALIDATION_SEED = 1_000_000
TEST_SEED = 2_000_000
TRAINING_SEED = 10_000_000
"""First phantom seeds of the splits: one seed is one patient, so the splits share none. Run seed r trains on the
phantoms from TRAINING_SEED * (r + 1) on."""

_MAKERS = 2
_CHUNK = 16


def cache_dir() -> Path:
    """Where made films are kept between runs: MSLOC_CACHE, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "msloc-edge"
    return Path(os.environ.get("MSLOC_CACHE", default))


class PhantomFilms:
    """`count` phantoms with consecutive seeds, square, `size` pixels.

    pixels  [N, size, size] uint8, memory-mapped: displayed brightness x 255
    labels  [N, 8] float32 in the order of phantom.FINDINGS
    """

    classes = FINDINGS

    def __init__(self, first_seed: int, count: int, size: int, progress: Progress) -> None:
        self.seeds = range(first_seed, first_seed + count)
        self.size = size
        self.pixels, self.labels = _cached(self.seeds, size, progress)

    def __len__(self) -> int:
        return len(self.seeds)

    def masks(self, index: int) -> NDArray[np.bool_]:
        """Ground truth of one film, [8, size, size]: made again from the seed, so that no mask is ever stored."""
        masks = np.zeros((len(FINDINGS), self.size, self.size), bool)
        for region in generate(self.seeds[index], self.size).regions:
            masks[FINDINGS.index(region.label)] |= region.mask
        return masks


def _cached(seeds: range, size: int, progress: Progress) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    folder = cache_dir() / "films"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"phantom-{size}-{seeds.start}-{len(seeds)}-{_generator_version()}"
    pixels_file, labels_file = folder / f"{stem}.pixels.npy", folder / f"{stem}.labels.npy"
    if not (pixels_file.exists() and labels_file.exists()):
        _make(seeds, size, pixels_file, labels_file, progress)
    return np.load(pixels_file, mmap_mode="r"), np.load(labels_file)


def _generator_version() -> str:
    """A digest of the generator's sources: films made by another version are never mistaken for these."""
    import hashlib

    sources = sorted(Path(__file__).with_name("phantom").glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _make(seeds: range, size: int, pixels_file: Path, labels_file: Path, progress: Progress) -> None:
    scratch = pixels_file.with_suffix(f".{os.getpid()}.part")
    pixels = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint8, shape=(len(seeds), size, size))
    labels = np.zeros((len(seeds), len(FINDINGS)), np.float32)
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    task = progress.add_task("phantoms", total=len(seeds))
    # spawn: a forked child would inherit the parent's OpenCV and torch threads in an unknown state
    try:
        with ProcessPoolExecutor(_MAKERS, mp_context=get_context("spawn")) as pool:
            made = pool.map(_make_chunk, chunks, [size] * len(chunks))
            for chunk, (films, vectors) in zip(chunks, made, strict=True):
                at = chunk.start - seeds.start
                pixels[at : at + len(chunk)], labels[at : at + len(chunk)] = films, vectors
                progress.advance(task, len(chunk))
        progress.remove_task(task)
        pixels.flush()
        np.save(labels_file, labels)
        scratch.replace(pixels_file)
    finally:
        scratch.unlink(missing_ok=True)  # of a run that was stopped: as large as the films


def _make_chunk(seeds: range, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    cv2.setNumThreads(1)
    phantoms = [generate(seed, size) for seed in seeds]
    films = np.stack([np.round(phantom.display() * 255).astype(np.uint8) for phantom in phantoms])
    return films, np.stack([phantom.label_vector() for phantom in phantoms])
