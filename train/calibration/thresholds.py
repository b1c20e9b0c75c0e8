"""Fits of temperature, score thresholds and map thresholds, all on validation films.

Every threshold is absolute, one per class, and stored in the bundle; no film is stretched by its own extremes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

PROFILES = ("youden", "sensitivity-90", "specificity-95")
MAP_CANDIDATES = 200


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """The T > 0 that minimises the cross-entropy of sigmoid(z / T) (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    logits and labels are [N, K], labels nan where unknown. Returns a value in [0.05, 20].
    """
    known = ~np.isnan(labels)
    z, y = torch.from_numpy(logits[known]).double(), torch.from_numpy(labels[known]).double()
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(z / log_t.exp(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(np.clip(log_t.exp().item(), 0.05, 20.0))


def score_thresholds(scores: NDArray[np.float64], labels: NDArray[np.float32]) -> dict[str, float]:
    """Fit a class's threshold for each profile; a film is positive when its score is >= the threshold.

    scores [N] in [0, 1], labels [N], nan where unknown. Candidates lie midway between neighbouring scores.

        youden           largest sensitivity + specificity (Youden 1950); the middle of a plateau
        sensitivity-90   the highest threshold with sensitivity >= 0.90
        specificity-95   the lowest threshold with specificity >= 0.95

    Raises ValueError when one of the two kinds of film is missing.
    """
    scores, positive = scores[~np.isnan(labels)], labels[~np.isnan(labels)] > 0.5
    if positive.all() or not positive.any():
        raise ValueError("expected validation films with and without the finding, got only one kind")
    values = np.unique(scores)
    # Above its score, even where the score is 1 or the next one is its neighbour in floating point.
    above = np.maximum((values + np.append(values[1:], 1)) / 2, np.nextafter(values, 2))
    candidates = np.concatenate([[values[0] / 2], above])
    sensitivity = 1 - np.searchsorted(np.sort(scores[positive]), candidates) / positive.sum()
    specificity = np.searchsorted(np.sort(scores[~positive]), candidates) / (~positive).sum()
    youden = sensitivity + specificity
    best = candidates[youden >= youden.max() - 1e-12]
    return {
        "youden": float(best[len(best) // 2]),
        "sensitivity-90": float(candidates[sensitivity >= 0.90].max()),
        "specificity-95": float(candidates[specificity >= 0.95].min()),
    }


def missing_thresholds(scores: NDArray[np.float64], labels: NDArray[np.float32]) -> float:
    """Guess a class's threshold from films of one kind only: above 95% of the scores of those without the finding, or
    1/2 where there are none.

    scores [N] in [0, 1], labels [N], nan where unknown.
    """
    absent = scores[labels == 0]
    return float(np.quantile(absent, 0.95)) if absent.size else 0.5


def map_threshold(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> tuple[float, float]:
    """Fit a class's absolute map threshold: the one with the largest mean IoU over its positive validation films.

    maps and masks are N arrays [h, w]; every film weighs the same. Returns (threshold in logit units, its mean IoU).
    Raises ValueError when there is no film.
    """
    if not maps:
        raise ValueError("expected at least one validation film with the finding, got none")
    candidates = np.quantile(np.stack(maps), np.linspace(0.5, 0.9995, MAP_CANDIDATES))
    total = np.zeros(MAP_CANDIDATES)
    for localization_map, mask in zip(maps, masks, strict=True):
        inside, outside = np.sort(localization_map[mask]), np.sort(localization_map[~mask])
        hits = inside.size - np.searchsorted(inside, candidates)
        false = outside.size - np.searchsorted(outside, candidates)
        total += hits / (inside.size + false)
    best = int(total.argmax())
    return float(candidates[best]), float(total[best] / len(maps))
