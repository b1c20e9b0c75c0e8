"""Figures of ranked scores, for training, evaluation and export alike: exact, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CHUNK = 64  # rows of weights at a time: 25,000 films then take 13 MB


def auroc(scores: Array, positive: NDArray[np.bool_], weights: NDArray[np.float32] | None = None) -> Array:
    """Area under the ROC curve: the share of pairs of a positive and a negative film in right order, ties by half.

    Mann and Whitney 1947; with weights, a pair counts as often as both of its films together.

    scores    [N]
    positive  [N]
    weights   [B, N], how often each film counts, such as in B resamples; None: each once
    returns   [B], or [1]; nan without a film of either kind, and where a score is not finite

    >>> auroc(np.array([0.9, 0.8, 0.3, 0.3]), np.array([True, False, True, False]))  # 2.5 of 4 pairs
    array([0.625])
    """
    return _ranked(scores, positive, weights, _auroc)


def average_precision(scores: Array, positive: NDArray[np.bool_], weights: NDArray[np.float32] | None = None) -> Array:
    """Average precision, sum of (R_n - R_{n-1}) P_n over the distinct scores, the highest first.

    Arguments and result as of `auroc`.

    >>> average_precision(np.array([0.9, 0.8, 0.3, 0.3]), np.array([True, False, True, False]))  # 1/2 of 1, of 2/4
    array([0.75])
    """
    return _ranked(scores, positive, weights, _average_precision)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide elementwise; nan where the denominator is not above 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    bottom = np.broadcast_to(denominator, shape)
    return np.divide(numerator, bottom, out=np.full(shape, np.nan), where=bottom > 0)


def _ranked(
    scores: Array,
    positive: NDArray[np.bool_],
    weights: NDArray[np.float32] | None,
    figure: Callable[[Array, Array], Array],
) -> Array:
    if weights is None:
        weights = np.ones((1, len(scores)), np.float32)
    if positive.all() or not positive.any() or not np.isfinite(scores).all():
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    begins = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each distinct score
    found = []
    for first in range(0, len(weights), _CHUNK):
        w = weights[first : first + _CHUNK, order].astype(np.float64)
        kinds = (np.add.reduceat(w * kind[order], begins, axis=1) for kind in (positive, ~positive))
        found.append(figure(*kinds))
    return np.concatenate(found)


def _auroc(positive: Array, negative: Array) -> Array:
    """From the weights at each distinct score, ascending [B, G]."""
    below = negative.cumsum(axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return ratio((positive * (below + negative / 2)).sum(axis=1), pairs)


def _average_precision(positive: Array, negative: Array) -> Array:
    """From the weights at each distinct score, ascending [B, G]."""
    hits, false = positive[:, ::-1].cumsum(axis=1), negative[:, ::-1].cumsum(axis=1)
    precision = np.nan_to_num(ratio(hits, hits + false))
    return ratio((precision * positive[:, ::-1]).sum(axis=1), positive.sum(axis=1))
