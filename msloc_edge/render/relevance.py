"""The layer relevance weights of a model as a picture: how much each depth of the network counts for a finding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from msloc_edge.render.colors import heat, ink, palette
from msloc_edge.render.panel import BACKGROUND, FAINT, SOFT, TEXT, fit, font, plain, spaced

_EM = 40  # drawn at twice its size and then halved, as the panel is: every edge is soft
_ROW, _CELL = round(1.9 * _EM), round(5.2 * _EM)
_NAMES, _MARGIN, _GAP = 11 * _EM, round(1.5 * _EM), 4
_TOP = _MARGIN + round(7.4 * _EM)


def relevance_picture(
    model: str, classes: Sequence[str], strides: Sequence[int], relevance: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """A row for each class and one for their mean, a column for each stage, shallow to deep.

    model      what the headline names
    strides    input pixels per cell of each stage's class maps
    relevance  [K, S], rows sum to one; shown on one scale from 0 to 1, the same for every model
    returns    [h, w, 3] uint8 BGR
    """
    count, stages = relevance.shape
    mean_at = count + 0.35  # set apart from the findings
    width = 2 * _MARGIN + _NAMES + max(stages, 3) * _CELL
    height = _TOP + round((mean_at + 1) * _ROW) + round(4.6 * _EM)
    image = Image.new("RGB", (width + width % 2, height + height % 2), BACKGROUND)
    draw = ImageDraw.Draw(image)

    _text(draw, (_MARGIN, _MARGIN), model, TEXT, 1.4, width - 2 * _MARGIN)
    _text(draw, (_MARGIN, _MARGIN + 2.1 * _EM), "Layer relevance weights: what share each depth of", SOFT, 0.95, width)
    _text(draw, (_MARGIN, _MARGIN + 3.35 * _EM), "the network has in a finding's map and score", SOFT, 0.95, width)
    for stage, stride in enumerate(strides):
        middle = _left(stage) + (_CELL - _GAP) / 2
        _text(draw, (middle, _TOP - 1.75 * _EM), f"stage {stage + 1}", TEXT, 0.95, _CELL, "mm")
        _text(draw, (middle, _TOP - 0.7 * _EM), f"1/{stride}", FAINT, 0.85, _CELL, "mm")

    colors = palette(classes)
    for row, (label, weights) in enumerate(zip(classes, relevance, strict=True)):
        middle = _TOP + (row + 0.5) * _ROW
        draw.ellipse((_MARGIN, middle - 0.3 * _EM, _MARGIN + 0.6 * _EM, middle + 0.3 * _EM), colors[label])
        _row(draw, row, spaced(label), TEXT, weights)
    _row(draw, mean_at, "mean of the findings", SOFT, relevance.mean(axis=0))
    _scale(draw, _TOP + round((mean_at + 1) * _ROW) + round(1.6 * _EM), _left(0), width - _MARGIN)
    return np.ascontiguousarray(np.asarray(image.reduce(2))[:, :, ::-1])


def _row(draw: ImageDraw.ImageDraw, row: float, label: str, color: str, weights: NDArray[np.float32]) -> None:
    top = _TOP + round(row * _ROW)
    middle = top + (_ROW - _GAP) / 2
    _text(draw, (_MARGIN + 1.1 * _EM, middle), label, color, 0.95, _NAMES - round(1.6 * _EM), "lm")
    for stage, weight in enumerate(weights.tolist()):
        cell = (_left(stage), top, _left(stage) + _CELL - _GAP - 1, top + _ROW - _GAP - 1)
        draw.rounded_rectangle(cell, round(0.2 * _EM), heat(weight))
        at = ((cell[0] + cell[2]) / 2, middle)
        _text(draw, at, f"{weight:.2f}", ink(heat(weight)), 0.95, _CELL, "mm")


def _scale(draw: ImageDraw.ImageDraw, top: int, left: int, right: int) -> None:
    """The colours from 0 to 1, with numbers below."""
    for x in range(left, right):
        draw.line((x, top, x, top + round(0.5 * _EM)), heat((x - left) / (right - 1 - left)))
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        at = (left + share * (right - 1 - left), top + 0.75 * _EM)
        _text(draw, at, f"{share:g}", FAINT, 0.8, _CELL, anchor)


def _left(stage: int) -> int:
    return _MARGIN + _NAMES + stage * _CELL


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    color: str,
    size: float,
    width: int,
    anchor: str = "la",
) -> None:
    face = font(round(size * _EM))
    draw.text(at, fit(plain(text), face, width), color, face, anchor=anchor)
