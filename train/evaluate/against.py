"""Two methods on the same films: differences of their figures, with intervals by the same resamples of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msloc_edge._statistics import Array
from msloc_edge.train.calibration.resample import Figure, mean_over
from msloc_edge.train.evaluate.summary import Summary


def compare(first: Summary, second: Summary, labels: Sequence[str]) -> dict[str, Any]:
    """Compare two methods by the figures of `Summary.samples`, over the findings that both have.

    Both must have measured the same films in the same order, with the same seed: a resample is then the same patients
    for both, and what is hard for both cancels out of the difference (paired bootstrap; Efron and Tibshirani 1993).

    returns  {figure: {"first": macro, "second": macro, "difference": {"macro", "per_class"}}}; first less second
    """
    tables = {}
    ours, theirs = first.samples(labels), second.samples(labels)
    for figure, (samples, counts) in ours.items():
        others = theirs[figure][0]
        if common := [label for label in samples if label in others]:
            tables[figure] = _compare(samples, others, {label: counts[label] for label in common})
    return tables


def _compare(first: Mapping[str, Array], second: Mapping[str, Array], counts: Mapping[str, int]) -> dict[str, Any]:
    number = sum(counts.values())
    mean_first, mean_second = (mean_over([side[label] for label in counts]) for side in (first, second))
    return {
        "first": Figure.of(mean_first, number).to_dict(),
        "second": Figure.of(mean_second, number).to_dict(),
        "difference": {
            "macro": Figure.of(mean_first - mean_second, number).to_dict(),
            "per_class": {
                label: Figure.of(first[label] - second[label], count).to_dict() for label, count in counts.items()
            },
        },
    }
