"""Pictures that are drawn, of what no package ships in number: bones of other parts, pages of text, plots, textures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]

SIDE = 128
_WORDS = ("the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be", "their", "which")
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
_ROWS, _COLUMNS = (grid.astype(np.float32) for grid in np.mgrid[:SIDE, :SIDE])


def bones(rng: np.random.Generator) -> Picture:
    """Draw a radiograph of a limb, a hand, a pelvis or a skull, roughly: bones in soft tissue. [SIDE, SIDE]"""
    soft, bone = (_limb, _rays, _rings)[int(rng.integers(3))](rng)
    dense = soft / max(float(soft.max()), 1) + rng.uniform(0.5, 1.5) * bone / max(float(bone.max()), 1)
    noisy = cv2.GaussianBlur(dense, (0, 0), rng.uniform(0.5, 1.5)) + rng.normal(0, 0.01, dense.shape)
    return _shown(np.maximum(noisy, 0) ** rng.uniform(0.5, 1.2))


def _limb(rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Thickness of soft tissue and of bone: one or two long bones through the film, with a joint."""
    angle = rng.normal(np.pi / 2, 0.4) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across, width = np.array([-along[1], along[0]]), rng.uniform(18, 45)
    middle = rng.uniform(0.35, 0.65, 2) * SIDE
    soft, bone = _capsule(middle - 120 * along, middle + 120 * along, width), _nothing()
    joint = rng.uniform(-30, 30)
    for offset in rng.permutation([-0.4, 0.4, 0.0])[: rng.integers(1, 3)]:
        centre = middle + offset * width * across
        for first, last in ((-130.0, joint - 3), (joint + 3, 130.0)):
            bone += _shaft(centre + first * along, centre + last * along, rng.uniform(0.2, 0.4) * width)
    return soft, bone


