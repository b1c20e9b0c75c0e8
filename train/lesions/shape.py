"""What a lesion looks like on a film, before it is put there: its contrast as a fraction of the peak, [h, w].

The profile is the one-parameter family of Burgess's "designer nodules",

    s(rho) = (1 - rho^2)^nu  for rho < 1, else 0

with rho the distance from the centre as a fraction of the outline's. nu = 1/2 is the chord of a sphere of uniform
density, so a smooth, hard-edged ball; 3/2 Burgess's model of a mass; towards 2 and above it is Gaussian-like, as Samei
et al. measured subtle lung nodules to be. docs/lesions.md has the references and what of them could be verified.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = NDArray[np.float32]
SPHERE, DESIGNER = 0.5, 1.5
"""nu of a uniform sphere and of Burgess's model of a mass."""


@dataclass(frozen=True, slots=True)
class Look:
    """How lesions of one kind vary."""

    nu: tuple[float, float]  # range of the profile's exponent
    aspect: tuple[float, float]  # range of the ratio of the axes
    tilt: float  # radians: how far the long axis may lean from the vertical
    rough: float  # how far the outline leaves an ellipse
    texture: tuple[float, ...]  # amplitude of the texture with features of 1/3, 1/7, 1/15 of the diameter
    spiculated: float  # share of lesions with spicules


LOOKS = {
    "Nodule": Look((0.7, 1.8), (0.75, 1.0), np.pi, 0.10, (0.08, 0.05), 0.15),
    "Mass": Look((0.5, 1.0), (0.70, 1.0), np.pi, 0.20, (0.08, 0.05, 0.03), 0.4),
    "Opacity": Look((0.8, 2.0), (0.60, 0.95), 0.35, 0.30, (0.22, 0.18, 0.11), 0.0),
}
"""What each kind of lesion looks like."""

BLUR = 1.2
"""Standard deviation of the blur of detector and heartbeat, in pixels of 1024 (about 0.4 mm), that edges get."""

_GRID = 72  # a wide lesion is drawn at about this many points a side, and enlarged: it is smooth
_FOLDS = (2, 3, 4, 5, 7)  # lobes of an outline


def profile(rho: ArrayLike, nu: float) -> F32:
    """(1 - rho^2)^nu inside the unit circle and 0 outside; any shape."""
    rho = np.asarray(rho, np.float32)
    return np.asarray(np.maximum(1 - rho * rho, 0) ** np.float32(nu), np.float32)


