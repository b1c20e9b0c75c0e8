"""A map of one finding on one film, and findings of other names put together from a model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import TrainError
from msloc_edge.maps import Region, regions
from msloc_edge.maps.boxes import select_regions

HALF = 0.5
"""Threshold of maps that have no absolute one, as a share of each map's own range."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A map over the whole film, at any resolution.

    values  [h, w] float32: finite, higher is more; the peak, Wang's boxes and MaxBoxAccV2 come from it
    margin  [h, w] float32: values less the threshold; regions are where it is above 0
    """

    values: NDArray[np.float32]
    margin: NDArray[np.float32]

    def regions(self) -> list[Region]:
        """Find the regions that become boxes, in pixels of the map, by the rules of `msloc-edge infer`."""
        return select_regions(regions(self.margin, 0), 0)

    @classmethod
    def above(cls, values: NDArray[np.float32], threshold: float) -> Evidence:
        """Regions by an absolute threshold."""
        return cls(values, values - np.float32(threshold))

    @classmethod
    def half_range(cls, values: NDArray[np.float32]) -> Evidence:
        """Regions are what lies above the middle of the map's own range; a constant map has none."""
        low, high = values.min(), values.max()
        return cls.above(values, float(low + (high - low) * HALF))

    @classmethod
    def thresholded(cls, values: NDArray[np.float32], thresholds: Mapping[str, float], label: str) -> Evidence:
        """Regions by the absolute threshold of a finding, or of every finding (""); by `half_range` without either."""
        threshold = thresholds.get(label, thresholds.get(""))
        return cls.half_range(values) if threshold is None else cls.above(values, threshold)

    @classmethod
    def union(cls, parts: Sequence[Evidence]) -> Evidence:
        """The pixel-wise maximum of maps of one shape; a pixel is in a region where it is in a region of any part, so
        that each part keeps its own threshold."""
        first, *others = parts
        values, margin = first.values, first.margin
        for part in others:
            values, margin = np.maximum(values, part.values), np.maximum(margin, part.margin)
        return cls(values, margin)


def parse_mapping(rules: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """ "Lung Opacity=Pneumonia+Infiltration" -> {"Lung Opacity": ("Pneumonia", "Infiltration")}.

    Raises ValueError for a rule of another form, or a finding mapped twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        name, _, right = rule.partition("=")
        name, parts = name.strip(), tuple(part.strip() for part in right.split("+"))
        if not name or not all(parts):
            raise ValueError(f'expected "New=A+B", got {rule!r}')
        if name in found:
            raise ValueError(f"expected each finding once, got {name!r} again in {rule!r}")
        found[name] = parts
    return found


def resolve_labels(known: Sequence[str], mapping: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Finding -> the labels of a model that make it up: itself, or the parts that `mapping` names.

    Raises TrainError (option_invalid) for a part that the model does not have.
    """
    for name, parts in mapping.items():
        unknown = [part for part in parts if part not in known]
        if unknown:
            raise TrainError(
                "option_invalid", f"--map {name}: expected findings of {', '.join(known)}, got {unknown[0]!r}"
            )
    return {label: (label,) for label in known} | {name: tuple(parts) for name, parts in mapping.items()}
