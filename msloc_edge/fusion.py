"""fuse_cams on the CPU: localization maps, computed at their knots and enlarged only where they are looked at.

A map is bilinear between knots: the centres of its stages' cells. Where each stage's cells are twice as large as those
of the stage before, the knots of all stages lie on one lattice that begins at the map's corner, half a finest cell
apart. There the stages are added, on a quarter of the pixels or less, and the sum is enlarged once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Part = tuple[slice, slice]
"""Rows and columns of a map, each with a start and a stop inside it."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Localization maps M_k of J classes of one image, in logit units.

    values  [J, a, b] at the knots, from the top-left corner of the map to its bottom-right one
    step    pixels from knot to knot; 0: `values` are the pixels themselves
    """

    values: Array
    step: int = 0

    def dense(self) -> Array:
        """All pixels of all maps: [J, H, W]."""
        if not self.step:
            return self.values
        rows, columns = (slice(0, (side - 1) * self.step) for side in self.values.shape[1:])
        return np.stack([self.pixels(j, (rows, columns)) for j in range(len(self.values))])

    def pixels(self, j: int, part: Part) -> Array:
        """A part of map `j`: [h, w]."""
        rows, columns = part
        if not self.step:
            return self.values[j, rows, columns]
        (top, down), (left, right) = ((span.start // self.step, -(-span.stop // self.step) + 1) for span in part)
        around = self.values[j, top:down, left:right]
        size = around.shape[1] * self.step, around.shape[0] * self.step
        enlarged = np.asarray(cv2.resize(around, size, interpolation=cv2.INTER_LINEAR), np.float32)
        # cv2's first pixel lies half a step before the first knot, the map's first one half a pixel after it.
        y, x = (span.start - first * self.step + self.step // 2 for span, first in ((rows, top), (columns, left)))
        return enlarged[y : y + rows.stop - rows.start, x : x + columns.stop - columns.start]

    def salient(self, j: int, threshold: float, within: Part) -> tuple[Array, tuple[int, int]]:
        """All that matters of map `j` within a part of it: the pixels [h, w] of a part of that, and its (row, column).

        Nothing outside exceeds `threshold`, and the peak is inside.
        """
        x, y, width, height = cv2.boundingRect(np.greater(self.values[j], threshold).view(np.uint8))
        if width:
            part = self._around(y, y + height, within[0]), self._around(x, x + width, within[1])
            found = self.pixels(j, part)
            if found.size and found.max() > threshold:
                return found, (part[0].start, part[1].start)
        return self.pixels(j, within), (within[0].start, within[1].start)

    def _around(self, start: int, stop: int, within: slice) -> slice:
        """The pixels that these knots take part in; each is a weighted mean of those around it."""
        if self.step:
            start, stop = (start - 1) * self.step, stop * self.step
        start = min(max(start, within.start), within.stop)
        return slice(start, max(start, min(stop, within.stop)))


class Labelled(Mapping[str, Array]):
    """label -> map [h, w] over one part, enlarged when it is looked at."""

    def __init__(self, maps: Maps, labels: Sequence[str], part: Part) -> None:
        self._maps, self._order, self._part = maps, {label: j for j, label in enumerate(labels)}, part

    def __getitem__(self, label: str) -> Array:
        return self._maps.pixels(self._order[label], self._part)

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


def fuse_cams(cams: Sequence[Array], relevance: Array, size: tuple[int, int], classes: Sequence[int]) -> Maps:
    """M_k = sum_s w_{k,s} up(A_{k,s}) for one image: up is bilinear, half-pixel centres, clamped at the edge.

    cams       S arrays [K, h_s, w_s], unweighted
    relevance  [K, S]
    size       (H, W) of the maps
    classes    the J class indices wanted
    """
    wanted = np.asarray(classes, np.intp)
    weighted = [cam[wanted] * relevance[wanted, stage, None, None] for stage, cam in enumerate(cams)]
    cell = size[0] // weighted[0].shape[1]
    if not len(wanted) or cell % 4 or not _doubling([size, *(cam.shape[1:] for cam in weighted)], cell):
        return Maps(_pixels(weighted, size))
    total: Array | None = None
    for stage in reversed(weighted):
        finer = _halved(stage, border=1)
        total = finer if total is None else np.add(finer, _halved(total, border=0), out=finer)
    assert total is not None
    return Maps(total, cell // 2)


def _pixels(weighted: Sequence[Array], size: tuple[int, int]) -> Array:
    """The maps of any stages [J, h_s, w_s], each enlarged by itself.

    cv2's INTER_LINEAR is the same operation as torch's bilinear with align_corners=False.
    """
    maps = np.zeros((len(weighted[0]), *size), np.float32)
    for stage in weighted:
        for whole, cam in zip(maps, stage, strict=True):
            whole += cv2.resize(cam, size[::-1], interpolation=cv2.INTER_LINEAR)
    return maps


def _doubling(sides: Sequence[tuple[int, ...]], cell: int) -> bool:
    """Whether both axes shrink by `cell` from the map to the first stage, and by 2 from each stage to the next."""
    factors = [cell] + [2] * (len(sides) - 2)
    return all(
        fine == factor * coarse
        for factor, pair in zip(factors, pairwise(sides), strict=True)
        for fine, coarse in zip(*pair, strict=True)
    )


def _halved(values: Array, border: int) -> Array:
    """The same bilinear functions [J, a, b] at points half as far apart: [J, 2 a - 1 + 2 border, 2 b - 1 + 2 border].

    border  1: half a step beyond the outermost points as well, where the function goes on as it ends
    """
    for axis in (2, 1):  # columns first: while there are few rows, as these are written in pieces
        count = values.shape[axis]
        sides = [2 * side - 1 + 2 * border if axis == a else side for a, side in enumerate(values.shape)]
        finer = np.empty(sides, np.float32)
        before, after = np.moveaxis(values, axis, 0), np.moveaxis(finer, axis, 0)
        after[border : border + 2 * count - 1 : 2] = before
        between = after[border + 1 : border + 2 * count - 2 : 2]
        np.add(before[:-1], before[1:], out=between)
        between *= 0.5
        if border:
            after[0], after[-1] = before[0], before[-1]
        values = finer
    return values
