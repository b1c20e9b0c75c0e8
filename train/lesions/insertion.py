"""Putting a simulated lesion into a real film.

X-rays are attenuated by factor upon factor, so a lesion multiplies the exposure by exp(-mu t): it *adds* to the
logarithm of the signal, which is what a film shows. Ribs and vessels therefore stay visible through it. What the film
shows is the logarithm through a display curve that flattens at its black and white ends (a sigmoid, DICOM PS3.3
C.11.2.1.3.1, v = 1 / (1 + exp(-l)), whose slope is v (1 - v)); so the same lesion shows less on a very dark or very
bright ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import InputError, TrainError
from msloc_edge.train.lesions.lungs import lung_fields
from msloc_edge.train.lesions.shape import BLUR, draw

Mask = NDArray[np.bool_]
U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

KINDS = ("Nodule", "Mass", "Opacity")
"""What can be inserted. An opacity is infiltrate- or pneumonia-like: wide, soft and patchy."""

WIDE = 1024
"""Diameters are in pixels of a film whose longer side has this many, as NIH's boxes are."""

MIN_FILM, MIN_LESION = 128, 6
"""Shortest side of a film, and smallest diameter of a lesion on it, in pixels of the film."""

# Diameters in pixels of 1024: median and spread of a log-normal distribution, smallest, largest. The medians and the
# largest follow the quartiles of the NIH boxes (phantom.findings quotes them); nodules reach further down than those
# that radiologists boxed, as small ones are what the method is for.
SIZES = {
    "Nodule": (52.0, 0.45, 20.0, 110.0),
    "Mass": (125.0, 0.30, 75.0, 240.0),
    "Opacity": (235.0, 0.28, 130.0, 400.0),
}
# Peak contrast as a fraction of the difference between this film's soft tissue and lung: at a diameter of 0, and what
# every 100 pixels of 1024 (about 3.6 cm of tissue) add; largest.
_DENSITY = {"Nodule": (0.28, 0.26, 0.75), "Mass": (0.42, 0.15, 0.95), "Opacity": (0.72, 0.0, 1.0)}
_DENSITY_SPREAD = 0.35  # log-normal
_FALLOFF = 0.35  # the least slope of the display curve that is reckoned with, as a fraction of the steepest
_PLACES = 128  # longest side of the grid on which a place is chosen
_INSIDE = 0.97  # share of a lesion that lies in the lung fields, where there is room for it
_ROOM = {
    "Nodule": 0.97,
    "Mass": 0.9,
    "Opacity": 0.75,
}  # a lesion of no asked size is drawn smaller until this share fits
_SHRINK = 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """What was inserted, and where. Boxes are whole pixels of the film: x right, y down, from the top left.

    kind      one of KINDS
    box       (x, y, width, height) about the pixels with at least half of the contrast
    diameter  pixels of 1024, asked for or drawn: the box's longer side, unless the lungs cut the lesion off
    contrast  brightness that was added at the lesion's densest point, of 1 (before rounding to 8 bits)
    region    [height, width] bool: which pixels of the box have at least half of the contrast
    film      (H, W)
    """

    kind: str
    box: tuple[int, int, int, int]
    diameter: float
    contrast: float
    region: Mask
    film: tuple[int, int]

    @property
    def mask(self) -> Mask:
        """The pixels with at least half of the contrast, [H, W]."""
        mask = np.zeros(self.film, np.bool_)
        x, y, width, height = self.box
        mask[y : y + height, x : x + width] = self.region
        return mask


def smallest(kind: str, film: tuple[int, int]) -> float | None:
    """The smallest diameter of a kind on a film (H, W), in pixels of 1024; None if the kind has none that shows."""
    least = max(SIZES[kind][2], MIN_LESION * WIDE / max(film))
    return least if least < SIZES[kind][3] else None


