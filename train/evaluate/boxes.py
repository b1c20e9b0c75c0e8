"""Boxes around the regions of a mask. A box is (x, y, width, height)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps.overlap import Boxes, as_boxes
from msloc_edge.maps.regions import MIN_AREA


def region_boxes(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """The bounding box of every 8-connected region of a mask [h, w], in its pixels.

    The same boxes as those of cv2.connectedComponentsWithStats, from the outlines: a sixth of the time.
    """
    outlines, levels = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parents = levels[0, :, 3].tolist() if outlines else []  # an outline with a parent is that of a hole
    boxes = [cv2.boundingRect(line) for line, parent in zip(outlines, parents, strict=True) if parent < 0]
    return [(x, y, w, h) for x, y, w, h in boxes]


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The 8-connected regions of a map where its margin is above 0, those of at least 16 pixels as in `localize`.

    boxes  [R, 4] in pixels of the map
    areas  [R] pixels
    peaks  [R] the highest margin of each
    """

    boxes: Boxes
    areas: NDArray[np.float64]
    peaks: NDArray[np.float64]

    @classmethod
    def of(cls, margin: NDArray[np.float32]) -> Regions:
        """The regions of a margin [h, w]."""
        mask = np.greater(margin, 0).view(np.uint8)
        x, y, across, down = cv2.boundingRect(mask)
        mask, margin = mask[y : y + down, x : x + across], margin[y : y + down, x : x + across]
        if not mask.size:
            return cls(as_boxes([]), np.zeros(0), np.zeros(0))
        # No two regions touch, so that there are at most as many as 2 x 2 cells.
        kind = cv2.CV_16U if mask.size < 4 * np.iinfo(np.uint16).max - 4 * (across + down) else cv2.CV_32S
        _, names, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=kind)
        kept = [name for name in range(1, len(stats)) if stats[name, cv2.CC_STAT_AREA] >= MIN_AREA]
        peaks = []
        for name in kept:
            left, top, width, height, _ = stats[name].tolist()
            part = slice(top, top + height), slice(left, left + width)
            peaks.append(margin[part].max(where=names[part] == name, initial=0))
        boxes = np.add(stats[kept, :4], (x, y, 0, 0), dtype=np.float64)
        return cls(as_boxes(boxes), stats[kept, cv2.CC_STAT_AREA].astype(float), np.array(peaks, np.float64))

    @property
    def largest(self) -> Boxes:
        """The box of the region with the most pixels: [1, 4], or [0, 4] where there is none."""
        return self.boxes[[self.areas.argmax()]] if len(self.areas) else as_boxes([])

    def scores(self, score: float | None) -> NDArray[np.float64]:
        """Scores of the boxes [R]: the strongest has that of its film, the others less in proportion to their peaks, as
        `msloc-edge infer` gives them; without a score of the film, the peaks."""
        return self.peaks if score is None or not len(self.peaks) else score * self.peaks / self.peaks.max()
