"""Regions, where localization maps exceed their thresholds: the one definition; and the highest pixels of maps.

Thresholds are absolute: a map that nowhere exceeds its class's threshold has no region, and that is a valid result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from msloc_edge.maps._runs import Places, Runs, find_runs
from msloc_edge.maps.fuse import Array, Maps, Part


class Region(NamedTuple):
    """An 8-connected region where a map [H, W] exceeds its threshold, in pixels of the map.

    first                     y W + x of its first pixel in reading order
    left, top, right, bottom  the smallest rectangle around it; right and bottom are exclusive
    area                      pixels
    peak                      the map's highest value in it
    """

    first: int
    left: int
    top: int
    right: int
    bottom: int
    area: int
    peak: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The rectangle as (x, y, width, height)."""
        return self.left, self.top, self.right - self.left, self.bottom - self.top


class Located(NamedTuple):
    """The highest pixel of a map, of equal ones the first in reading order, and the map's regions.

    x, y     the pixel's centre, pixels of the model's input
    value    logit units
    regions  as `regions` gives them
    """

    x: float
    y: float
    value: float
    regions: tuple[Region, ...]


def regions(map: Array, threshold: float) -> list[Region]:
    """Find the 8-connected regions where a map exceeds a threshold.

    map        [H, W] float32; NaN exceeds nothing
    threshold  in units of the map; a pixel that equals it, both as float32, is in no region
    returns    regions of any area, the strongest first, of equal ones the first in reading order

    `reference.regions` is the same in plain OpenCV.

    >>> for region in regions(np.float32([[3, 0, 0], [0, 1, 0], [0, 0, 0], [0, 2, 2]]), 0.5):
    ...     print(region.box, region.area, region.peak)
    (0, 0, 2, 2) 2 3.0
    (1, 3, 2, 1) 2 2.0
    """
    height, width = map.shape
    whole = slice(0, height), slice(0, width)
    return _join(find_runs(Maps(map[None]), [threshold], whole), 1, width)[0]


def locate(maps: Maps, thresholds: Sequence[float], content: Part) -> list[Located]:
    """Find the peak and the regions of each of J maps within `content`.

    thresholds  [J] logit units
    content     rows and columns of the model's input that the film covers: at least one pixel
    """
    runs = find_runs(maps, thresholds, content)
    found = _join(runs, len(thresholds), maps.size[1])
    bounds = np.searchsorted(runs.maps, np.arange(len(thresholds) + 1)).tolist()
    located = []
    for j, (begin, end) in enumerate(pairwise(bounds)):
        if begin < end:
            top = begin + int(runs.peaks[begin:end].argmax())
            row, start, stop = (int(column[top]) for column in runs[1:4])
            value = float(runs.peaks[top])
            column = start + int(maps.pixels(j, (slice(row, row + 1), slice(start, stop))).argmax())
        else:
            row, column, value = maps.highest(j, content)
        located.append(Located(column + 0.5, row + 0.5, value, tuple(found[j])))
    return located


def strongest_first(found: Iterable[Region]) -> list[Region]:
    """Sort regions by falling peak; of equal ones the first in reading order goes first."""
    return sorted(found, key=lambda region: (-region.peak, region.first))


def _join(runs: Runs, count: int, width: int) -> list[list[Region]]:
    """The regions that the runs of `count` maps make, maps of `width` columns."""
    roots = _roots(runs, width)
    order = roots.argsort(kind="stable")  # region by region
    runs, roots = runs.at(order), roots[order]
    begins = np.flatnonzero(np.append(True, roots[1:] != roots[:-1])[: len(roots)])
    if not len(begins):
        return [[] for _ in range(count)]
    columns = (
        runs.maps[begins],
        runs.rows[begins] * width + runs.starts[begins],
        np.minimum.reduceat(runs.starts, begins),
        runs.rows[begins],
        np.maximum.reduceat(runs.stops, begins),
        np.maximum.reduceat(runs.rows, begins) + 1,
        np.add.reduceat(runs.stops - runs.starts, begins),
        np.maximum.reduceat(runs.peaks, begins),
    )
    found: list[list[Region]] = [[] for _ in range(count)]
    for j, *numbers in zip(*(column.tolist() for column in columns), strict=True):
        found[j].append(Region(*numbers))
    return [strongest_first(of_map) for of_map in found]


def _roots(runs: Runs, width: int) -> Places:
    """Find the first run of each run's 8-connected region."""
    # The maps are one picture, read as one line: with a free row after each map, and a free column after each row.
    height, width = int(runs.rows.max(initial=0)) + 2, width + 1
    lines = (runs.maps * height + runs.rows) * width
    starts, stops = lines + runs.starts, lines + runs.stops
    first = np.searchsorted(stops, starts - width)  # of those in the row above that it touches
    count = np.maximum(np.searchsorted(starts, stops - width, side="right") - first, 0)
    roots = _ends(np.where(count > 0, first, np.arange(len(starts))))
    # One that touches several joins their regions.
    lower = np.repeat(np.arange(len(starts)), np.maximum(count - 1, 0))
    upper = first[lower] + 1 + np.arange(len(lower)) - np.searchsorted(lower, lower)
    while len(lower):
        apart = roots[lower] != roots[upper]
        lower, upper = lower[apart], upper[apart]
        ours, theirs = roots[lower], roots[upper]
        np.minimum.at(roots, np.maximum(ours, theirs), np.minimum(ours, theirs))
        roots = _ends(roots)
    return roots


def _ends(roots: Places) -> Places:
    """The run at which each chain of runs ends."""
    while not np.array_equal(further := roots[roots], roots):
        roots = further
    return roots
