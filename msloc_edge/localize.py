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
    x, y = geometry.to_image(float(column) + 0.5 + left, float(row) + 0.5 + top)
    return Peak(x, y, float(localization_map[row, column]))


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
    # Labels and contours together take half the time of OpenCV's own statistics of the regions.
    _, labels = cv2.connectedComponents(regions, connectivity=8, ltype=cv2.CV_32S)
    contours, hierarchy = cv2.findContours(regions, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    first_row, first_column = origin or (geometry.top, geometry.left)
    found = []
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        left, top, width, height = cv2.boundingRect(contour)
        if parent >= 0 or width * height < MIN_AREA:  # with a parent it is the edge of a hole
            continue
        window, (column, row) = (slice(top, top + height), slice(left, left + width)), contour[0, 0]
        region = int(labels[row, column])
        mask = np.equal(labels[window], region).view(np.uint8)
        if cv2.countNonZero(mask) < MIN_AREA:
            continue
        _, peak, _, _ = cv2.minMaxLoc(crop[window], mask)
        box = left + x0 + first_column, top + y0 + first_row, width, height
        found.append((peak - threshold, -region, box))  # regions are numbered in reading order
    found.sort(reverse=True)
    return tuple(Box(*geometry.box_to_image(*box), score * (rise / found[0][0]), label) for rise, _, box in found)
