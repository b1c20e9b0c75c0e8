"""Rates of an operating point: what it does to normal films and to abnormal ones, with 95% intervals.

A film is flagged when it has a positive finding. Films of one patient resemble each other, so intervals come from a
bootstrap over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import Array, auroc, ratio
from msloc_edge.train.calibration.abnormal import abnormal_films, normal_films
from msloc_edge.train.calibration.resample import Figure, film_weights
from msloc_edge.train.calibration.subgroups import in_order

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFilms:
    """Films with their labels, and the groups that they are counted by. N films, K classes.

    labels    [N, K] 1, 0, or nan where unknown
    patients  [N]
    groups    name of a subgroup -> each film's group, None where unknown
    """

    classes: tuple[str, ...]
    labels: NDArray[np.float32]
    patients: tuple[str, ...]
    groups: Mapping[str, Sequence[str | None] | NDArray[np.object_]]


def operating_point(
    films: LabelledFilms,
    positive: Flags,
    boxes: NDArray[np.intp],
    abnormal: NDArray[np.float64] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    folds: NDArray[np.intp] | None = None,
) -> dict[str, Any]:
    """Measure the rates of an operating point, plain JSON: every figure is {value, low, high, n}, null for what the
    films cannot tell.

    positive  [N, K] whether each finding is positive
    boxes     [N] boxes of the positive findings; looked at for normal films only
    abnormal  [N] p_abnormal, where there is one
    folds     [N] of a cross-validation, in which each fold has its own p_abnormal: only films of one fold are compared

        normals_flagged           share of normal films with a positive finding; also by subgroup, in normals_flagged_by
        abnormal_flagged          the same of abnormal films
        label_recall              share of the labels that are 1 whose finding is positive
        wrong_findings_per_film   positive findings whose label is 0, per film
        boxes_per_normal_film     mean number of boxes
        sensitivity, precision    of each class, over the films whose label is known
        abnormal_auroc            abnormal against normal films, by p_abnormal
        films, normals, abnormals, patients   how many there were
    """
    rates = _Rates(films, resamples, seed)
    normal, ill = normal_films(films.labels), abnormal_films(films.labels)
    flagged: Flags = np.logical_or.reduce(positive, axis=1)
    true, false = positive & (films.labels > 0.5), positive & (films.labels == 0)
    there = films.labels > 0.5
    found: dict[str, Any] = {
        "films": len(films.labels),
        "normals": int(normal.sum()),
        "abnormals": int(ill.sum()),
        "patients": len(set(films.patients)),
        "normals_flagged": rates.share(flagged, normal),
        "normals_flagged_by": {
            name: {
                group: rates.share(flagged, normal & np.array([mine == group for mine in groups]))
                for group in in_order({group for group in groups if group})
            }
            for name, groups in films.groups.items()
        },
        "abnormal_flagged": rates.share(flagged, ill),
        "label_recall": rates.per(true.sum(axis=1), there.sum(axis=1)),
        "wrong_findings_per_film": rates.per(false.sum(axis=1), np.ones(len(flagged))),
        "boxes_per_normal_film": rates.per(np.where(normal, boxes, 0), normal),
        "sensitivity": {
            "per_class": {label: rates.share(true[:, k], there[:, k]) for k, label in enumerate(films.classes)}
        },
        "precision": {
            "per_class": {
                label: rates.share(true[:, k], true[:, k] | false[:, k]) for k, label in enumerate(films.classes)
            }
        },
    }
    if abnormal is None:
        return found
    folds = np.zeros(len(flagged), np.intp) if folds is None else folds
    return found | {"abnormal_auroc": rates.auroc(abnormal, normal, ill, folds)}


class _Rates:
    """Figures of the films as they are and of resamples of their patients."""

    def __init__(self, films: LabelledFilms, resamples: int, seed: int) -> None:
        self._weights = film_weights(films.patients, resamples, seed)

    def share(self, counted: Flags, among: Flags) -> dict[str, Any]:
        """Compute the share of the films `among` that are `counted`, both [N]."""
        return self.per(counted & among, among)

    def per(self, counted: NDArray[Any], by: NDArray[Any]) -> dict[str, Any]:
        """Divide the sum of a number of each film by the sum of another, both [N]."""
        top, bottom = (self._weights.astype(np.float64) @ numbers.astype(np.float64) for numbers in (counted, by))
        return Figure.of(ratio(top, bottom), int(np.sum(by))).to_dict()

    def auroc(self, scores: Array, normal: Flags, ill: Flags, folds: NDArray[np.intp]) -> dict[str, Any]:
        """Compute the share of pairs of an abnormal and a normal film of one fold that scores [N] order rightly."""
        right, pairs = np.zeros(len(self._weights)), np.zeros(len(self._weights))
        for fold in np.unique(folds):
            inside = (normal | ill) & (folds == fold)
            weights = self._weights[:, inside].astype(np.float64)
            number = weights[:, ill[inside]].sum(axis=1) * weights[:, normal[inside]].sum(axis=1)
            share = auroc(scores[inside], ill[inside], self._weights[:, inside])
            told = (number > 0) & np.isfinite(share)
            right += np.where(told, share * number, 0)
            pairs += np.where(told, number, 0)
        return Figure.of(ratio(right, pairs), int((normal | ill).sum())).to_dict()