def insert(
    film: U8,
    rng: np.random.Generator,
    kind: str,
    diameter: float | None = None,
    contrast: float | None = None,
    lungs: Mask | None = None,
) -> tuple[U8, Lesion]:
    """A copy of a frontal film [H, W] uint8, white = dense, with one lesion in its lungs, and what it is.

    diameter: pixels of a 1024-px film (the film's longer side has 1024); drawn where not given
    contrast: brightness to add at the densest point, in (0, 1]; where not given, drawn about what tissue of that
              thickness adds on a film of this contrast
    lungs:    where it may lie, [H, W] bool, not empty; `lung_fields(film)` where not given

    Pixels that the lesion does not reach keep their value bit for bit. Raises InputError `too_small`, `constant` or
    `unsupported_pixels` for the film, TrainError `option_invalid` for the rest.
    """
    _check(film, kind, diameter, contrast, lungs)
    unit = max(film.shape) / WIDE  # pixels of the film in a pixel of 1024
    fields = lung_fields(film) if lungs is None else lungs
    size = _draw_diameter(kind, film.shape, rng) if diameter is None else diameter
    places = _Places(fields)
    while True:
        drawing = draw(kind, size * unit, max(0.6, BLUR * unit), rng)
        x, y, share = places.choose(drawing.body >= 0.5, rng)
        if diameter is not None or share >= _ROOM[kind] or size * _SHRINK < (smallest(kind, film.shape) or size):
            break
        size *= _SHRINK
    # Cut to the film; an opacity, or a lesion that found no room, ends softly where the lung does.
    window, part = _overlap(x, y, drawing.body.shape, film.shape)
    body, texture = drawing.body[part], drawing.texture[part]
    if kind == "Opacity" or share < _INSIDE:
        soft = max(1.0, 6 * unit)
        inside = cv2.GaussianBlur(fields[window].astype(np.float32), (0, 0), soft, borderType=cv2.BORDER_REPLICATE)
        body, texture = body * inside, texture * inside
    if contrast is None:
        contrast = _draw_contrast(film, fields, kind, size, rng)
    added = texture * _gain(film[window], size * unit)
    added *= np.float32(contrast * 255 / added.max())
    out = film.copy()
    out[window] = _add(film[window], added, rng)
    return out, _lesion(kind, body, window, film.shape, size, contrast)


def _lesion(
    kind: str, body: F32, window: tuple[slice, slice], film: tuple[int, ...], diameter: float, contrast: float
) -> Lesion:
    region = body >= 0.5 * body.max()
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    box = (window[1].start + left, window[0].start + top, right - left, bottom - top)
    return Lesion(kind, box, diameter, contrast, region[top:bottom, left:right].copy(), (film[0], film[1]))


def _add(film: U8, added: F32, rng: np.random.Generator) -> U8:
    """film + added, rounded up or down by chance so that no terraces show; pixels to which nothing is added stay."""
    wanted = film + added
    up = rng.random(film.shape, np.float32) < wanted - np.floor(wanted)
    return np.asarray(np.clip(np.floor(wanted) + up, 0, 255), np.uint8)


