"""From a localization map to boxes and a peak, in pixels of the stored image.

Thresholds are absolute: a map that nowhere reaches its class's threshold gives no box, and that is a valid result.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.geometry import Geometry
from msloc_edge.types import Box, Peak

MIN_AREA = 16
"""Smallest region that becomes a box, in input pixels: one cell of the finest stage's grid (4 x 4)."""


def find_peak(localization_map: NDArray[np.float32], geometry: Geometry) -> Peak:
    """The highest point of a map [h, w] over the film's area of the input: the centre of its pixel."""
    row, column = np.unravel_index(int(localization_map.argmax()), localization_map.shape)
    at = np.array([[column + 0.5 + geometry.left, row + 0.5 + geometry.top]])
    x, y = geometry.to_image(at)[0]
    return Peak(float(x), float(y), float(localization_map[row, column]))


def find_boxes(
    localization_map: NDArray[np.float32], threshold: float, score: float, geometry: Geometry, label: str = ""
) -> tuple[Box, ...]:
    """A box around each 8-connected region where the map exceeds `threshold`, strongest first.

    localization_map  [h, w], logit units, over the film's area of the input
    score, label      the finding's calibrated probability and name

    The strongest region's box gets the finding's score; the others less, in proportion to how far their peaks rise
    above the threshold. Scores of boxes can so be compared within a film and between films.
    """
    regions = np.greater(localization_map, threshold).view(np.uint8)
    x0, y0, across, down = cv2.boundingRect(regions)  # most maps rise above it in one corner, or nowhere
    part = slice(y0, y0 + down), slice(x0, x0 + across)
    regions, crop = regions[part], localization_map[part]
    if not regions.size:
        return ()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(regions, connectivity=8, ltype=cv2.CV_32S)
    found = []
    for region in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[region])
        if area < MIN_AREA:
            continue
        window = slice(top, top + height), slice(left, left + width)
        peak = float(crop[window][labels[window] == region].max())
        found.append((peak - threshold, (left + x0 + geometry.left, top + y0 + geometry.top, width, height)))
    found.sort(key=lambda item: -item[0])
    boxes = geometry.boxes_to_image(np.array([box for _, box in found], np.float64))
    return tuple(
        Box(float(x), float(y), float(w), float(h), score * (rise / found[0][0]), label)
        for (rise, _), (x, y, w, h) in zip(found, boxes, strict=True)
    )
