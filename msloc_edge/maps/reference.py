"""The plain form of regions, in OpenCV: every other form is tested against it, in whatever language and on any device.

It is as exact as the fast form and 1.2 to 9 times slower.
"""

from __future__ import annotations

import cv2
import numpy as np

from msloc_edge.maps.fuse import Array
from msloc_edge.maps.regions import Region, strongest_first


def regions(map: Array, threshold: float) -> list[Region]:
    """Find the 8-connected regions where a map [H, W] exceeds a threshold, as `maps.regions` does."""
    above = np.greater(map, np.float32(threshold)).view(np.uint8)
    _, labels, rectangles, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    found = []
    for label, (left, top, width, height, area) in enumerate(rectangles.tolist()):
        if label:  # 0 is the background
            part = slice(top, top + height), slice(left, left + width)
            inside = labels[part] == label
            first = top * map.shape[1] + left + int(inside[0].argmax())
            peak = float(map[part][inside].max())
            found.append(Region(first, left, top, left + width, top + height, area, peak))
    return strongest_first(found)
