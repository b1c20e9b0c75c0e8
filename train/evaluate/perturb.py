"""Changed films, and what is measured on them: all on a film's area [h, w] of the model's input, in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import Array
from msloc_edge.imaging.preprocess import Prepared

Film = NDArray[np.float32]

STEPS = 10
"""Steps of the deletion and insertion curves."""

SHIFT, NOISE, CONTRAST = 0.02, 0.02, 1.25
"""Shift as a share of each side; deviation of the noise; how much narrower or wider the window becomes."""

BLUR = 0.05
"""Deviation of the blur that insertion begins with, as a share of the longest side."""


def film_of(prepared: Prepared) -> Film:
    """Give the film's area [h, w] of a model's input, without the letterbox."""
    return np.asarray(prepared.input, np.float32)[prepared.geometry.content]


def with_film(prepared: Prepared, film: Film) -> Prepared:
    """Put a changed film [h, w] into its place in the model's input."""
    whole = np.array(prepared.input, np.float32)
    whole[prepared.geometry.content] = film
    return replace(prepared, input=whole)


def replacement_curve(score: Callable[[Film], float], first: Film, second: Film, map: Film) -> Array:
    """Score `first` while its pixels give way to those of `second`, from the highest of `map` to the lowest.

    first, second, map  [h, w]
    returns             [STEPS + 1]: at 0, 1 / STEPS, ..., all pixels replaced

    Deletion is from the film to a plain one, insertion from a blurred film to the film (Petsiuk et al. 2018, RISE,
    arXiv 1806.07421).
    """
    order = np.argsort(-map.ravel(), kind="stable")
    mixed, scores = first.copy(), [score(first)]
    for step in range(1, STEPS + 1):
        chosen = order[: round(step / STEPS * order.size)]
        mixed.flat[chosen] = second.flat[chosen]
        scores.append(score(mixed))
    return np.array(scores)


def area(curve: Array) -> float:
    """Area under a curve over [0, 1] whose points [N] are equally far apart, by the trapezoidal rule.

    >>> area(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float((curve[1:] + curve[:-1]).mean() / 2)


def plain(film: Film) -> Film:
    """Replace every pixel of a film by its mean."""
    return np.full_like(film, film.mean())


def blurred(film: Film) -> Film:
    """Blur a film by a Gaussian, until no lesion is left of it."""
    sigma = BLUR * max(film.shape)
    return np.asarray(cv2.GaussianBlur(film, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def moved(values: Film, down: int, right: int) -> Film:
    """Move an array [h, w] by whole pixels; what comes in repeats the edge.

    >>> moved(np.array([[1.0, 2.0, 3.0]], np.float32), 0, 1)
    array([[1., 1., 2.]], dtype=float32)
    """
    height, width = values.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    return values[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]


def shift_of(film: Film) -> tuple[int, int]:
    """Pixels down and to the right by which a film [h, w] is shifted."""
    height, width = film.shape
    return max(1, round(SHIFT * height)), max(1, round(SHIFT * width))


def noisy(film: Film, rng: np.random.Generator) -> Film:
    """Add Gaussian noise to a film, and clip it to [0, 1]."""
    return np.clip(film + rng.normal(0, NOISE, film.shape), 0, 1).astype(np.float32)


def windowed(film: Film, contrast: float) -> Film:
    """Narrow (contrast above 1) or widen the window of a film about its middle, 0.5; what leaves [0, 1] is clipped.

    >>> windowed(np.array([[0.0, 0.4, 1.0]], np.float32), 2.0)
    array([[0. , 0.3, 1. ]], dtype=float32)
    """
    return np.clip((film - 0.5) * np.float32(contrast) + 0.5, 0, 1).astype(np.float32)


def rank_correlation(first: Film, second: Film) -> float:
    """Spearman's rank correlation of two maps of one shape, equal values by their mean rank; nan for a constant map.

    >>> rank_correlation(np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 30.0, 20.0]]))
    0.5
    """
    ranks = np.stack([_ranks(values.ravel()) for values in (first, second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = float(np.sqrt((ranks**2).sum(axis=1).prod()))
    return float((ranks[0] * ranks[1]).sum() / spread) if spread > 0 else float("nan")


def _ranks(values: NDArray[np.float32]) -> Array:
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: Array = (ends - (counts - 1) / 2)[at]
    return ranks
