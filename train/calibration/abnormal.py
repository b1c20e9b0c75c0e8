"""The model of the abnormal film: one calibrated probability from all logits, and the threshold that is the film gate.

A film is normal when its known labels are all 0, abnormal when one is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import auroc
from msloc_edge.bundle import Abnormal
from msloc_edge.train.calibration.logistic import fit_logistic
from msloc_edge.train.data.collection import fold_of

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, math.inf)
"""Candidates for how strongly the weights are pulled towards each other; inf: equal weights, the plain sum."""

FOLDS = 5


@dataclass(frozen=True, slots=True)
class AbnormalFit:
    """A fitted model of the abnormal film, and how it was chosen.

    strength   the chosen candidate of STRENGTHS
    auroc      normal against abnormal films, cross-validated, at the candidate with the least loss
    sum_auroc  the same with equal weights, which is the plain sum over the classes
    """

    model: Abnormal
    strength: float
    auroc: float
    sum_auroc: float


def normal_films(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which films are normal: labels [N, K], nan where unknown -> [N]. One without any known label is not.

    >>> normal_films(np.array([[0, 0], [0, np.nan], [0, 1], [np.nan, np.nan]], np.float32))
    array([ True,  True, False, False])
    """
    known = ~np.isnan(labels)
    return known.any(axis=1) & ~abnormal_films(labels)


def abnormal_films(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which films are abnormal: labels [N, K], nan where unknown -> [N]."""
    found: NDArray[np.bool_] = np.logical_or.reduce(labels > 0.5, axis=1)
    return found


def fit_abnormal(evidence: NDArray[np.float64], abnormal: NDArray[np.bool_], patients: Sequence[str]) -> AbnormalFit:
    """Fit the model of the abnormal film by logistic regression, regularised towards equal weights.

    evidence  [N, K] -log(1 - p_k), as bundle.profile.film_evidence gives it
    abnormal  [N] whether the film shows anything
    patients  [N]; the strength of the regularisation is chosen by cross-validation over them

    Of the candidates the strongest is taken whose held-out loss is within one standard error of the least (Breiman et
    al. 1984): a model that is no better than the plain sum is the plain sum. As the loss is that of a logistic
    regression, the probability is calibrated (Platt 1999), for the share of abnormal films among these.

    Raises ValueError when one of the two kinds of film is missing.
    """
    if abnormal.all() or not abnormal.any():
        raise ValueError("expected normal and abnormal films, got only one kind")
    folds = np.array([fold_of(patient, FOLDS) for patient in patients])
    odds = {strength: _held_out(evidence, abnormal, folds, strength) for strength in STRENGTHS}
    loss = {strength: np.logaddexp(0, odds[strength]) - abnormal * odds[strength] for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: float(loss[strength].mean()))
    strength = max(filter(lambda candidate: _as_good(loss[candidate] - loss[best]), STRENGTHS))
    ranked, summed = (float(auroc(odds[candidate], abnormal)[0]) for candidate in (best, math.inf))
    return AbnormalFit(_fit(evidence, abnormal, strength), strength, ranked, summed)


def film_threshold(normals: NDArray[np.float64], rate: float) -> float:
    """Find the threshold on p_abnormal at which at most a share `rate` of further normal films is expected to pass.

    normals  [n] p_abnormal of normal films; a film passes when it is at or above the threshold

    Of n + 1 exchangeable films the last is above the j-th highest of the others with probability j / (n + 1), so the
    threshold lies above the j-th highest, j = floor(rate (n + 1)): midway to the next higher value. Equal films stand
    or fall together. With fewer than 1 / rate - 1 films no threshold can promise it: then it lies above all of them.

    >>> film_threshold(np.arange(19) / 20, 0.1)  # j = 2: above 0.85, below 0.9
    0.875
    """
    values = np.sort(normals)[::-1]
    j = max(1, math.floor(rate * (len(values) + 1) + 1e-9))
    limit = values[min(j, len(values)) - 1]
    higher = values[values > limit].min(initial=1.0)
    middle = (limit + higher) / 2
    return float(middle if middle > limit else higher)  # of two neighbouring floats the middle is one of them


def _held_out(
    evidence: NDArray[np.float64], abnormal: NDArray[np.bool_], folds: NDArray[np.intp], strength: float
) -> NDArray[np.float64]:
    """Compute the log-odds [N] of each film by a model of the other folds, or the prior's where these have one kind."""
    odds = np.full(len(abnormal), math.log(abnormal.mean() / (1 - abnormal.mean())))
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        if abnormal[outside].any() and not abnormal[outside].all():
            model = _fit(evidence[outside], abnormal[outside], strength)
            odds[inside] = model.bias + evidence[inside] @ np.array(model.weights)
    return odds


def _as_good(excess: NDArray[np.float64]) -> bool:
    """Tell whether losses [N] exceed others by no more than one standard error of the mean difference."""
    return bool(excess.mean() <= excess.std() / math.sqrt(len(excess)))


def _fit(evidence: NDArray[np.float64], abnormal: NDArray[np.bool_], strength: float) -> Abnormal:
    """Fit weights of at least 0, penalised by N * strength * sum of (w_k - mean w)^2 / 2."""
    ones = np.ones((len(evidence), 1))
    if math.isinf(strength):
        bias, weight = fit_logistic(
            np.hstack([ones, evidence.sum(axis=1, keepdims=True)]), abnormal, np.zeros((2, 2)), np.zeros(2)
        )
        return Abnormal((max(0.0, float(weight)),) * evidence.shape[1], float(bias))
    weights = np.zeros(evidence.shape[1])
    used = np.ones(evidence.shape[1], np.bool_)
    while True:  # a class whose weight would be below 0 is left out
        count = int(used.sum())
        penalty = np.zeros((1 + count, 1 + count))
        penalty[1:, 1:] = len(evidence) * strength * (np.eye(count) - 1 / max(count, 1))
        bias, *found = fit_logistic(np.hstack([ones, evidence[:, used]]), abnormal, penalty, np.zeros(1 + count))
        weights[used], weights[~used] = found, 0
        if weights.min(initial=0) >= 0:
            return Abnormal(tuple(weights.tolist()), float(bias))
        used &= weights >= 0
