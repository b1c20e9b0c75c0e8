"""Scores against image-level labels: AUROC, average precision, and what thresholds call.

The figures of the data are scikit-learn's. Their resamples are the same quantities with films weighted, all resamples
in one expression; `tests/train/evaluate` holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from msloc_edge.train.evaluate.resample import Array, ratio

_CHUNK = 64  # resamples at a time: 25,000 films then take 13 MB


def auroc(scores: Array, positive: NDArray[np.bool_], weights: NDArray[np.float32]) -> Array:
    """Area under the ROC curve of N films, as they are (row 0) and in each resample: [N], [N], [B, N] -> [B]."""
    return _ranked(scores, positive, weights, _auroc, roc_auc_score)


def average_precision(scores: Array, positive: NDArray[np.bool_], weights: NDArray[np.float32]) -> Array:
    """Average precision, sum of (R_n - R_{n-1}) P_n, likewise: [N], [N], [B, N] -> [B]."""
    return _ranked(scores, positive, weights, _average_precision, average_precision_score)


def rates(called: NDArray[np.bool_], positive: NDArray[np.bool_], weights: NDArray[np.float32]) -> tuple[Array, Array]:
    """(sensitivity, specificity), both [B], of N films that were called positive or not: [N], [N], [B, N]."""
    w = weights.astype(np.float64)
    sensitivity = ratio(w[:, called & positive].sum(axis=1), w[:, positive].sum(axis=1))
    return sensitivity, ratio(w[:, ~called & ~positive].sum(axis=1), w[:, ~positive].sum(axis=1))


def _ranked(
    scores: Array,
    positive: NDArray[np.bool_],
    weights: NDArray[np.float32],
    weighted: Callable[[Array, Array], Array],
    plain: Callable[[NDArray[np.bool_], Array], float],
) -> Array:
    if positive.all() or not positive.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where each distinct score begins
    found = [np.array([plain(positive, scores)])]
    for rows in range(1, len(weights), _CHUNK):
        w = weights[rows : rows + _CHUNK, order].astype(np.float64)
        with_finding = np.add.reduceat(w * positive[order], ties, axis=1)
        found.append(weighted(with_finding, np.add.reduceat(w * ~positive[order], ties, axis=1)))
    return np.concatenate(found)


def _auroc(positive: Array, negative: Array) -> Array:
    """From the weight at each distinct score, ascending [B, G]: the share of pairs in right order, ties by half."""
    below = negative.cumsum(axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return ratio((positive * (below + negative / 2)).sum(axis=1), pairs)


def _average_precision(positive: Array, negative: Array) -> Array:
    hits, false = positive[:, ::-1].cumsum(axis=1), negative[:, ::-1].cumsum(axis=1)
    precision = np.nan_to_num(ratio(hits, hits + false))
    return ratio((precision * positive[:, ::-1]).sum(axis=1), positive.sum(axis=1))
