"""Pictures of single findings: the best, the median and the worst of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.measure import COLUMNS, FilmMeasures, largest_box
from msloc_edge.train.evaluate.truth import TrueRegion, whole_mask

SIDE = 300
TRUE, FOUND, MAP = (134, 184, 18), (0, 163, 245), (233, 180, 86)  # BGR: green, orange, blue
_INK = (12, 9, 8)


@dataclass(frozen=True, slots=True)
class Case:
    """One finding of one film: its rank among its class, IoU of the largest region's box, whether the peak hits."""

    label: str
    film: str
    rank: str
    overlap: float
    hit: bool


def choose_cases(films: Sequence[FilmMeasures], row: str, labels: Sequence[str]) -> list[Case]:
    """The best, median and worst finding of each label by the IoU of the largest region, then by the peak."""
    found: list[Case] = []
    for label in labels:
        mine = [(film.name, film.rows[row, label]) for film in films if (row, label) in film.rows]
        ranked = sorted(
            ((float(m[COLUMNS["blob_overlap"]][0]), bool(m[COLUMNS["pointing"]][0]), name) for name, m in mine),
            reverse=True,
        )
        places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
        taken = {at: rank for rank, at in reversed(places.items()) if ranked}
        found += [Case(label, ranked[at][2], taken[at], *ranked[at][:2]) for at in sorted(taken)]
    return found


def draw_case(
    display: NDArray[np.float32], evidence: Evidence | None, regions: Sequence[TrueRegion]
) -> NDArray[np.uint8]:
    """A film [H, W] in [0, 1] with its map above the threshold (blue), the peak and the largest region's box (orange),
    and the true boxes or masks (green) -> [h, w, 3] uint8 BGR, longest side 300 px."""
    height, width = display.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = np.clip(cv2.resize(display, size, interpolation=method), 0, 1) * 255
    film = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)
    if evidence is not None:
        _tint(film, evidence)
    picture = np.rint(film).astype(np.uint8)
    mask = whole_mask(regions, (height, width))
    if mask is not None:
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, TRUE, 1)
    for region in regions:
        if region.mask is None:
            _box(picture, np.array(region.box) * scale, TRUE)
    if evidence is not None:
        rows, columns = evidence.values.shape
        to_picture = np.array([size[0] / columns, size[1] / rows])
        for box in largest_box(evidence.regions()):
            _box(picture, box * np.tile(to_picture, 2), FOUND)
        row, column = divmod(int(evidence.values.argmax()), columns)
        x, y = ((np.array([column, row]) + 0.5) * to_picture).astype(int).tolist()
        cv2.drawMarker(picture, (x, y), _INK, cv2.MARKER_CROSS, 11, 3)
        cv2.drawMarker(picture, (x, y), FOUND, cv2.MARKER_CROSS, 9, 1)
    return picture


def _tint(film: NDArray[np.float32], evidence: Evidence) -> None:
    """Blue where the map exceeds its threshold, stronger towards its peak."""
    height, width = film.shape[:2]
    margin = cv2.resize(evidence.margin, (width, height), interpolation=cv2.INTER_LINEAR)
    top = float(margin.max())
    if top > 0:
        alpha = np.where(margin > 0, 0.15 + 0.35 * margin / top, 0)[:, :, None]
        film += (alpha * (np.array(MAP, np.float32) - film)).astype(np.float32)


def _box(picture: NDArray[np.uint8], box: NDArray[np.float64], color: tuple[int, int, int]) -> None:
    x, y, w, h = box
    first, last = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
    cv2.rectangle(picture, first, last, _INK, 3)
    cv2.rectangle(picture, first, last, color, 1)
