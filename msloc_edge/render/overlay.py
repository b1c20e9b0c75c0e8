"""The overlay: a film with its findings drawn on it, and a panel beside it that names and scores them.

Nothing is written across the anatomy: on the film there are thin outlines and small numbers at the boxes, and the
panel to the right says what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from msloc_edge.render.colors import palette, rgb
from msloc_edge.render.heatmap import color_index
from msloc_edge.render.panel import BACKGROUND, font, panel
from msloc_edge.result import Result
from msloc_edge.types import SHOWN, Box

_Film = NDArray[np.uint8]  # [h, w, 3] RGB, drawn on in place
_Area = tuple[slice, slice]  # rows and columns: a finding covers a small part of a film, and only that is worked on
_INK = (8, 9, 12)  # dark halo: keeps a line readable on white bone
_MIN_HEIGHT = 700  # a tiny film is enlarged to this, so that the panel beside it can be read


def overlay(
    display: NDArray[np.float32],
    result: Result,
    max_side: int = 1400,
    map_thresholds: Mapping[str, float] | None = None,
    show: int | None = SHOWN,
) -> NDArray[np.uint8]:
    """Draw the positive findings of one film.

    display         [H, W] float32 in [0, 1], the windowed film in stored-image pixels
    max_side        the longest side of the film in the picture, pixels; the panel adds to the width
    map_thresholds  label -> absolute map threshold, logit units: where the outline and the tint of a map begin;
                    a class without one gets neither
    show            how many findings are drawn, those first that exceed their thresholds most; the panel lists the
                    others; None draws all
    returns         [H', W', 3] uint8 BGR: the film at the left, centred vertically, then the panel
    """
    image = grey_film(display, max_side)
    film = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    height, width = image.shape
    scale = (width / display.shape[1], height / display.shape[0])
    line = max(1, round(min(height, width) / 450))
    drawn = result.positive[:show]
    colors = palette(finding.label for finding in result.findings)
    boxes = [
        (number, finding.label, _corners(box, scale, width, height))
        for number, finding in enumerate(drawn, 1)
        for box in finding.boxes
    ]

    for finding in drawn:
        threshold = (map_thresholds or {}).get(finding.label)
        if threshold is not None and finding.label in result.maps:
            _draw_map(film, result.maps[finding.label], threshold, rgb(colors[finding.label]), line)
    for _, label, corners in boxes:
        _draw_box(film, corners, rgb(colors[label]), line)
    em = max(14, round(height / 52))
    picture = _draw_tags(film, [(number, colors[label], corners) for number, label, corners in boxes], em)

    side = panel(result, colors, em, height, show)
    canvas = np.full((side.shape[0], width, 3), rgb(BACKGROUND), np.uint8)
    top = (side.shape[0] - height) // 2
    canvas[top : top + height] = picture
    return np.asarray(cv2.cvtColor(np.concatenate([canvas, side], axis=1), cv2.COLOR_RGB2BGR), np.uint8)


def grey_film(display: NDArray[np.float32], max_side: int) -> NDArray[np.uint8]:
    """The film [H, W] in [0, 1] at the size it is shown in, [h, w] uint8: its longest side is at most `max_side`, and
    within that a small film is enlarged to 700 rows."""
    height, width = display.shape
    scale = min(max_side / max(height, width), max(1.0, _MIN_HEIGHT / height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    film = cv2.resize(display, size, interpolation=method) if scale != 1 else display
    return np.rint(np.clip(film, 0, 1) * 255).astype(np.uint8)


_Corners = tuple[int, int, int, int]  # first and last column and row of a box: left, top, right, bottom


def _corners(box: Box, scale: tuple[float, float], width: int, height: int) -> _Corners:
    """The pixels of the shown film that a box's outline runs through, held inside the film."""
    left = min(max(round(box.x * scale[0]), 0), width - 1)
    top = min(max(round(box.y * scale[1]), 0), height - 1)
    right = min(max(round((box.x + box.w) * scale[0]) - 1, left), width - 1)
    bottom = min(max(round((box.y + box.h) * scale[1]) - 1, top), height - 1)
    return left, top, right, bottom


