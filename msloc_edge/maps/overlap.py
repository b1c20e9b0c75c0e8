"""Boxes against boxes. A box is (x, y, width, height), N of them an array [N, 4].

IoU and IoBB are ratios of areas, so they do not change when an axis is scaled: they may be taken on a map's own grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from msloc_edge.types import Box

Boxes = NDArray[np.float64]


def as_boxes(boxes: Sequence[Sequence[float]] | Boxes) -> Boxes:
    """[N, 4], also where there is none."""
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def array_of(boxes: Iterable[Box]) -> Boxes:
    """[N, 4] of boxes as results hold them."""
    return as_boxes([(box.x, box.y, box.w, box.h) for box in boxes])


def iou(detected: Boxes, true: Boxes) -> Boxes:
    """Intersection over union of every pair: [N, 4] and [M, 4] -> [N, M]; 0 where both are empty."""
    both = _intersection(detected, true)
    union = _area(detected)[:, None] + _area(true) - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def iobb(detected: Boxes, true: Boxes) -> Boxes:
    """Intersection over the detected box's area (Wang et al. 2017): [N, 4] and [M, 4] -> [N, M]."""
    both = _intersection(detected, true)
    area = np.broadcast_to(_area(detected)[:, None], both.shape)
    return np.divide(both, area, out=np.zeros_like(both), where=area > 0)


def agreement(first: Boxes, second: Boxes) -> float:
    """The smallest IoU when every box of either side takes its best partner; 1 when both sides have none, 0 when one
    has more than the other."""
    if len(first) != len(second):
        return 0.0
    table = iou(first, second)
    return float(min(table.max(axis=0).min(), table.max(axis=1).min())) if len(first) else 1.0


def _area(boxes: Boxes) -> Boxes:
    return boxes[:, 2] * boxes[:, 3]


def _intersection(first: Boxes, second: Boxes) -> Boxes:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    return np.clip(high - low, 0, None).prod(axis=2)
