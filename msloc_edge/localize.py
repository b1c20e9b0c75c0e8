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


def find_peak(localization_map: NDArray[np.float32], geometry: Geometry, origin: tuple[int, int] | None = None) -> Peak:
    """The highest point of a map [h, w]: the centre of its pixel.

    origin  (row, column) of the map's first pixel in the model's input; None: the film's
    """
    top, left = origin or (geometry.top, geometry.left)
    row, column = np.unravel_index(int(localization_map.argmax()), localization_map.shape)
    at = np.array([[column + 0.5 + left, row + 0.5 + top]])
    x, y = geometry.to_image(at)[0]
    return Peak(float(x), float(y), float(localization_map[row, column]))


def find_boxes(
    localization_map: NDArray[np.float32],
    threshold: float,
    score: float,
    geometry: Geometry,
    label: str = "",
    origin: tuple[int, int] | None = None,
) -> tuple[Box, ...]:
    """A box around each 8-connected region where the map exceeds `threshold`, strongest first.

    localization_map  [h, w], logit units
    score, label      the finding's calibrated probability and name
    origin            (row, column) of the map's first pixel in the model's input; None: the film's

    The strongest region's box gets the finding's score; the others less, in proportion to how far their peaks rise
    above the threshold. Scores of boxes can so be compared within a film and between films.
    """
    regions = np.greater(localization_map, threshold).view(np.uint8)
    x0, y0, across, down = cv2.boundingRect(regions)  # most maps rise above it in one corner, or nowhere
    part = slice(y0, y0 + down), slice(x0, x0 + across)
    regions, crop = regions[part], localization_map[part]
    if not regions.size:
        return ()
    # Grana's algorithm takes half the time of the one that OpenCV chooses by itself.
    count, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(regions, 8, cv2.CV_32S, cv2.CCL_GRANA)
    first_row, first_column = origin or (geometry.top, geometry.left)
    found = []
    for region, (left, top, width, height, area) in enumerate(stats.tolist()[1:count], 1):
        if area < MIN_AREA:
            continue
        window = slice(top, top + height), slice(left, left + width)
        _, peak, _, _ = cv2.minMaxLoc(crop[window], np.equal(labels[window], region).view(np.uint8))
        found.append((peak - threshold, (left + x0 + first_column, top + y0 + first_row, width, height)))
    found.sort(key=lambda item: -item[0])
    boxes = geometry.boxes_to_image(np.array([box for _, box in found], np.float64))
    return tuple(
        Box(float(x), float(y), float(w), float(h), score * (rise / found[0][0]), label)
        for (rise, _), (x, y, w, h) in zip(found, boxes, strict=True)
    )
