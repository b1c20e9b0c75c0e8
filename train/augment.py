"""Augmentation by what varies between two films of a patient: position, size, tilt, exposure, sharpness; never side."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SHIFT, SCALE, TILT = 0.08, 0.18, 9.0
"""Largest shift as a fraction of the film, largest change of scale, largest tilt in degrees."""

COVERED, SIDE = 0.5, 0.15
"""Share of the films of which rectangles are covered, as a device or a label does, and their longest side."""


def augment(film: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """A film [H, W] uint8 -> a plausible other film of the same patient, float32 in [0, 1].

    No mirror image: the heart is on the left, and a model that has seen it on both sides cannot call situs, nor use the
    asymmetry that several findings have.
    """
    height, width = film.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-TILT, TILT), 1 + rng.uniform(-SCALE, SCALE))
    shift = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    matrix[:, 2] = matrix[:, 2] + shift
    moved = np.asarray(cv2.warpAffine(film, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < COVERED:
        cover(moved, rng)
    gamma, contrast, brightness = rng.uniform(0.65, 1.5), rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    exposure = np.clip(brightness + contrast * np.linspace(0, 1, 256) ** gamma, 0, 1).astype(np.float32)
    out = np.asarray(exposure[moved], np.float32)
    if rng.random() < 0.3:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.0)), np.float32)
    noise = rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(0, 0.02))
    return out + noise


def cover(film: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Fill one to three rectangles of `film` [H, W] with one grey each, in place (Zhong 2017, arXiv 1708.04896).

    The network cannot rest on one sign alone where a film shows several, which is what it memorizes films by.
    """
    height, width = film.shape
    for _ in range(rng.integers(1, 4)):
        rows, columns = (int(side * rng.uniform(SIDE / 3, SIDE)) for side in (height, width))
        top, left = rng.integers(0, height - rows), rng.integers(0, width - columns)
        film[top : top + rows, left : left + columns] = rng.integers(0, 256)
