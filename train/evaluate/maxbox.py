"""MaxBoxAccV2 (Choe et al. 2020, arXiv 2007.04178, section 4.2).

The share of films on which some box of the map reaches IoU delta with some true box, at the map threshold that is best
over the whole data set; the mean over delta = .3, .5, .7. The threshold is fitted on the boxes that are scored: this is
a ceiling, what the maps would give under the best of all fixed thresholds, and no figure of a model in use.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps import regions
from msloc_edge.maps.boxes import Boxes, as_boxes, iou

DELTAS = (0.3, 0.5, 0.7)
LEVELS = tuple(round(n / 25, 2) for n in range(25))
"""Thresholds on the map scaled to [0, 1] by its own minimum and maximum (the paper's code takes 1000 of them)."""

SIDE = 224
"""The grid on which boxes are found, as in the paper's code."""


def best_ious(map: NDArray[np.float32], true: Boxes) -> NDArray[np.float64]:
    """Find the highest IoU of any box of a map [h, w] with any true box [M, 4] (in its pixels), at each level [25];
    exact where it reaches the lowest delta, and below it either the IoU or 0."""
    low, high = float(map.min()), float(map.max())
    best = np.zeros(len(LEVELS))
    if not high > low:
        return best
    height, width = map.shape
    if max(height, width) > SIDE:
        true = true * np.tile([SIDE / width, SIDE / height], 2)
        map = cv2.resize(map, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
        low, high = float(map.min()), float(map.max())
    found: list[tuple[float, float, float, float]] = []
    levels: list[int] = []
    left, top = 0, 0
    for at, level in enumerate(LEVELS):
        threshold = low + (high - low) * level
        x, y, across, down = cv2.boundingRect((map > threshold).view(np.uint8))
        map, left, top = map[y : y + down, x : x + across], left + x, top + y  # the next level's lies within
        if not _can_reach((left, top, across, down), true):
            break
        boxes = [region.box for region in regions(map, threshold)]
        found += [(x + left, y + top, w, h) for x, y, w, h in boxes]
        levels += [at] * len(boxes)
    if found:
        np.maximum.at(best, levels, iou(as_boxes(found), true).max(axis=1))
    return best


def _can_reach(around: tuple[int, int, int, int], true: Boxes) -> bool:
    """True where a box within `around` can reach the lowest delta with some true box.

    IoU is at most the share of the true box that lies within. In plain numbers, as it is asked at every level.
    """
    left, top, across, down = around
    for x, y, w, h in true.tolist():
        width, height = min(left + across, x + w) - max(left, x), min(top + down, y + h) - max(top, y)
        if width > 0 and height > 0 and width * height >= DELTAS[0] * w * h:
            return True
    return False


def max_box_acc(hits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Find the best level of the macro hits [B, levels, deltas]: the share there, and the level [B, deltas]."""
    best = np.nan_to_num(hits, nan=-1).argmax(axis=1)
    return np.take_along_axis(hits, best[:, None], axis=1)[:, 0], best
