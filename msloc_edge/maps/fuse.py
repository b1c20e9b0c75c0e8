"""fuse_cams on the CPU: localization maps, computed at their knots and enlarged only where they are looked at.

A map is bilinear between knots: the centres of its stages' cells. Where each stage's cells are twice as large as those
of the stage before, the knots of all stages lie on one lattice that begins at the map's corner, half a finest cell
apart. There the stages are added, on a quarter of the pixels or less, and the sum is enlarged once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Part = tuple[slice, slice]
"""Rows and columns of a map, each with a start and a stop inside it."""

TENT = np.array([0.5, 1, 0.5], np.float32)
"""The filter that interpolates linearly: where 0 stands between two values, it puts their mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Localization maps M_k of J classes of one image, in logit units.

    values  [J, a, b] at the knots, from the top-left corner of the map to its bottom-right one
    step    pixels from knot to knot, an even number; 0: `values` are the pixels themselves
    """

    values: Array
    step: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a map."""
        height, width = self.values.shape[1:]
        return ((height - 1) * self.step, (width - 1) * self.step) if self.step else (height, width)

    def dense(self) -> Array:
        """All pixels of all maps: [J, H, W]."""
        if not self.step:
            return self.values
        rows, columns = (slice(0, side) for side in self.size)
        return np.stack([self.pixels(j, (rows, columns)) for j in range(len(self.values))])

    def knots(self, part: Part) -> Part:
        """Knots between which the pixels of a part lie."""
        if not self.step:
            return part
        rows, columns = (slice(span.start // self.step, -(-span.stop // self.step) + 1) for span in part)
        return rows, columns

    def pixels(self, j: int, part: Part) -> Array:
        """A part of map `j`: [h, w]."""
        around, beside = self.knots(part)
        knots = self.values[j, around, beside]
        if not self.step:
            return knots
        size = knots.shape[1] * self.step, knots.shape[0] * self.step
        enlarged = np.asarray(cv2.resize(knots, size, interpolation=cv2.INTER_LINEAR), np.float32)
        # cv2's first pixel lies half a step before the first knot, the map's first one half a pixel after it.
        rows, columns = part
        y = rows.start - around.start * self.step + self.step // 2
        x = columns.start - beside.start * self.step + self.step // 2
        return enlarged[y : y + rows.stop - rows.start, x : x + columns.stop - columns.start]

    def highest(self, j: int, within: Part) -> tuple[int, int, float]:
        """Find the highest pixel in a part of map `j`, of equal ones the first in reading order: row, column and value.

        No pixel is higher than all knots around it, so that rows whose knots are lower than some pixel need no look.
        """
        (rows, columns), (around, beside) = within, self.knots(within)
        tops = self.values[j, around, beside].max(axis=1)
        at = int(tops.argmax())
        reached = self.pixels(j, (self._beside(at, at, rows), columns)).max()
        near = np.flatnonzero(~(tops < reached))  # NaN is not lower
        rows = self._beside(int(near[0]), int(near[-1]), rows) if len(near) else rows
        pixels = self.pixels(j, (rows, columns))
        row, column = divmod(int(pixels.argmax()), pixels.shape[1])
        return rows.start + row, columns.start + column, float(pixels[row, column])

    def _beside(self, first: int, last: int, within: slice) -> slice:
        """Rows of pixels within some, beside a first to a last of the rows of knots around these."""
        if not self.step:
            return slice(within.start + first, within.start + last + 1)
        first, last = (within.start // self.step + row for row in (first, last))
        return slice(max((first - 1) * self.step, within.start), min((last + 1) * self.step, within.stop))


def fuse_cams(cams: Sequence[Array], relevance: Array, size: tuple[int, int], classes: Sequence[int]) -> Maps:
    """Fuse the class maps of one image: M_k = sum_s w_{k,s} up(A_{k,s}).

    up is bilinear, with half-pixel centres, clamped at the edge.

    cams       S arrays [K, h_s, w_s], unweighted
    relevance  [K, S]
    size       (H, W) of the maps
    classes    the J class indices wanted

    >>> cams = [np.float32([[[0, 4], [0, 4]]]), np.float32([[[2]]])]  # one class, stages of 2 x 2 and 1 x 1
    >>> fuse_cams(cams, np.float32([[0.75, 0.25]]), (4, 4), [0]).dense()[0, 0]
    array([0.5 , 1.25, 2.75, 3.5 ], dtype=float32)
    """
    cell = size[0] // cams[0].shape[1]
    if not len(classes) or cell % 4 or not _doubling([size, *(cam.shape[1:] for cam in cams)], cell):
        return Maps(_pixels(cams, relevance, size, classes))
    total: Array | None = None
    for stage in reversed(range(len(cams))):
        total = _finer(cams[stage], relevance[:, stage], total, classes)
    assert total is not None
    return Maps(total, cell // 2)


def _finer(cams: Array, weights: Array, total: Array | None, classes: Sequence[int]) -> Array:
    """A stage's weighted maps [J, h, w] and the total of coarser ones [J, h + 1, w + 1], at points half as far apart.

    The stage's knots are the centres of its cells, the total's the corners, so that they can stand on one lattice
    [J, 2 h + 1, 2 w + 1] with zeros between. What interpolates the one interpolates the other: one filter does both.
    """
    _, height, width = cams.shape
    lattice = np.zeros((len(classes), 2 * height + 3, 2 * width + 3), np.float32)  # with a border, cut off at the end
    for points, k in zip(lattice, classes, strict=True):
        np.multiply(cams[k], weights[k], out=points[2:-2:2, 2:-2:2])
    for border, centre in ((0, 2), (-1, -3)):  # beyond the outermost centres a map goes on as it ends
        lattice[:, border] = lattice[:, centre]
        lattice[:, :, border] = lattice[:, :, centre]
    if total is not None:
        lattice[:, 1:-1:2, 1:-1:2] = total
    finer: Array = np.asarray(cv2.sepFilter2D(lattice.reshape(-1, 2 * width + 3), -1, TENT, TENT), np.float32)
    finer = finer.reshape(lattice.shape)
    return finer[:, 1:-1, 1:-1]


def _pixels(cams: Sequence[Array], relevance: Array, size: tuple[int, int], classes: Sequence[int]) -> Array:
    """The maps of any stages, each enlarged by itself: [J, H, W].

    cv2's INTER_LINEAR is the same operation as torch's bilinear with align_corners=False.
    """
    maps = np.zeros((len(classes), *size), np.float32)
    for whole, k in zip(maps, classes, strict=True):
        for cam, weight in zip(cams, relevance[k], strict=True):
            whole += cv2.resize(cam[k] * weight, size[::-1], interpolation=cv2.INTER_LINEAR)
    return maps


def _doubling(sides: Sequence[tuple[int, ...]], cell: int) -> bool:
    """True where both axes shrink by `cell` from the map to the first stage, and by 2 from each stage to the next."""
    factors = [cell] + [2] * (len(sides) - 2)
    return all(
        fine == factor * coarse
        for factor, pair in zip(factors, pairwise(sides), strict=True)
        for fine, coarse in zip(*pair, strict=True)
    )
