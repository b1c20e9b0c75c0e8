"""Score thresholds behind the film gate: as many true labels as a bounded number of wrong findings allows.

To maximise (labels found) - lambda (wrong findings) over all classes together, each class takes every film on which
its probability, among the films that pass the gate, is at least lambda / (1 + lambda): one probability for all classes.
So a class needs two numbers, a line through its log-odds, and all classes one more; thresholds that are free for each
class would follow the chance of a few films.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.calibration.logistic import fit_logistic

MAX_WRONG = 1.35
"""Wrong findings a film to fit with: 1.5 is the aim, less a tenth for what other films show."""

MIN_POSTERIOR = 0.05
"""Probability behind the gate below which a finding is not shown, however few are wrong."""

MIN_SENSITIVITY = 0.2
URGENT: Mapping[str, float] = {"Pneumothorax": 0.3, "Nodule": 0.3, "Mass": 0.3}
"""Share of a class's films behind the gate that is found whatever the trade-off, so that no class falls silent."""

_SLOPE_SPREAD, _MIN_SLOPE = 0.5, 0.1  # of the prior of a line's slope; smallest slope
_BISECTIONS = 40


@dataclass(frozen=True, slots=True, eq=False)
class GatedFilms:
    """N films of a calibration, K classes.

    logits   [N, K] log-odds z / T
    labels   [N, K] 1, 0, or nan where unknown
    regions  [N, K] whether the map has a region
    passed   [N] whether the film passes the gate
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.float32]
    regions: NDArray[np.bool_]
    passed: NDArray[np.bool_]

    def wrong(self, thresholds: NDArray[np.float64]) -> float:
        """Count the findings that are positive at log-odds [K] and known to be absent, per film."""
        found = (self.logits >= thresholds) & self.regions & self.passed[:, None]
        return float((found & (self.labels == 0)).sum() / len(self.labels))


@dataclass(frozen=True, slots=True, eq=False)
class TradeOff:
    """Thresholds of K classes as a function of one probability.

    slopes, offsets  [K] log-odds among the films behind the gate = slope * logit + offset; nan for a class that does
                     not have a film of each kind there
    ceilings         [K] the highest log-odds that keep a class's smallest sensitivity
    """

    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    ceilings: NDArray[np.float64]

    @classmethod
    def fit(cls, films: GatedFilms, classes: Sequence[str]) -> TradeOff:
        """Fit the lines and ceilings of all classes."""
        lines = np.array([_line_behind(films, k) for k in range(len(classes))])
        ceilings = [_ceiling(films, k, URGENT.get(label, MIN_SENSITIVITY)) for k, label in enumerate(classes)]
        return cls(lines[:, 0], lines[:, 1], np.array(ceilings))

    def thresholds(self, posterior: float) -> NDArray[np.float64]:
        """Give the log-odds [K] at which a finding's probability behind the gate is `posterior`, or the ceiling where
        that is lower; nan for a class without a line."""
        return np.minimum((math.log(posterior / (1 - posterior)) - self.offsets) / self.slopes, self.ceilings)

    def posterior(self, films: GatedFilms, max_wrong: float = MAX_WRONG) -> float:
        """Find the lowest probability with at most `max_wrong` wrong findings a film, from MIN_POSTERIOR to 1/2."""

        def too_many(posterior: float) -> bool:
            return films.wrong(np.nan_to_num(self.thresholds(posterior), nan=math.inf)) > max_wrong

        low, high = MIN_POSTERIOR, 0.5
        if not too_many(low):
            return low
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if too_many(middle) else (low, middle)
        return high


def fit_line(logits: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit slope and offset of a class's log-odds on some films: sigmoid(slope * logit + offset) (Platt 1999).

    logits, positive  [N], of both kinds

    The slope has a normal prior around 1, as the log-odds are calibrated over all films: a few films bend the line only
    a little. A line that would fall is drawn as one that hardly rises.
    """
    x = np.stack([logits, np.ones(len(logits))], axis=1)
    slope, offset = fit_logistic(x, positive, np.diag([_SLOPE_SPREAD**-2, 0.0]), np.array([1.0, 0.0]))
    return max(float(slope), _MIN_SLOPE), float(offset)


def _line_behind(films: GatedFilms, k: int) -> tuple[float, float]:
    known = films.passed & ~np.isnan(films.labels[:, k])
    positive = films.labels[known, k] > 0.5
    both_kinds = positive.any() and not positive.all()
    return fit_line(films.logits[known, k], positive) if both_kinds else (math.nan, math.nan)


def _ceiling(films: GatedFilms, k: int, sensitivity: float) -> float:
    """Find the highest threshold with this sensitivity behind the gate, midway to the next lower film there.

    inf where too few of the maps have a region.
    """
    there = films.passed & (films.labels[:, k] > 0.5)
    found = np.sort(films.logits[there & films.regions[:, k], k])[::-1]
    needed = math.ceil(sensitivity * there.sum() - 1e-9)
    if not 0 < needed <= len(found):
        return math.inf
    lowest = found[needed - 1]
    lower = films.logits[films.passed & (films.logits[:, k] < lowest), k]
    return float((lowest + (lower.max() if lower.size else lowest)) / 2)
