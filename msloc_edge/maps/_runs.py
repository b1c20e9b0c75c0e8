"""Runs of pixels along a map's rows that exceed its threshold, found between knots.

Only rows are enlarged. Along a row a map is linear from knot to knot: of the pixels between two knots all exceed the
threshold if both knots do, those on one side if one does; and the first or the last of them is the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps.fuse import Array, Maps, Part

Places = NDArray[np.intp]


class Runs(NamedTuple):
    """Pixels side by side that exceed a threshold, map by map in reading order: N runs.

    maps, rows     where each run is
    starts, stops  its first column, and the one after its last
    peaks          its highest pixel, logit units
    """

    maps: Places
    rows: Places
    starts: Places
    stops: Places
    peaks: Array

    def at(self, chosen: Places) -> Runs:
        """Some of the runs, by their numbers [n]."""
        maps, rows, starts, stops, peaks = self
        return Runs(maps[chosen], rows[chosen], starts[chosen], stops[chosen], peaks[chosen])


def find_runs(maps: Maps, thresholds: Sequence[float], within: Part) -> Runs:
    """Find the pixels in a part of each map that exceed its threshold; NaN never does."""
    (around, beside), step = maps.knots(within), maps.step or 1
    knots, limits = maps.values[:, around, beside], np.array(thresholds, np.float32)
    line = 1 + knots.shape[2]
    tops = knots.max(axis=2)
    found = []
    for j, limit in enumerate(limits):
        reaching = np.flatnonzero(~(tops[j] <= limit))  # NaN may hide what is higher
        if len(reaching):
            first = max(int(reaching[0]) - 1, 0)
            lines = _lines(knots[j, first : int(reaching[-1]) + 2], maps.step)
            above = lines > limit
            changes = np.flatnonzero(above[1:] != above[:-1])  # before a run and at its end, in turns
            peaks = _peaks(lines, changes, line, maps.step, within[1])
            owner = np.full(len(changes), j)
            found.append((owner, changes + first * step * line, lines[changes], lines[changes + 1], peaks))
    if not found:
        none = np.empty(0, np.intp)
        return Runs(none, none, none, none, np.empty(0, np.float32))
    owners, changes, here, there, peaks = (np.concatenate(column) for column in zip(*found, strict=True))
    above = _above(here, there, limits[owners], maps.step)
    rows = changes // line
    columns = (changes - rows * line + beside.start) * step
    rows = rows[::2] + around.start * step
    starts = np.maximum(columns[::2] - above[::2], within[1].start)
    stops = np.minimum(columns[1::2] - step + above[1::2], within[1].stop)
    inside = (starts < stops) & (rows >= within[0].start) & (rows < within[0].stop)
    return merge_adjacent(Runs(owners[::2], rows, starts, stops, peaks).at(np.flatnonzero(inside)))


def _lines(knots: Array, step: int) -> Array:
    """Rows of pixels between knots [a, b], in their columns, as one line: -inf before each row and at the end."""
    height, width = knots.shape
    lines = np.empty(((height - 1) * step if step else height) * (1 + width) + 1, np.float32)
    table = lines[:-1].reshape(-1, 1 + width)
    table[:, 0] = lines[-1] = -np.inf
    if not step:
        table[:, 1:] = knots
    for row, weight in enumerate(_weights(step)):  # not by cv2.resize, which makes NaN beside an infinity
        cv2.addWeighted(knots[:-1], 1 - weight, knots[1:], weight, 0, dst=table[row::step, 1:])
    return lines


def _above(here: Array, there: Array, limits: Array, step: int) -> NDArray[np.intp]:
    """Count the pixels between two knots that exceed a limit; where knots are pixels, the first is between."""
    if not step:
        return (here > limits).astype(np.intp)
    above = np.zeros(len(here), np.intp)
    with np.errstate(invalid="ignore"):  # between infinities of both signs
        for weight in _weights(step):
            above += (1 - weight) * here + weight * there > limits
    return above


def _peaks(lines: Array, changes: Places, line: int, step: int, columns: slice) -> Array:
    """The highest pixel of each run, from the change before it to that at its end, in some columns."""
    if not step:
        return _maxima(lines, changes + 1)
    highest = _higher(lines[:-1], lines[1:], step, 0, step - 1)
    table, knots, end = highest.reshape(-1, line), lines[:-1].reshape(-1, line), line - 2
    for at in {1, end}:  # of the pixels between the outermost knots, some may be outside
        first = columns.start % step if at == 1 else 0
        last = (columns.stop - 1) % step if at == end else step - 1
        if last - first < step - 1:
            table[:, at] = _higher(knots[:, at], knots[:, at + 1], step, first, last)
    ends = changes.copy()
    ends[1::2] += 1
    return _maxima(highest, ends)


def _higher(here: Array, there: Array, step: int, first: int, last: int) -> Array:
    """The higher one of the first and the last of some pixels between two knots."""
    weights = _weights(step)
    a, b = (cv2.addWeighted(here, 1 - weights[at], there, weights[at], 0) for at in (first, last))
    return np.fmax(a, b, out=a).ravel()


def _maxima(values: Array, ends: Places) -> Array:
    """The highest of the values from the first to before the second of each pair of ends."""
    if len(ends) and ends[-1] == len(values):
        ends = ends[:-1]
    return np.fmax.reduceat(values, ends)[::2]


def _weights(step: int) -> list[float]:
    """Weights of the second of two knots in the pixels between them."""
    return [(pixel + 0.5) / step for pixel in range(step)]


def merge_adjacent(runs: Runs) -> Runs:
    """Merge each run with the next where that begins at its end, as a knot may be lower than the pixels around it."""
    apart = (runs.starts[1:] != runs.stops[:-1]) | (runs.rows[1:] != runs.rows[:-1]) | (runs.maps[1:] != runs.maps[:-1])
    if apart.all():
        return runs
    begins, ends = np.flatnonzero(np.append(True, apart)), np.append(apart, True)
    return runs.at(begins)._replace(stops=runs.stops[ends], peaks=np.fmax.reduceat(runs.peaks, begins))
