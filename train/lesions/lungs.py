"""Where the lungs of a frontal chest film are, roughly and fast: enough to put a lesion into them.

Classical means only, so that nothing learned decides where a lesion may lie. On a small copy of the film each lung is
the dark connected region, over many thresholds, that agrees best with where lungs usually are; a lung that none of
them shows is taken from the other side's mirror image, or from the usual place.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
F32 = NDArray[np.float32]
GRID = 64
"""Side of the square copy of the film on which lungs are looked for."""

# The usual place of the lung on the film's left (the patient's right), as fractions of width and height; the other is
# its mirror image. Drawn by eye over the mean of normal films.
_OUTLINE = np.array(
    [(0.37, 0.12), (0.29, 0.15), (0.22, 0.25), (0.17, 0.40), (0.15, 0.56), (0.14, 0.73), (0.18, 0.76), (0.26, 0.73),
     (0.34, 0.72), (0.42, 0.72), (0.43, 0.60), (0.43, 0.40), (0.44, 0.25), (0.42, 0.15)]
)  # fmt: skip
_SPREAD = 0.045  # of the film: how much lungs vary in place and size
_AREA = (0.035, 0.19)  # of the film, one lung
WIDE = 9.5
_CLEAR = 0.1  # agreement from which a region is believed to be a lung
_STEPS = 12


def _prior(left: bool) -> F32:
    """How likely each grid cell is lung [GRID, GRID], before the film is seen."""
    outline = _OUTLINE if left else (1 - _OUTLINE[:, 0:1], _OUTLINE[:, 1:2])
    points = np.round(np.hstack(outline) * GRID if not left else outline * GRID).astype(np.int32)
    canvas = np.zeros((GRID, GRID), np.float32)
    cv2.fillPoly(canvas, [points], 1.0)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), _SPREAD * GRID), np.float32)


_PRIOR = (_prior(True), _prior(False))
_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_NECK = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
_LIKE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
_RIB = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def lung_fields(film: NDArray[np.uint8]) -> Mask:
    """The lung fields of a frontal film [H, W] uint8, white = dense: a mask [H, W], never empty."""
    height, width = film.shape
    small = cv2.resize(film, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    shift = _midline(small) - GRID // 2
    priors = [np.roll(prior, shift, 1) for prior in _PRIOR]
    flat = _flatten(small, priors[0] + priors[1])
    found = [_lung(flat, prior) for prior in priors]
    order = sorted((0, 1), key=lambda side: -found[side][0])
    first = found[order[0]]
    masks=[]
    if first[1] is None:
        both = (priors[0]+priors[1] > 0.5).astype(np.uint8)
    else:
        mirror = np.roll(first[1][:, ::-1], 2 * shift, 1)
        second = found[order[1]][1]
        second = mirror if second is None else second & cv2.dilate(mirror, _LIKE)
        both = first[1] | second
    full = cv2.resize(both * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 127)


def _midline(small: F32) -> int:
    """The column of the spine and mediastinum: the brightest band near the middle."""
    middle = slice(round(0.4 * GRID), round(0.6 * GRID))
    profile = small[GRID // 5 : 3 * GRID // 5].mean(0)
    profile = np.convolve(profile, np.ones(7) / 7, "same")[middle]
    return int(profile.argmax()) + middle.start


def _flatten(small: F32, prior: F32) -> F32:
    """The film without its slow shading: brightness less that of the surroundings, the air beside the patient left out."""
    inner = small[prior > 0.5]
    air = small < 0.5 * np.quantile(inner, 0.05)
    body = (~air).astype(np.float32)
    wide = cv2.GaussianBlur(small * body, (0, 0), WIDE) / (cv2.GaussianBlur(body, (0, 0), WIDE) + 1e-3)
    flat = np.where(air, 0, small - wide)
    return np.asarray(cv2.GaussianBlur(flat, (0, 0), 0.9), np.float32)


def _lung(flat: F32, prior: F32) -> NDArray[np.uint8] | None:
    """One lung [GRID, GRID] of 0 and 1, or None where no dark region looks like one."""
    near = prior > 0.12
    values = flat[prior > 0.3]
    low, high = np.quantile(values, (0.2, 0.95))
    spread = float(high - low)
    if spread < 2:
        return None
    step = cv2.dilate(flat, _DISC)-cv2.erode(flat,_DISC)
    best, chosen = 0.0, None
    for level in np.linspace(low, high, _STEPS):
        dark = ((flat < level) & near).astype(np.uint8)
        dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, _NECK)
        count, labels = cv2.connectedComponents(dark, connectivity=4)
        if count < 2:
            continue
        sizes = np.bincount(labels.ravel(), prior.ravel(), count)
        sizes[0] = 0
        region = (labels == sizes.argmax()).astype(np.uint8)
        region = cv2.morphologyEx(region, cv2.MORPH_CLOSE, _RIB)
        if not _AREA[0] < region.mean() < _AREA[1]:
            continue
        inside = float(prior[region > 0].sum())
        overlap = inside / (float(prior.sum()) + float(region.sum()) - inside)  # a soft intersection over union
        ring = cv2.dilate(region, _DISC) - cv2.erode(region, _DISC)
        edge = float(step[ring > 0].mean()) / spread
        contour,_=cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        c=max(contour,key=len)
        solid=cv2.contourArea(c)/max(cv2.contourArea(cv2.convexHull(c)),1)
        score = overlap**0.5 * edge * solid**2
        if score > best:
            best, chosen = score, region
    SC.append(best)
    if chosen is None or best < _CLEAR:
        return 0.,None
    outline, _ = cv2.findContours(chosen, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(chosen, outline, -1, 1, cv2.FILLED)
    return best,np.asarray(chosen)
SC=[]