def _around(left: int, top: int, right: int, bottom: int, margin: int) -> _Area:
    """The rows and columns from first to last, and `margin` more on each side."""
    return slice(max(top - margin, 0), bottom + margin + 1), slice(max(left - margin, 0), right + margin + 1)


def _blend(part: NDArray[np.float32], alpha: NDArray[np.float32], color: tuple[int, int, int]) -> None:
    for channel, value in enumerate(color):  # [h, w] at a time: three times as fast as [h, w, 3] in numpy
        part[..., channel] += alpha * (np.float32(value) - part[..., channel])


def _draw_map(film: _Film, map: NDArray[np.float32], threshold: float, color: tuple[int, int, int], line: int) -> None:
    """A faint tint where the map reaches its threshold, and the outline of that area."""
    height, width = film.shape[:2]
    map = np.asarray(cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    left, top, across, down = cv2.boundingRect((map >= threshold).view(np.uint8))
    if not across:
        return
    area = _around(left, top, left + across - 1, top + down - 1, line + 3)
    map, part = map[area], film[area].astype(np.float32)
    excess = np.maximum(color_index(map, threshold).astype(np.float32) - 127, 0) / 128
    _blend(part, np.where(excess > 0, 0.05 + 0.17 * excess, 0).astype(np.float32), color)

    # |M - t| / |grad M| is the distance to the outline in pixels, to first order: an outline at sub-pixel positions
    # with soft edges, without tracing it. Where the map is flat there is no outline.
    slope_x = cv2.Sobel(map, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    slope_y = cv2.Sobel(map, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    slope = cv2.magnitude(slope_x, slope_y)
    distance = np.full(map.shape, np.inf, np.float32)
    np.divide(np.abs(map - np.float32(threshold)), slope, out=distance, where=slope > 1e-7)
    _blend(part, 0.5 * np.clip(line / 2 + 1.5 - distance, 0, 1), _INK)
    _blend(part, np.clip(line / 2 + 0.5 - distance, 0, 1), color)
    film[area] = np.rint(part)


def _draw_box(film: _Film, corners: _Corners, color: tuple[int, int, int], line: int) -> None:
    area = _around(*corners, margin=line + 2)
    before = film[area].copy()
    cv2.rectangle(film, corners[:2], corners[2:], _INK, line + 2)
    film[area] = cv2.addWeighted(film[area], 0.6, before, 0.4, 0)
    cv2.rectangle(film, corners[:2], corners[2:], color, line)


def _draw_tags(film: NDArray[np.uint8], tags: list[tuple[int, str, _Corners]], em: int) -> NDArray[np.uint8]:
    """A numbered disc outside a corner of every box, clear of other tags where there is room."""
    height, width = film.shape[:2]
    radius = round(em * 0.62)
    placed: list[tuple[int, int]] = []
    for _, _, (left, top, right, bottom) in tags:
        low, high = radius + 2, (width - radius - 3, height - radius - 3)
        wanted = [(x, y) for y in (top - radius - 3, bottom + radius + 3) for x in (left + radius, right - radius)] + [
            (x, y) for x in (left - radius - 3, right + radius + 3) for y in (top + radius, bottom - radius)
        ]
        held = [(max(low, min(x, high[0])), max(low, min(y, high[1]))) for x, y in wanted]
        # Rank: away from other tags, then outside the box, then in the order above.
        placed.append(
            min(
                held,
                key=lambda at: (
                    any(abs(at[0] - x) + abs(at[1] - y) < 2 * radius + 2 for x, y in placed),
                    at not in wanted,
                ),
            )
        )
    for (_, color, _), at in zip(tags, placed, strict=True):
        cv2.circle(film, at, radius + 2, _INK, -1, cv2.LINE_AA)
        cv2.circle(film, at, radius, rgb(color), -1, cv2.LINE_AA)
    picture = Image.fromarray(film)
    draw = ImageDraw.Draw(picture)
    for (number, _, _), at in zip(tags, placed, strict=True):
        draw.text(at, str(number), _INK, font(round(em * 0.85)), anchor="mm")
    return np.asarray(picture)