def _rays(rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Thickness of soft tissue and of bone: a hand or a foot, rays of short bones."""
    soft, bone = _nothing(), _nothing()
    root, start = np.array([rng.uniform(40, 88), rng.uniform(95, 125)]), rng.uniform(1.2, 1.5) * np.pi
    for ray in range(rng.integers(3, 6)):
        angle, at = start + 0.16 * ray + rng.normal(0, 0.03), root + np.array([8 * (ray - 2), 0])
        for length in rng.uniform(0.8, 1.2, 4) * (30, 20, 15, 10):
            end = at + length * np.array([np.cos(angle), np.sin(angle)])
            soft = np.maximum(soft, _capsule(at, end, rng.uniform(8, 11)))
            bone += _shaft(at, end, rng.uniform(3, 5))
            at = end + 2 * np.array([np.cos(angle), np.sin(angle)])
    return np.maximum(soft, _capsule(root, root + np.array([0, 60]), 26)), bone


def _rings(rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Thickness of soft tissue and of bone: a skull or a pelvis, shells and shafts."""
    soft, bone = _nothing(), _nothing()
    for _ in range(rng.integers(1, 4)):
        centre, radii = rng.uniform(0.35, 0.65, 2) * SIDE, rng.uniform(18, 55, 2)
        shell = rng.uniform(0.06, 0.15)
        bone += _ellipsoid(centre, radii) - _ellipsoid(centre, radii * (1 - shell))
        soft = np.maximum(soft, _ellipsoid(centre, radii * rng.uniform(1.05, 1.5)))
    for _ in range(rng.integers(0, 5)):
        first, last = rng.uniform(0.2, 0.8, (2, 2)) * SIDE
        bone += _shaft(first, last, rng.uniform(3, 9))
    return soft, bone


def page(rng: np.random.Generator) -> Picture:
    """Draw a page of text, or a window with text and panels, dark on light or light on dark. [SIDE, SIDE]"""
    size = 4 * SIDE
    ink, paper = (0, 255) if rng.random() < 0.7 else (255, 0)
    canvas = np.full((size, size), abs(paper - rng.integers(0, 50)), np.uint8)
    for _ in range(rng.integers(0, 6)):
        (x, y), (w, h) = rng.integers(0, size, 2), rng.integers(20, size, 2)
        shade, border = int(rng.integers(256)), -1 if rng.random() < 0.5 else 2
        cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), shade, border)
    height = rng.uniform(0.4, 2.0)
    step, left = int(32 * height * rng.uniform(0.9, 1.6)) + 4, int(rng.integers(0, size // 4))
    for y in range(int(rng.integers(10, size // 2)), size, step):
        line = " ".join(rng.choice(_WORDS, rng.integers(1, 14)))
        cv2.putText(canvas, line, (left, y), int(rng.choice(_FONTS)), height, ink, int(rng.integers(1, 4)))
    return _reduced(canvas)


def plot(rng: np.random.Generator) -> Picture:
    """Draw axes with curves, bars or points. [SIDE, SIDE]"""
    size = 4 * SIDE
    ink, paper = (0, 255) if rng.random() < 0.7 else (255, 0)
    canvas = np.full((size, size), paper, np.uint8)
    cv2.line(canvas, (60, 20), (60, size - 60), ink, 2)
    cv2.line(canvas, (60, size - 60), (size - 20, size - 60), ink, 2)
    x = np.linspace(60, size - 20, 60)
    for _ in range(rng.integers(1, 5)):
        y = size / 2 + np.cumsum(rng.normal(0, 25, 60))
        shade, points = int(rng.integers(256)), np.stack([x, y], 1).astype(np.int32)
        kind = rng.integers(3)
        if kind == 0:
            cv2.polylines(canvas, [points], False, shade, int(rng.integers(1, 6)))
        for px, py in points[::3] if kind == 1 else ():
            cv2.rectangle(canvas, (int(px), int(py)), (int(px) + 14, size - 60), shade, -1)
        for px, py in points if kind == 2 else ():
            cv2.circle(canvas, (int(px), int(py)), int(rng.integers(2, 9)), shade, -1)
    return _reduced(canvas)


def texture(rng: np.random.Generator) -> Picture:
    """Draw noise of some grain, a ramp, stripes, a checkerboard or blobs. [SIDE, SIDE]"""
    grain = 2.0 ** rng.uniform(-1, 5)
    noise: NDArray[Any] = cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), grain)
    angle, wave = rng.uniform(0, 2 * np.pi), 2.0 ** rng.uniform(2, 6)
    along = _COLUMNS * np.cos(angle) + _ROWS * np.sin(angle)
    kinds: tuple[Callable[[], NDArray[Any]], ...] = (
        lambda: noise,
        lambda: along,
        lambda: np.sin(2 * np.pi * along / wave),
        lambda: ((_ROWS // wave + _COLUMNS // wave) % 2).astype(np.float32),
        lambda: np.maximum(noise, np.quantile(noise, rng.uniform(0.3, 0.9))),
        lambda: _ellipsoid(rng.uniform(0.3, 0.7, 2) * SIDE, rng.uniform(15, 60, 2)),
    )
    drawn = kinds[rng.integers(len(kinds))]()
    return _shown(drawn + rng.uniform(0, 0.2) * drawn.std() * rng.normal(0, 1, drawn.shape))


def _capsule(first: NDArray[np.float64], last: NDArray[np.float64], radius: float) -> Picture:
    """Thickness [SIDE, SIDE] of a round rod between two points (x, y)."""
    along = last - first
    x, y = _COLUMNS - first[0], _ROWS - first[1]
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-6), 0, 1)
    away = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2
    return np.asarray(2 * np.sqrt(np.maximum(radius**2 - away, 0)), np.float32)


def _shaft(first: NDArray[np.float64], last: NDArray[np.float64], radius: float) -> Picture:
    """Thickness of a bone: a rod, its marrow thinner, its ends thicker."""
    rod = _capsule(first, last, radius) - 0.6 * _capsule(first, last, 0.6 * radius)
    ends = _capsule(first, first, 1.2 * radius) + _capsule(last, last, 1.2 * radius)
    return np.asarray(np.maximum(rod, 0.6 * ends))


def _ellipsoid(centre: NDArray[np.float64], radii: NDArray[np.float64]) -> Picture:
    """Thickness of an ellipsoid about (x, y), as deep as it is wide."""
    away = ((_COLUMNS - centre[0]) / radii[0]) ** 2 + ((_ROWS - centre[1]) / radii[1]) ** 2
    return np.asarray(2 * radii[0] * np.sqrt(np.maximum(1 - away, 0)), np.float32)


def _reduced(canvas: NDArray[np.uint8]) -> Picture:
    return np.asarray(cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA) / np.float32(255))


def _nothing() -> Picture:
    return np.zeros((SIDE, SIDE), np.float32)


def _shown(values: NDArray[Any]) -> Picture:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-6), np.float32)
