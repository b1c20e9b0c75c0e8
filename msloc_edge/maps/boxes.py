"""Regions to boxes, and boxes against boxes. A box is (x, y, width, height), N of them an array [N, 4].

IoU and IoBB are ratios of areas, so they do not change when an axis is scaled: they may be taken on a map's own grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.fuse import Array
from msloc_edge.maps.regions import Located, Region, regions, strongest_first
from msloc_edge.types import MIN_AREA, Box, Peak

Boxes = NDArray[np.float64]


def to_peak(located: Located, geometry: Geometry) -> Peak:
    """Give the highest pixel of a map in pixels of the stored image."""
    return Peak(*geometry.to_image(located.x, located.y), located.value)


def to_boxes(
    found: Iterable[Region],
    threshold: float,
    score: float,
    geometry: Geometry,
    label: str = "",
    *,
    min_area: int = MIN_AREA,
    min_share: float = 0.0,
) -> tuple[Box, ...]:
    """Make a box of each region that is large and strong enough, the strongest first.

    found                of one map, in pixels of the model's input
    threshold            that the regions exceed, logit units
    score, label         the finding's calibrated probability and name
    min_area, min_share  see `select_regions`
    returns              boxes in pixels of the stored image, scored by `box_scores`

    >>> strong, weak = Region(0, 0, 0, 8, 8, 64, 3.0), Region(20, 20, 0, 24, 4, 16, 2.0)
    >>> for box in to_boxes([strong, weak], 1.0, 0.8, Geometry.fit((64, 64), (32, 32))):
    ...     print(box.x, box.y, box.w, box.h, box.score)
    0.0 0.0 16.0 16.0 0.8
    40.0 0.0 8.0 8.0 0.4
    """
    kept = select_regions(found, threshold, min_area, min_share)
    scores = box_scores(kept, threshold, score)
    return tuple(Box(*geometry.box_to_image(*region.box), own, label) for region, own in zip(kept, scores, strict=True))


def find_boxes(
    map: Array,
    threshold: float,
    score: float,
    geometry: Geometry,
    label: str = "",
    *,
    min_area: int = MIN_AREA,
    min_share: float = 0.0,
) -> tuple[Box, ...]:
    """Find the boxes of a map [h, w] of the film's area alone, as a Result holds it: `regions`, then `to_boxes`."""
    area = replace(geometry, left=0, top=0)
    found = regions(map, threshold)
    return to_boxes(found, threshold, score, area, label, min_area=min_area, min_share=min_share)


def select_regions(
    found: Iterable[Region], threshold: float, min_area: int = MIN_AREA, min_share: float = 0.0
) -> list[Region]:
    """Select the regions that become boxes, the strongest first.

    found      of one map, in any order
    threshold  that they exceed, in units of the map
    min_area   smallest area, pixels of the map
    min_share  smallest rise of a region's peak above the threshold, as a share of the highest rise of those of
               `min_area`, 0 to 1
    """
    large = strongest_first(region for region in found if region.area >= min_area)
    least = min_share * (large[0].peak - threshold) if large and min_share else 0.0
    return [region for region in large if region.peak - threshold >= least]


def box_scores(found: Sequence[Region], threshold: float, score: float) -> list[float]:
    """Score the boxes of the regions of one map, the strongest first.

    The strongest region's box gets `score`; the others less, in proportion to how far their peaks rise above the
    threshold. Scores of boxes can so be compared within a film and between films.
    """
    highest = found[0].peak - threshold if found else 1.0
    return [score * ((region.peak - threshold) / highest) for region in found]


def as_boxes(boxes: Sequence[Sequence[float]] | Boxes) -> Boxes:
    """Make an array [N, 4] of boxes (x, y, width, height), also where there is none."""
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def array_of(boxes: Iterable[Box]) -> Boxes:
    """Make an array [N, 4] of boxes as results hold them."""
    return as_boxes([(box.x, box.y, box.w, box.h) for box in boxes])


def iou(detected: Boxes, true: Boxes) -> Boxes:
    """Intersection over union of every pair: [N, 4] and [M, 4] -> [N, M]; 0 where both are empty.

    >>> iou(as_boxes([(0, 0, 4, 4), (2, 0, 2, 2)]), as_boxes([(2, 0, 4, 4)]))  # 8 of 24 pixels, 4 of 16
    array([[0.33333333],
           [0.25      ]])
    """
    both = _intersection(detected, true)
    union = _area(detected)[:, None] + _area(true) - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def iobb(detected: Boxes, true: Boxes) -> Boxes:
    """Intersection over the detected box's area (Wang et al. 2017), every pair: [N, 4] and [M, 4] -> [N, M].

    >>> iobb(as_boxes([(0, 0, 4, 4), (2, 0, 2, 2)]), as_boxes([(2, 0, 4, 4)]))  # 8 of 16 pixels, 4 of 4
    array([[0.5],
           [1. ]])
    """
    both = _intersection(detected, true)
    area = np.broadcast_to(_area(detected)[:, None], both.shape)
    return np.divide(both, area, out=np.zeros_like(both), where=area > 0)


def agreement(first: Boxes, second: Boxes) -> float:
    """Smallest IoU when each box [N, 4] of either side takes its best partner.

    1 when both sides have none, 0 when one side has more than the other.
    """
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
