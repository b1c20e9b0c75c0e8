"""FROC: the share of true boxes that are found, against false boxes per film (Bunch et al. 1978).

A true box is found by a box with IoU above 0.1, and its score is the highest among those that find it. A box that finds
none is false. Films are those with a box of the class, and those known to be without the finding whose maps were
made; a film with the finding but no box says nothing of where it is, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import Array, ratio
from msloc_edge.maps.boxes import Boxes, iou

RATES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""False boxes per film at which the curve is read."""

MATCH_IOU = 0.1


def match(detected: Boxes, scores: Array, true: Boxes) -> tuple[Array, Array]:
    """One film's boxes [N, 4] with scores [N] against true boxes [M, 4].

    Returns the score at which each true box is found [M], -inf for one that is not, and the scores of false boxes.
    """
    found = iou(detected, true) > MATCH_IOU
    at = np.where(found, scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
    return at, scores[~found.any(axis=1)]


def sensitivity_at(
    true: Array,
    true_weights: NDArray[np.float32],
    false: Array,
    false_weights: NDArray[np.float32],
    films: Array,
    rates: Sequence[float] = RATES,
) -> Array:
    """The share of true boxes found at each rate of false boxes per film: [B, rates].

    true, false        scores [M], [F], of all films of a class, as `match` gives them
    ..._weights        [B, M], [B, F]: how often the film of each is drawn
    films              [B]: how many films are drawn

    The score threshold is the lowest that keeps the false boxes within the rate, those of equal score together.
    """
    order = np.argsort(-false, kind="stable")
    false, over = false[order], false_weights[:, order].cumsum(axis=1, dtype=np.float64)
    rising = np.argsort(true, kind="stable")
    true = true[rising]
    total = true_weights.sum(axis=1, dtype=np.float64)
    above = np.zeros((len(films), len(true) + 1))  # weight of the true boxes from each rank upwards
    above[:, :-1] = true_weights[:, rising][:, ::-1].cumsum(axis=1, dtype=np.float64)[:, ::-1]
    found = np.zeros((len(films), len(rates)))
    for column, rate in enumerate(rates):
        kept = (over <= rate * films[:, None] + 1e-9).sum(axis=1)  # the first that is one too many has this rank
        limit = np.append(false, -np.inf)[kept]
        found[:, column] = np.take_along_axis(above, np.searchsorted(true, limit, side="right")[:, None], 1)[:, 0]
    return ratio(found, total[:, None])
