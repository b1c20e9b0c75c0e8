"""From localization maps to boxes and peaks: found in pixels of the model's input, given in pixels of the stored image.

Thresholds are absolute: a map that nowhere reaches its class's threshold gives no box, and that is a valid result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.fuse import Maps, Part
from msloc_edge.maps.runs import Places, Runs, find_runs
from msloc_edge.types import Box, Peak

MIN_AREA = 16
"""Smallest region that becomes a box, in input pixels: one cell of the finest stage's grid (4 x 4)."""


class Region(NamedTuple):
    """An 8-connected region where a map exceeds its threshold, in pixels of the model's input.

    first                     the place of its first pixel in reading order: a key with that order
    left, top, right, bottom  the smallest rectangle around it; right and bottom are exclusive
    area                      pixels
    peak                      the map's highest value in it, logit units
    """

    first: int
    left: int
    top: int
    right: int
    bottom: int
    area: int
    peak: float


class Located(NamedTuple):
    """What a map shows: its highest pixel (of equal ones the first in reading order), and its regions.

    x, y     the pixel's centre, pixels of the model's input
    value    logit units
    regions  those of at least MIN_AREA pixels, the strongest first, of equal ones the first in reading order
    """

    x: float
    y: float
    value: float
    regions: tuple[Region, ...]


def locate(maps: Maps, thresholds: Sequence[float], content: Part) -> list[Located]:
    """What each map shows within `content`, rows and columns of the model's input: at least one pixel."""
    runs = find_runs(maps, thresholds, content)
    regions = _regions(runs, len(thresholds), content)
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
        located.append(Located(column + 0.5, row + 0.5, value, tuple(regions[j])))
    return located


def _regions(runs: Runs, count: int, content: Part) -> list[list[Region]]:
    """The regions of `count` maps in the order of `Located`."""
    # The maps are one picture, read as one line: with a free row after each map, and a free column after each row.
    height, width = content[0].stop + 1, content[1].stop + 1
    lines = (runs.maps * height + runs.rows) * width
    starts, stops = lines + runs.starts, lines + runs.stops
    roots = _roots(starts, stops, width)
    areas = np.bincount(roots, stops - starts, len(roots))
    members = np.flatnonzero(areas[roots] >= MIN_AREA)
    members = members[roots[members].argsort(kind="stable")]  # region by region
    runs, roots = runs.at(members), roots[members]
    begins = np.flatnonzero(np.append(True, roots[1:] != roots[:-1])[: len(roots)])
    columns = (
        runs.maps[begins],
        runs.rows[begins] * width + runs.starts[begins],
        np.minimum.reduceat(runs.starts, begins),
        runs.rows[begins],
        np.maximum.reduceat(runs.stops, begins),
        np.maximum.reduceat(runs.rows, begins) + 1,
        areas[roots[begins]].astype(np.intp),
        np.maximum.reduceat(runs.peaks, begins),
    )
    found: list[list[Region]] = [[] for _ in range(count)]
    for j, *numbers in zip(*(column.tolist() for column in columns), strict=True):
        found[j].append(Region(*numbers))
    for regions in found:
        regions.sort(key=lambda region: -region.peak)  # equal ones stay in reading order
    return found


def _roots(starts: Places, stops: Places, width: int) -> Places:
    """For each run of a picture read as one line: the first run of its 8-connected region."""
    first = np.searchsorted(stops, starts - width)  # of those in the row above that it touches
    count = np.maximum(np.searchsorted(starts, stops - width, side="right") - first, 0)
    roots = _followed(np.where(count > 0, first, np.arange(len(starts))))
    # One that touches several joins their regions.
    lower = np.repeat(np.arange(len(starts)), np.maximum(count - 1, 0))
    upper = first[lower] + 1 + np.arange(len(lower)) - np.searchsorted(lower, lower)
    while len(lower):
        apart = roots[lower] != roots[upper]
        lower, upper = lower[apart], upper[apart]
        ours, theirs = roots[lower], roots[upper]
        np.minimum.at(roots, np.maximum(ours, theirs), np.minimum(ours, theirs))
        roots = _followed(roots)
    return roots


def _followed(roots: Places) -> Places:
    """Where each chain of numbers ends."""
    while not np.array_equal(further := roots[roots], roots):
        roots = further
    return roots


def to_peak(located: Located, geometry: Geometry) -> Peak:
    """The highest point of a map, in pixels of the stored image."""
    return Peak(*geometry.to_image(located.x, located.y), located.value)


def to_boxes(located: Located, threshold: float, score: float, geometry: Geometry, label: str = "") -> tuple[Box, ...]:
    """A box around each region, in pixels of the stored image, the strongest first.

    threshold     what the regions exceed, logit units
    score, label  the finding's calibrated probability and name

    The strongest region's box gets the finding's score; the others less, in proportion to how far their peaks rise
    above the threshold. Scores of boxes can so be compared within a film and between films.
    """
    if not located.regions:
        return ()
    highest = located.regions[0].peak - threshold
    return tuple(
        Box(
            *geometry.box_to_image(left, top, right - left, bottom - top),
            score * ((peak - threshold) / highest),
            label,
        )
        for _, left, top, right, bottom, _, peak in located.regions
    )


def find_peak(localization_map: NDArray[np.float32], geometry: Geometry) -> Peak:
    """The highest point of a map [h, w] of the film's area alone, in logit units: the centre of its pixel."""
    return to_peak(_alone(localization_map, np.inf), replace(geometry, left=0, top=0))


def find_boxes(
    localization_map: NDArray[np.float32], threshold: float, score: float, geometry: Geometry, label: str = ""
) -> tuple[Box, ...]:
    """The boxes of a map [h, w] of the film's area alone, in logit units: see `to_boxes`."""
    return to_boxes(_alone(localization_map, threshold), threshold, score, replace(geometry, left=0, top=0), label)


def _alone(localization_map: NDArray[np.float32], threshold: float) -> Located:
    height, width = localization_map.shape
    return locate(Maps(localization_map[None]), [threshold], (slice(0, height), slice(0, width)))[0]