def _gain(film: U8, diameter: float) -> F32:
    """The slope 4 v (1 - v) of the display curve at the local brightness, ribs and vessels averaged out."""
    sigma = max(2.0, 0.35 * diameter)
    step = max(1, int(sigma / 3))
    size = (max(1, film.shape[1] // step), max(1, film.shape[0] // step))
    coarse = np.asarray(cv2.resize(film, size, interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma / step, borderType=cv2.BORDER_REPLICATE)
    slope = np.maximum(4 * coarse * (1 - coarse), np.float32(_FALLOFF))
    return np.asarray(cv2.resize(slope, film.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _draw_diameter(kind: str, film: tuple[int, ...], rng: np.random.Generator) -> float:
    least = smallest(kind, (film[0], film[1]))
    median, spread, _, most = SIZES[kind]
    if least is None:
        raise TrainError(
            "option_invalid",
            f"a {kind} needs a film of {MIN_LESION * WIDE / most:.0f} pixels or more, got {max(film)}.",
        )
    while not least <= (size := float(rng.lognormal(math.log(median), spread))) <= most:
        median = max(median, least)  # of a distribution that hardly reaches the film's range, its upper half
    return size


def _draw_contrast(film: U8, lungs: Mask, kind: str, diameter: float, rng: np.random.Generator) -> float:
    """About what the lesion's thickness of tissue adds, on the scale that this film shows lung and soft tissue on."""
    sparse = (slice(None, None, 4), slice(None, None, 4))
    inside = film[sparse][lungs[sparse]]
    lung = float(np.median(inside)) if inside.size else float(np.median(film))
    rows, columns = np.flatnonzero(lungs.any(1)), np.flatnonzero(lungs.any(0))
    chest = film[rows[0] : rows[-1] + 1 : 4, columns[0] : columns[-1] + 1 : 4]  # the mediastinum is between the lungs
    span = float(np.clip((np.percentile(chest, 95) - lung) / 255, 0.2, 0.6))
    base, slope, most = _DENSITY[kind]
    density = (base + slope * diameter / 100) * float(rng.lognormal(0, _DENSITY_SPREAD))
    return span * min(density, most)


class _Places:
    """Where in the lung fields a lesion fits, on a coarse grid."""

    def __init__(self, lungs: Mask) -> None:
        self.film = lungs.shape
        self.step = max(1.0, max(lungs.shape) / _PLACES)
        size = (math.ceil(lungs.shape[1] / self.step), math.ceil(lungs.shape[0] / self.step))
        small = cv2.resize(lungs.view(np.uint8), size, interpolation=cv2.INTER_AREA)
        self.fields = np.asarray(small, np.float32)

    def choose(self, shape: Mask, rng: np.random.Generator) -> tuple[int, int, float]:
        """(x, y) on the film of the top left of a lesion's window, and the share of its shape [h, w] in the lungs."""
        height, width = shape.shape
        size = [max(1, round(n / self.step)) for n in (width, height)]
        kernel = np.asarray(cv2.resize(shape.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)
        kernel /= kernel.sum()
        share = cv2.filter2D(self.fields, -1, kernel, borderType=cv2.BORDER_CONSTANT)
        share[self.fields < min(0.5, float(self.fields.max()))] = 0
        enough = min(_INSIDE, 0.98 * float(share.max()))
        spots = np.flatnonzero(share >= enough)
        spot = int(spots[rng.integers(spots.size)])
        row, column = divmod(spot, share.shape[1])
        # filter2D's kernel stands on its element size // 2; the window and the kernel have the same middle.
        x = round((column - size[0] // 2 + size[0] / 2) * self.step - width / 2)
        y = round((row - size[1] // 2 + size[1] / 2) * self.step - height / 2)
        return x, y, float(share[row, column])


def _overlap(
    x: int, y: int, size: tuple[int, ...], film: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a window at (x, y) lies on the film, and which part of the window that is."""
    top, left = max(0, y), max(0, x)
    bottom, right = min(film[0], y + size[0]), min(film[1], x + size[1])
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def check_film(film: U8) -> None:
    """Raise InputError `unsupported_pixels`, `too_small` or `constant` if no lesion can be put into this film."""
    if not (isinstance(film, np.ndarray) and film.dtype == np.uint8 and film.ndim == 2):
        got = f"{film.dtype} {film.shape}" if isinstance(film, np.ndarray) else type(film).__name__
        raise InputError("unsupported_pixels", f"expected a film as an array [H, W] of uint8, got {got}; convert it.")
    if min(film.shape) < MIN_FILM:
        raise InputError(
            "too_small",
            f"expected a film of {MIN_FILM} x {MIN_FILM} pixels or more to put a lesion into, got "
            f"{film.shape[1]} x {film.shape[0]}; use a larger copy.",
        )
    if film.min() == film.max():
        raise InputError("constant", "expected a chest film to put a lesion into, got equal pixels; choose another.")


def _check(film: U8, kind: str, diameter: float | None, contrast: float | None, lungs: Mask | None) -> None:
    check_film(film)
    if kind not in KINDS:
        raise TrainError(
            "option_invalid", f"expected a lesion of kind {', '.join(KINDS)}, got {kind!r}; choose one of these."
        )
    least = MIN_LESION * WIDE / max(film.shape)
    if diameter is not None and not least <= diameter <= WIDE / 2:
        raise TrainError(
            "option_invalid",
            f"expected a diameter of {least:.0f} to {WIDE // 2} pixels of {WIDE} (a film's longer side) on a film of "
            f"{film.shape[1]} x {film.shape[0]}, got {diameter:g}; choose one of these, or a larger film.",
        )
    if contrast is not None and not 0 < contrast <= 1:
        raise TrainError(
            "option_invalid", f"expected a contrast above 0 and up to 1, got {contrast:g}; choose another."
        )
    if lungs is not None and not (lungs.dtype == np.bool_ and lungs.shape == film.shape and lungs.any()):
        raise TrainError(
            "option_invalid",
            f"expected lungs as an array of bool like the film's {film.shape}, not all False, got {lungs.dtype} "
            f"{lungs.shape} with {np.count_nonzero(lungs)} pixels set; leave it out to have them found.",
        )
