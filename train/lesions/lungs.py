"""Where the lungs of a frontal chest film are, roughly and fast: enough to put a lesion into them.

Classical means only, so that nothing learned decides where a lesion may lie. On a small copy of the film each lung is
the dark connected region, over several thresholds, that lies where lungs usually are, has an edge all around and few
dents. The surer lung then bounds the other one: lungs are mirror images of each other, give or take a heart. The fields
are drawn rather too small than too large.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

GRID = 64
"""Side of the square copy of the film on which lungs are looked for."""

# The usual place of the lung on the left of the film (the patient's right), as fractions of width and height, drawn by
# eye over normal films; the other lung's is its mirror image.
_USUAL = np.array(
    [(0.37, 0.12), (0.29, 0.15), (0.22, 0.25), (0.17, 0.40), (0.15, 0.56), (0.14, 0.73), (0.18, 0.76), (0.26, 0.73),
     (0.34, 0.72), (0.42, 0.72), (0.43, 0.60), (0.43, 0.40), (0.44, 0.25), (0.42, 0.15)]
)  # fmt: skip
_SPREAD = 0.045  # of the film: how much lungs vary in place and size
_NEAR = 0.12  # of the prior: no lung is looked for where it is lower
_AREA = (0.035, 0.19)  # of the film, one lung
_SHADING = 9.5  # grid cells: slower changes of brightness than this are the body's, not the lungs'
_SMOOTH = 0.9  # grid cells
_LEVELS = np.linspace(0.25, 0.9, 6)  # quantiles of the brightness near a lung
_SURE = 0.18  # score from which a region is believed to be a lung


def _disc(side: int) -> U8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


_EDGE, _RIB, _BRIDGE, _ALIKE = _disc(3), _disc(5), _disc(7), _disc(9)


def _prior(mirrored: bool) -> F32:
    """How likely each grid cell is one lung [GRID, GRID], before the film is seen."""
    canvas = np.zeros((GRID, GRID), np.float32)
    cv2.fillPoly(canvas, [np.round(_USUAL * GRID).astype(np.int32)], 1.0)
    soft = np.asarray(cv2.GaussianBlur(canvas, (0, 0), _SPREAD * GRID), np.float32)
    return np.ascontiguousarray(soft[:, ::-1] if mirrored else soft)


_PRIORS = (_prior(False), _prior(True))


def lung_fields(film: U8) -> Mask:
    """The lung fields of a frontal film [H, W] uint8, white = dense: a mask [H, W], never empty.

    Where the film shows no lung, the mask has a lung's usual shape and place.
    """
    height, width = film.shape
    small = np.asarray(cv2.resize(film, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)
    shift = _midline(small) - GRID // 2
    priors = [np.roll(prior, shift, 1) for prior in _PRIORS]
    flat = _flatten(small, priors[0] + priors[1])
    (_, other), (score, surer) = sorted((_lung(flat, prior) for prior in priors), key=lambda found: found[0])
    if score < _SURE:
        both = np.asarray(priors[0] + priors[1] > 0.5, np.uint8)
    else:
        mirror = np.roll(surer[:, ::-1], 2 * shift, 1)
        other = other & np.asarray(cv2.dilate(mirror, _ALIKE), np.uint8)
        both = surer | (other if other.any() else mirror)
    full = cv2.resize(both * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 127)


def _midline(small: F32) -> int:
    """The column of the spine and the mediastinum: the brightest band near the middle, in doubt the middle."""
    profile = cv2.blur(small[GRID // 5 : 3 * GRID // 5].mean(0)[None], (7, 1))[0]
    columns = np.arange(round(0.4 * GRID), round(0.6 * GRID) + 1)
    return int(columns[(profile[columns] - 0.25 * np.abs(columns - GRID // 2)).argmax()])


def _flatten(small: F32, prior: F32) -> F32:
    """Brightness less that of the surroundings, the air beside the patient left out of account."""
    air = small < 0.5 * np.percentile(small[prior > 0.5], 5)
    body = np.asarray(~air, np.float32)
    around = cv2.GaussianBlur(small * body, (0, 0), _SHADING) / (cv2.GaussianBlur(body, (0, 0), _SHADING) + 1e-3)
    return np.asarray(cv2.GaussianBlur((small - around) * body, (0, 0), _SMOOTH), np.float32)


def _lung(flat: F32, prior: F32) -> tuple[float, U8]:
    """(score, region [GRID, GRID] of 0 and 1) of the region that is most like one lung; score 0 if there is none."""
    best: tuple[float, U8] = (0.0, np.zeros((GRID, GRID), np.uint8))
    near = np.asarray(prior > _NEAR, np.uint8)
    levels = np.quantile(flat[prior > 0.3], _LEVELS)
    spread = float(levels[-1] - levels[0])
    if spread < 2:  # of 255: a blank film
        return best
    step = cv2.dilate(flat, _EDGE) - cv2.erode(flat, _EDGE)
    for level in levels:
        dark = cv2.morphologyEx(near * (flat < level), cv2.MORPH_OPEN, _BRIDGE)
        count, labels = cv2.connectedComponents(dark, connectivity=4)
        if count < 2:
            continue
        weight = np.bincount(labels.ravel(), prior.ravel(), count)
        largest = 1 + int(weight[1:].argmax())
        region = cv2.morphologyEx(np.asarray(labels == largest, np.uint8), cv2.MORPH_CLOSE, _RIB)
        area = cv2.countNonZero(region)
        if not _AREA[0] < area / region.size < _AREA[1]:
            continue
        inside = cv2.mean(prior, region)[0] * area
        overlap = inside / (float(prior.sum()) + area - inside)  # intersection over union with the prior
        ring = cv2.dilate(region, _EDGE) - cv2.erode(region, _EDGE)
        edge = cv2.mean(step, ring)[0] / spread
        outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(outlines, key=cv2.contourArea)
        solid = cv2.contourArea(outline) / cv2.contourArea(cv2.convexHull(outline))
        score = overlap**0.5 * edge * solid**2
        if score > best[0]:
            cv2.drawContours(region, outlines, -1, 1, cv2.FILLED)
            best = (score, np.asarray(region))
    return best
