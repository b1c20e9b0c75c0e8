"""Curves of one finding's scores: ROC, and whether a score is the probability that it claims to be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import Array, ratio
from msloc_edge.train.evaluate.froc import sensitivity_at

FALSE_RATES = tuple(round(step / 50, 2) for step in range(51))
"""False positive rates at which the ROC curve is read."""

BINS = 10
"""Bins of equal width of the reliability diagram."""


def roc(scores: Array, positive: NDArray[np.bool_]) -> Array:
    """Sensitivity at each of `FALSE_RATES`: of N films with scores [N] and labels [N], both kinds among them.

    The threshold is the lowest that keeps the false positives within the rate, films of equal score together.
    """
    kinds = scores[positive], scores[~positive]
    true, false = (np.ones((1, len(kind)), np.float32) for kind in kinds)
    return sensitivity_at(kinds[0], true, kinds[1], false, np.array([float(len(kinds[1]))]), FALSE_RATES)[0]


def calibration_error(scores: Array, positive: NDArray[np.bool_], weights: NDArray[np.float32]) -> Array:
    """Expected calibration error: the mean over the bins of |mean score - share of positives|, by their films.

    Naeini et al. 2015 (AAAI), Guo et al. 2017 (arXiv 1706.04599), for the probability of a finding.

    scores    [N] in [0, 1]
    positive  [N]
    weights   [B, N], how often each film counts
    returns   [B]

    >>> once = np.ones((1, 3), np.float32)
    >>> calibration_error(np.array([0.9, 0.8, 0.1]), np.array([True, False, False]), once).round(3)  # 0.1 + 0.8 + 0.1
    array([0.333])
    """
    gaps = np.zeros((len(scores), BINS))
    gaps[np.arange(len(scores)), _bins(scores)] = scores - positive
    w = weights.astype(np.float64)
    return ratio(np.abs(w @ gaps).sum(axis=1), w.sum(axis=1))


def reliability_bins(scores: Array, positive: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Bins of the reliability diagram that hold a film: mean score and share of positives of n films."""
    at = _bins(scores)
    bins = []
    for number in np.unique(at).tolist():
        mine = at == number
        bins.append(
            {
                "score": round(float(scores[mine].mean()), 5),
                "positive": round(float(positive[mine].mean()), 5),
                "n": int(mine.sum()),
            }
        )
    return bins


def _bins(scores: Array) -> NDArray[np.intp]:
    return np.minimum(scores * BINS, BINS - 1).astype(np.intp)
