"""The operating point of a model, by numbers in its manifest: a gate on the film, then thresholds for each class.

    positive(film, k) = p_abnormal >= film  and  p_k >= score[k]  and  the map M_k has a region above map[k]

Thresholds per class alone flag nearly every normal film, as each class adds its own false alarms. So the film is judged
first, as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msloc_edge.imaging.gate import REASONS, REFUSED, RULES
from msloc_edge.types import MIN_AREA

_REFUSABLE = (*REASONS, *RULES, "not_frontal")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of absolute thresholds, and what was measured at it. K classes.

    score  [K] on the calibrated probabilities p_k
    map    [K] on the localization maps M_k, logit units
    film   on p_abnormal; None leaves the gate open
    rates  what validation films showed at these thresholds, by cross-validation (docs/method.md); empty where nobody
           measured
    refuse reason codes of the input gate for which a film is not localized at all; for the others it is with a warning
    """

    score: tuple[float, ...]
    map: tuple[float, ...]
    film: float | None = None
    rates: Mapping[str, Any] = field(default_factory=dict)
    refuse: tuple[str, ...] = REFUSED

    def refusal(self, warnings: Collection[str]) -> str | None:
        """Choose the reason for which a film with these warnings is refused; None where it is not.

        >>> Profile((0.5,), (1.0,)).refusal(["no_window", "rotated"])
        'rotated'
        """
        return next((code for code in self.refuse if code in warnings), None)

    @property
    def normals_flagged(self) -> float | None:
        """Share of normal films with a positive finding, as measured; None where nobody did."""
        rate = self.rates.get("normals_flagged") or {"value": None}
        return None if rate["value"] is None else float(rate["value"])

    def reached(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Decide whether scores p_k [..., K] reach the thresholds of their classes: [..., K]."""
        return np.asarray(scores) >= np.array(self.score)

    def passes(self, abnormal: ArrayLike) -> NDArray[np.bool_]:
        """Decide whether films pass the gate: p_abnormal of any shape -> the same shape."""
        abnormal = np.asarray(abnormal)
        return np.ones(abnormal.shape, np.bool_) if self.film is None else abnormal >= self.film

    def positive(self, abnormal: ArrayLike, scores: ArrayLike, regions: ArrayLike) -> NDArray[np.bool_]:
        """Decide which findings are positive: p_abnormal [...], p_k [..., K], has-a-region [..., K] -> [..., K].

        >>> Profile((0.2, 0.4), (1.0, 1.0), film=0.5).positive(0.6, [0.3, 0.3], [True, True])
        array([ True, False])
        """
        return self.passes(abnormal)[..., None] & self.reached(scores) & np.asarray(regions, np.bool_)


@dataclass(frozen=True, slots=True)
class Abnormal:
    """Probability that a film shows anything at all: a logistic regression on all logits.

    p_abnormal = sigmoid(bias + sum_k weights_k softplus(z_k / T)), where softplus(z / T) = -log(1 - p). With equal
    weights the sum is minus the logarithm of the probability that no finding is there, were findings independent.

    weights  [K], at least 0
    bias     what a film has on which every p_k is 0
    """

    weights: tuple[float, ...]
    bias: float

    def probability(self, logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
        """Compute p_abnormal of films: logits [..., K] -> [...].

        >>> bool(np.isclose(Abnormal((1.0,), 0.0).probability([0.0], 1.0), 2 / 3))  # sigmoid(log 2)
        True
        """
        evidence = self.bias + film_evidence(logits, temperature) @ np.array(self.weights)
        return 1 / (1 + np.exp(-evidence))


def film_evidence(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Compute -log(1 - p_k) of logits [..., K], as softplus(z_k / T): [..., K]."""
    return np.logaddexp(0, np.asarray(logits, np.float64) / temperature)


@dataclass(frozen=True, slots=True)
class RegionRule:
    """Limits of the regions of a map that become boxes; those that are smaller or weaker do not.

    min_area   smallest area, pixels of the model's input
    min_share  smallest rise of a region's peak above the threshold, as a share of the highest rise of those of
               `min_area`, 0 to 1
    """

    min_area: int = MIN_AREA
    min_share: float = 0.0


def parse_profile(entry: Mapping[str, Any], classes: int) -> Profile:
    """Read an entry of a manifest's `profiles`. Raises KeyError, TypeError, ValueError for what is none."""
    film = entry.get("film")
    if film is not None and not 0 <= float(film) <= 1:
        raise ValueError(f"expected a film threshold of 0 to 1, got {film}")
    rates = entry.get("rates") or {}
    if not isinstance(rates, Mapping):
        raise ValueError(f"expected rates by name, got {rates}")
    refuse = tuple(entry.get("refuse", REFUSED))
    if unknown := [code for code in refuse if code not in _REFUSABLE]:
        raise ValueError(f"expected reasons to refuse of {', '.join(_REFUSABLE)}, got {unknown[0]!r}")
    profile = Profile(
        numbers(entry["score"], classes),
        numbers(entry["map"], classes),
        None if film is None else float(film),
        rates,
        refuse,
    )
    if profile.normals_flagged is not None and not 0 <= profile.normals_flagged <= 1:
        raise ValueError(f"expected a share of normal films of 0 to 1, got {profile.normals_flagged}")
    return profile


def parse_abnormal(entry: Mapping[str, Any] | None, classes: int) -> Abnormal | None:
    """Read a manifest's `abnormal`, None where it has none. Raises KeyError, TypeError, ValueError for what is none."""
    if entry is None:
        return None
    weights = numbers(entry["weights"], classes)
    if min(weights) < 0:
        raise ValueError(f"expected weights of at least 0 for the abnormal film, got {min(weights)}")
    return Abnormal(weights, numbers([entry["bias"]], 1)[0])


def parse_regions(entry: Mapping[str, Any] | None) -> RegionRule:
    """Read a manifest's `regions`; what is missing has its default. Raises TypeError, ValueError for what is none."""
    rule = RegionRule(**(entry or {}))
    if not (rule.min_area >= 1 and math.isfinite(rule.min_area)) or not 0 <= rule.min_share <= 1:
        raise ValueError(f"expected regions of at least 1 pixel and a share of 0 to 1, got {entry}")
    return rule


def numbers(values: Sequence[float], count: int) -> tuple[float, ...]:
    """Read `count` finite numbers. Raises TypeError, ValueError for anything else."""
    found = tuple(float(value) for value in values)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"expected {count} finite numbers, got {values}")
    return found
