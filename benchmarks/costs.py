"""Processor time of a film's parts, and what processes use. Imported by the benchmark scripts beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from local_ray import descendants

PARTS = ("read", "network", "locate")
"""A film's parts: file to input; input to class maps; these to boxes and the row."""

Parts = dict[str, float]


def make_jpegs(folder: Path, count: int = 32) -> list[str]:
    """Write phantoms of 1024 px as 8-bit JPEG of quality 90; their paths."""
    from msloc_edge.train.phantom import generate

    folder.mkdir(exist_ok=True)
    for seed in range(count):
        film = np.round(generate(seed, 1024).display() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed:03}.jpg"), film, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return sorted(map(str, folder.iterdir()))


def parts_ms(films: list[str], model: str) -> Parts:
    """CPU milliseconds of a film, median: each of PARTS, one behind the other in one thread."""
    from msloc_edge.pipeline import Localizer, Outcome
    from msloc_edge.score.archive import Film
    from msloc_edge.score.dataset import to_row
    from msloc_edge.score.feeder import read_film

    cv2.setNumThreads(1)
    laps = []
    with Localizer(model, threads=1) as localizer:
        for path in films[:64]:
            film, times = Film(path, path), [time.process_time()]
            prepared = read_film(localizer.bundle.input_size, film)
            times.append(time.process_time())
            localizer.backend.run([prepared.input])
            times.append(time.process_time())
            to_row(Outcome(film, prepared, localizer.run([prepared])[0]))
            times.append(time.process_time())
            read, network, both = np.diff(times) * 1e3
            laps.append((read, network, both - network))
    return dict(zip(PARTS, np.median(laps[4:], axis=0).round(2).tolist(), strict=True))


def parts_ms_together(films: list[str], model: str, cores: int) -> Parts:
    """CPU milliseconds of a film's parts while every core is busy with such films: memory and caches are shared."""
    with get_context("spawn").Pool(cores) as pool:
        found = pool.starmap(parts_ms, [(films, model)] * cores, chunksize=1)
    return {part: round(float(np.mean([each[part] for each in found])), 2) for part in PARTS}


def cpu_s(pids: Iterable[int] | None = None) -> float:
    """Processor time so far of processes that run; None: this one and all below it."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = 0.0
    for pid in [os.getpid(), *descendants(os.getpid())] if pids is None else pids:
        with suppress(OSError):  # it has ended meanwhile
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += sum(map(int, stat[11:13])) / ticks
    return used


def resident_mb(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
