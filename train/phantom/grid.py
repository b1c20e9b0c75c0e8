"""The pixel grid of a film in centimetres, and the few drawing helpers all anatomy is made of.

Coordinates are (x, y) in cm, x to the right of the film (the patient's left), y downwards; x = 0 is the
patient's midline and y = 0 the middle of the lungs. Maps are float32 [H, W] thicknesses in cm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Window = tuple[slice, slice]
SUBPIXEL_BITS = 4  # fixed-point bits of polygon vertices given to OpenCV


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixel centres of an [H, W] map: `x` [1, W] and `y` [H, 1] in cm, `pitch` cm from pixel to pixel."""

    x: F32
    y: F32
    pitch: float

    @classmethod
    def centred(cls, height: int, width: int, pitch: float, y_centre: float) -> Grid:
        """A grid whose middle is (0, y_centre) cm, of pixels `pitch` cm apart."""
        x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * np.float32(pitch)
        y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) * np.float32(pitch) + np.float32(y_centre)
        return cls(x[None, :], y[:, None], pitch)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the maps on this grid."""
        return self.y.shape[0], self.x.shape[1]

    def side(self, side: int) -> Window:
        """Index of the half of the film with x of the sign of `side`."""
        middle = int(np.searchsorted(self.x[0], 0.0))
        return np.s_[:, :middle] if side < 0 else np.s_[:, middle:]

    def around(self, cx: float, cy: float, rx: float, ry: float) -> Window:
        """Index of the pixels within (rx, ry) cm of (cx, cy); may be empty."""
        x0, x1 = np.searchsorted(self.x[0], [cx - rx, cx + rx])
        y0, y1 = np.searchsorted(self.y[:, 0], [cy - ry, cy + ry])
        return np.s_[int(y0) : int(y1), int(x0) : int(x1)]

    def fixed_point(self, points: ArrayLike) -> NDArray[np.int32]:
        """(x, y) cm [..., 2] -> pixel coordinates in OpenCV's fixed point."""
        p = (np.asarray(points, np.float64) - (self.x[0, 0], self.y[0, 0])) / self.pitch
        return np.asarray(np.round(p * (1 << SUBPIXEL_BITS)), np.int32)

    def fill(self, canvas: U8, polygon: ArrayLike, value: int) -> None:
        """Draw a polygon of (x, y) cm [N, 2] over `canvas`, edges antialiased."""
        cv2.fillPoly(canvas, [self.fixed_point(polygon)], value, cv2.LINE_AA, SUBPIXEL_BITS)

    def lines(self, canvas: U8, polylines: Sequence[ArrayLike] | F32, thickness_cm: float, value: float) -> None:
        """Draw polylines of (x, y) cm; lines thinner than a pixel are drawn paler instead."""
        pixels = thickness_cm / self.pitch
        shade = round(min(255.0, value * min(1.0, pixels)))
        points = [self.fixed_point(line) for line in polylines]
        cv2.polylines(canvas, points, False, shade, max(1, round(pixels)), cv2.LINE_AA, SUBPIXEL_BITS)

    def blur(self, image: F32, sigma_cm: float) -> F32:
        """Gaussian blur; wide ones are done on a coarser grid, where they cost nothing and look the same."""
        sigma = sigma_cm / self.pitch
        step = max(1, int(sigma // 3))
        if step == 1:
            return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.05), borderType=cv2.BORDER_REPLICATE))
        height, width = image.shape
        small = cv2.resize(image, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / step, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))

    def noise(self, rng: np.random.Generator, feature_cm: float) -> F32:
        """Smooth unit-variance noise with features of about `feature_cm`, the same at every pixel size."""
        height, width = self.shape
        # Drawn on a lattice counted in cm, not in pixels.
        lattice = [max(4, round(n * self.pitch / feature_cm)) for n in (height, width)]
        values = rng.standard_normal(lattice, dtype=np.float32) * np.float32(1.5)
        return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC))


def ellipsoid(
    grid: Grid, centre: tuple[float, float], radii: tuple[float, float], depth: float, angle: float = 0.0
) -> tuple[Window, F32]:
    """Chord lengths through an ellipsoid seen along its depth axis.

    centre, radii: (x, y) in cm; depth: the longest chord in cm; angle: radians, clockwise on the film.
    Returns the window of the map it covers and the chords there: depth * sqrt(1 - (x/rx)^2 - (y/ry)^2).
    """
    (cx, cy), (rx, ry) = centre, radii
    c, s = float(np.cos(angle)), float(np.sin(angle))
    window = grid.around(cx, cy, float(np.hypot(rx * c, ry * s)), float(np.hypot(rx * s, ry * c)))
    x, y = grid.x[:, window[1]] - np.float32(cx), grid.y[window[0]] - np.float32(cy)
    along, across = (c * x + s * y) / np.float32(rx), (c * y - s * x) / np.float32(ry)
    return window, np.float32(depth) * np.sqrt(np.maximum(1 - along * along - across * across, 0))


def ribbon(points: NDArray[np.float64], half_width: ArrayLike) -> NDArray[np.float64]:
    """Outlines [..., 2N, 2] of bands of the given half width (cm, broadcast to [..., N]) about lines [..., N, 2]."""
    tangent = np.empty_like(points)
    tangent[..., 1:-1, :] = points[..., 2:, :] - points[..., :-2, :]
    tangent[..., 0, :] = points[..., 1, :] - points[..., 0, :]
    tangent[..., -1, :] = points[..., -1, :] - points[..., -2, :]
    tangent /= np.maximum(np.sqrt((tangent * tangent).sum(-1, keepdims=True)), 1e-9)
    offset = tangent[..., ::-1] * (-1.0, 1.0) * np.asarray(half_width, np.float64)[..., None]
    return np.concatenate([points + offset, (points - offset)[..., ::-1, :]], -2)


def smoothstep(edge0: float, edge1: float, value: F32) -> F32:
    """0 below edge0, 1 above edge1, a cubic between (edge0 > edge1 falls instead of rising)."""
    t = np.clip((value - np.float32(edge0)) / np.float32(edge1 - edge0), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