def half_radius(nu: float) -> float:
    """The rho at which the profile is one half: sqrt(1 - 2^(-1/nu))."""
    return float(np.sqrt(1 - 2 ** (-1 / nu)))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A lesion on its own: both [h, w] float32, 0 at the border; `body` has its peak at 1.

    body     the smooth lesion: what its outline and its box are measured on
    texture  body with texture and spicules, not negative
    """

    body: F32
    texture: F32


def draw(kind: str, diameter: float, blur: float, rng: np.random.Generator) -> Drawing:
    """A lesion of a kind of LOOKS.

    diameter: longer side, in pixels, of the box about the part above half of the peak; blur: standard deviation, in
    pixels, of the blur that everything gets.
    """
    look = LOOKS[kind]
    nu = float(rng.uniform(*look.nu))
    aspect, tilt = float(rng.uniform(*look.aspect)), float(rng.uniform(-look.tilt, look.tilt)) + np.pi / 2
    waves = np.array([look.rough / k**0.7 * rng.normal(0, 0.6) for k in _FOLDS])
    phases = rng.uniform(0, 2 * np.pi, len(_FOLDS))

    def outline(theta: NDArray[np.floating]) -> NDArray[np.floating]:
        out = np.ones_like(theta)
        for fold, wave, phase in zip(_FOLDS, waves.tolist(), phases.tolist(), strict=True):
            out += wave * np.cos(fold * theta + phase)
        return np.clip(out, 0.55, 1.4)

    # Scale such that the half-contrast outline has the box that is asked for.
    theta = np.linspace(0, 2 * np.pi, 97)
    along, across = outline(theta) * (np.cos(theta), aspect * np.sin(theta))
    c, s = np.cos(tilt), np.sin(tilt)
    x, y = c * along - s * across, s * along + c * across
    x0, x1, y0, y1 = (float(v) for v in (x.min(), x.max(), y.min(), y.max()))
    scale = diameter / (half_radius(nu) * max(x1 - x0, y1 - y0))  # pixels
    # The window: the support, the reach of the blur and a pixel more, about the middle of the box.
    width, height = (int(np.ceil(scale * span + 8 * blur)) + 2 for span in (x1 - x0, y1 - y0))
    step = max(1.0, max(width, height) / _GRID)
    columns, rows = int(np.ceil(width / step)), int(np.ceil(height / step))
    jitter = rng.uniform(-0.5, 0.5, 2)
    gx = np.asarray(((np.arange(columns) + 0.5) * step - width / 2 + jitter[0]) / scale + (x0 + x1) / 2, np.float32)
    gy = np.asarray(((np.arange(rows) + 0.5) * step - height / 2 + jitter[1]) / scale + (y0 + y1) / 2, np.float32)
    along = np.float32(c) * gx[None] + np.float32(s) * gy[:, None]
    across = (np.float32(c) * gy[:, None] - np.float32(s) * gx[None]) / np.float32(aspect)
    rho = np.hypot(along, across) / np.asarray(outline(np.arctan2(across, along)), np.float32)
    body = profile(rho, nu)
    grain = np.ones_like(body)
    for part, amplitude in zip((3, 7, 15), look.texture, strict=False):
        grain += np.float32(amplitude) * _noise(rng, (rows, columns), scale * (x1 - x0 + y1 - y0) / 4 / part / step)
    texture = body * np.maximum(grain, 0)
    if step > 1:
        body, texture = (_enlarge(part, width, height, step) for part in (body, texture))
    if rng.random() < look.spiculated:
        texture = np.maximum(texture, _spicules(body.shape, diameter, blur, rng))
    body, texture = (_soften(part, blur) for part in (body, texture))
    peak = body.max()
    return Drawing(body / peak, texture / peak)


def _noise(rng: np.random.Generator, shape: tuple[int, int], feature: float) -> F32:
    """Smooth noise of about unit variance with features of about `feature` pixels."""
    lattice = [max(3, round(n / max(feature, 1.5)) + 1) for n in shape]
    values = rng.standard_normal(lattice, np.float32) * np.float32(1.3)
    return np.asarray(cv2.resize(values, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _enlarge(part: F32, width: int, height: int, step: float) -> F32:
    matrix = np.array([[1 / step, 0, 0.5 / step - 0.5], [0, 1 / step, 0.5 / step - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(part, matrix, (width, height), flags=flags, borderValue=0), np.float32)


def _soften(part: F32, blur: float) -> F32:
    """Blurred, and 0 again in the outermost pixels."""
    out = np.asarray(cv2.GaussianBlur(part, (0, 0), blur, borderType=cv2.BORDER_CONSTANT), np.float32)
    out[:1], out[-1:], out[:, :1], out[:, -1:] = 0, 0, 0, 0
    return out


def _spicules(shape: tuple[int, ...], diameter: float, blur: float, rng: np.random.Generator) -> F32:
    """Faint lines [h, w] from the middle outwards, fading towards their tips."""
    canvas = np.zeros(shape, np.uint8)
    middle = np.array([shape[1] / 2, shape[0] / 2])
    for turn in rng.uniform(0, 2 * np.pi, int(rng.integers(8, 18))):
        way = np.array([np.cos(turn), np.sin(turn)])
        reach = diameter / 2 * float(rng.uniform(1.05, 1.5))
        bend = np.array([-way[1], way[0]]) * float(rng.normal(0, 0.06)) * diameter
        for near, far, shade in ((0.6, 0.8, 0.3), (0.8, 0.93, 0.2), (0.93, 1.0, 0.1)):
            ends = [middle + f * reach * way + f * f * bend for f in (near, far)]
            points = np.round(np.array(ends) * 16).astype(np.int32)
            cv2.line(canvas, points[0].tolist(), points[1].tolist(), round(255 * shade), 1, cv2.LINE_AA, 4)
    faded = canvas.astype(np.float32) / np.float32(255)
    return np.asarray(cv2.GaussianBlur(faded, (0, 0), max(blur, diameter / 60)), np.float32)
