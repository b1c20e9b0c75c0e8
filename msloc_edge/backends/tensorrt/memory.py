"""Memory of an integrated GPU: mapped, where nothing is copied, or copied; which is faster is measured once, and kept.

Mapped memory saves the copies, and its pixels are read past some of the GPU's caches: which weighs more depends on the
board. NVIDIA leaves it to a measurement, too (CUDA for Tegra, "Memory Selection").
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median

import numpy as np

from msloc_edge.backends.base import Backend, Search
from msloc_edge.backends.tensorrt.cache import SideFile
from msloc_edge.backends.tensorrt.progress import LOG
from msloc_edge.bundle import Bundle
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.raster import full_range
from msloc_edge.types import Frame

WARMUP, RUNS = 2, 9

LARGER = 6
"""Sides of the film that is measured, in those of the model's input: films have 3 to 8."""

Make = Callable[[bool], Backend]
"""Opens a backend with mapped memory, or with copies."""


def choose_mapped(make: Make, bundle: Bundle, file: SideFile) -> bool:
    """Read whether mapped memory is faster on this device, or measure it, and write it down."""
    with suppress(ValueError, KeyError, TypeError):  # nothing is there yet, or it is damaged
        return bool(json.loads(file.read())["mapped"])
    found = {name: measure_ms(make, mapped, bundle) for name, mapped in (("mapped", True), ("copied", False))}
    mapped = found["mapped"] <= found["copied"]
    file.write(json.dumps({"mapped": mapped, "ms": found}).encode() + b"\n")
    LOG.info("memory: %s", ", ".join(f"{name} {ms:.2f} ms" for name, ms in found.items()))
    return mapped


def measure_ms(make: Make, mapped: bool, bundle: Bundle) -> float:
    """Time a film from stored pixels to what was found: the median, milliseconds."""
    height, width = (LARGER * side for side in bundle.input_size)
    frame = Frame(np.zeros((height, width), np.uint16), full_range(16))
    geometry = Geometry.fit((height, width), bundle.input_size)
    search, times = Search([geometry.content], bundle.profile().map), []
    backend = make(mapped)
    try:
        for _ in range(WARMUP + RUNS):
            begin = time.perf_counter()
            backend.run([backend.preprocess(frame, geometry)], search)
            times.append(1e3 * (time.perf_counter() - begin))
    finally:
        backend.close()
    return round(median(times[WARMUP:]), 4)
