"""Maps and regions on the film's own pixels: the letterbox undone."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.objects.source import refused
from msloc_edge.result import Result
from msloc_edge.types import Box, Finding

_SAME = 1e-3
"""Largest distance between a region's box and a finding's that is the same, input pixels: result lines are rounded."""


def needed_maps(result: Result, kind: str) -> dict[str, NDArray[np.float32]]:
    """Give the maps of the positive findings, [h, w] of the film's area, in the order of `Result.positive`.

    Raises OutputError (object_refused) where there is no map of one.
    """
    labels = [finding.label for finding in result.positive]
    if not all(label in result.maps and label in result.map_thresholds for label in labels):
        raise refused(f"{kind}: expected a result with its maps, got one read from its line; localize the film again.")
    return {label: result.maps[label] for label in labels}


def map_on_film(map: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Enlarge a map [h, w] of the film's area to [image_height, image_width]: bilinear, pixel centres aligned."""
    size = geometry.image_width, geometry.image_height
    return np.asarray(cv2.resize(map, size, interpolation=cv2.INTER_LINEAR), np.float32)


def region_mask(finding: Finding, map: NDArray[np.float32], threshold: float, geometry: Geometry) -> NDArray[np.bool_]:
    """Mark the regions of a finding that became boxes, on the film: [image_height, image_width].

    map        [h, w] of the film's area
    threshold  of the map, that regions exceed

    A pixel of the film belongs to a region where its centre lies in a pixel of the map that does, so that the region's
    box is the finding's, to half a pixel of the film.
    """
    kept = _kept_regions(finding, map, threshold, geometry)
    rows = _nearest(geometry.image_height, geometry.height)
    columns = _nearest(geometry.image_width, geometry.width)
    return kept[rows[:, None], columns]


def contours(
    finding: Finding, map: NDArray[np.float32], threshold: float, geometry: Geometry
) -> list[NDArray[np.float64]]:
    """Trace where the enlarged map crosses its threshold around the regions of a finding.

    returns  closed outlines [N, 2] as (x, y) in pixels of the stored image, the first point also the last
    """
    above = (map_on_film(map, geometry) > threshold).astype(np.uint8)
    mask = region_mask(finding, map, threshold, geometry)
    _, labels = cv2.connectedComponents(above, connectivity=8)
    wanted = np.isin(labels, np.unique(labels[mask & (labels > 0)])) & (labels > 0)
    found, _ = cv2.findContours(wanted.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    traced = [cv2.approxPolyDP(line, 0.7, True)[:, 0, :] + 0.5 for line in found]
    return [np.concatenate([line, line[:1]]) for line in traced if len(line) >= 3]


def box_outline(box: Box, geometry: Geometry) -> NDArray[np.float64]:
    """Go around a box, held inside the film: [5, 2] as (x, y) in pixels of the stored image, the last point the first.

    >>> box_outline(Box(1, 2, 3, 9, 0.5), Geometry.fit((10, 8), (10, 8))).tolist()
    [[1.0, 2.0], [4.0, 2.0], [4.0, 10.0], [1.0, 10.0], [1.0, 2.0]]
    """
    left, top = box.x, box.y
    right, bottom = min(left + box.w, geometry.image_width), min(top + box.h, geometry.image_height)
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float64)


def _kept_regions(
    finding: Finding, map: NDArray[np.float32], threshold: float, geometry: Geometry
) -> NDArray[np.bool_]:
    above = (map > np.float32(threshold)).astype(np.uint8)
    count, labels, found, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    area = replace(geometry, left=0, top=0)
    kept = [
        number
        for number in range(1, count)
        if any(_same(area.box_to_image(*_box_of(found[number])), box, geometry) for box in finding.boxes)
    ]
    return np.isin(labels, kept)


def _box_of(row: NDArray[np.int32]) -> tuple[float, float, float, float]:
    """Give x, y, width, height of a component as OpenCV counts it."""
    x, y, width, height = (float(value) for value in row[:4])
    return x, y, width, height


def _same(region: tuple[float, float, float, float], box: Box, geometry: Geometry) -> bool:
    limit = max(1 / scale for scale in geometry.scale) * _SAME + 1e-3
    return max(abs(a - b) for a, b in zip(region, (box.x, box.y, box.w, box.h), strict=True)) <= limit


def _nearest(image: int, area: int) -> NDArray[np.intp]:
    """Index of the map's pixel that holds the centre of each pixel of the film, along one axis."""
    return np.minimum(((np.arange(image) + 0.5) * area / image).astype(np.intp), area - 1)
