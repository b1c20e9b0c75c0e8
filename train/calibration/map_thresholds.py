"""Map thresholds: by true masks where there are some, else by the height of the maps of positive films. No box is used.

A map threshold is where the map agrees best with the true masks of films that have them, inserted lesions before
phantoms. The maps of real films have another height than those of phantoms: the threshold is scaled by the height of
the real positives' maps over that of the phantoms'. A class without any mask takes the mean share of the height of
those that have one, or half of the height where no class has.

A finding is positive only where its map has a region, so that a map threshold can silence it. Inserted lesions show
better than true ones: what is fitted on them, or on phantoms, is lowered until most true positives have a region.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.train.calibration.network import F32, MAP_STRIDE, Network, look_at, maps_of
from msloc_edge.train.calibration.observe import Observed
from msloc_edge.train.calibration.thresholds import map_threshold, score_thresholds
from msloc_edge.train.data import Films
from msloc_edge.train.loader import resized

HALF = 0.5
"""Share of the height of positives' maps where no class has a mask (docs/method.md tells how it compares)."""


SHOWN = 0.9
"""Share of a class's positive films that reach Youden's score threshold whose maps must have a region."""

_MIN_POSITIVES = 5  # fewer do not tell a share


@dataclass(frozen=True, slots=True, eq=False)
class MaskedMap:
    """A film's map of class k and the finding's true mask, both [h, w] on the finest stage's grid."""

    k: int
    patient: str
    map: F32
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MapFit:
    """Map threshold of a class by true masks: its mean IoU with them, and the median height of those films' maps."""

    threshold: float
    iou: float
    height: float

    @property
    def share(self) -> float:
        """The threshold as a share of the height."""
        return self.threshold / self.height


@dataclass(frozen=True, slots=True)
class MapThresholds:
    """Map thresholds of all classes [K], the mean IoU with masks by class index, and the rule that gave each [K]."""

    thresholds: tuple[float, ...]
    overlap: Mapping[int, float]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Maps with true masks that thresholds are fitted on.

    lesions   of lesions inserted into real films
    others    of films whose masks are known, such as phantoms
    complete  whether the films that scores are fitted on all have masks
    """

    lesions: Sequence[MaskedMap]
    others: Sequence[MaskedMap]
    complete: bool

    def fit(self, observed: Observed, left_out: Collection[str] = ()) -> MapThresholds:
        """Fit the map thresholds of all classes.

        observed  films whose positives' maps tell the heights
        left_out  patients whose masks must not count
        """
        by_lesions, by_masks = (
            fit_to_masks(item for item in items if item.patient not in left_out)
            for items in (self.lesions, self.others)
        )
        fits = by_masks | by_lesions
        usual = float(np.mean([fit.share for fit in fits.values()])) if fits else HALF
        heights = [observed.heights[observed.labels[:, k] > 0.5, k] for k in range(len(observed.classes))]
        typical = [float(np.median(mine)) for mine in heights if len(mine)] or [float(np.median(observed.heights))]
        found = []
        for k, mine in enumerate(heights):
            height = float(np.median(mine)) if len(mine) else float(np.median(typical))
            if self.complete and k in by_masks:
                found.append((by_masks[k].threshold, "true masks of validation films"))
            elif k in by_lesions:
                found.append((by_lesions[k].threshold, "lesions inserted into normal validation films"))
            elif k in by_masks:
                scaled = _at_share(by_masks[k].share, height)
                found.append((scaled, "phantoms' masks, scaled to the height of the maps of real positives"))
            else:
                whose = "the other findings' share" if fits else "half"
                of = "of real positives" if len(mine) else "of other findings' positives"
                found.append((_at_share(usual, height), f"{whose} of the height of the maps {of}"))
        if not self.complete:
            found = [_lowered(observed, k, threshold, rule) for k, (threshold, rule) in enumerate(found)]
        thresholds, rules = zip(*found, strict=True)
        return MapThresholds(thresholds, {k: fit.iou for k, fit in fits.items()}, rules)


def masked_maps(network: Network, sources: Sequence[Films], batch: int, progress: Progress) -> list[MaskedMap]:
    """Collect map and mask of every finding that has one, on films of sources with masks."""
    classes, grid = network.classes, network.size // MAP_STRIDE
    task = progress.add_task("map thresholds", total=sum(len(source) for source in sources))
    found = []
    for source in sources:
        assert source.masks is not None
        for seen in look_at(network, source, np.flatnonzero((source.labels > 0.5).any(axis=1)).tolist(), batch):
            maps = maps_of(network, seen, stride=MAP_STRIDE).dense()
            for label, mask in source.masks(seen.row).items():
                k = classes.index(label)
                shrunk = resized(mask.astype(np.uint8) * np.uint8(255), grid) > 127
                if source.labels[seen.row, k] > 0.5 and shrunk.any():
                    found.append(MaskedMap(k, source.patients[seen.row], maps[k], shrunk))
            progress.advance(task)
    progress.remove_task(task)
    return found


def fit_to_masks(items: Iterable[MaskedMap]) -> dict[int, MapFit]:
    """Fit the map threshold of each class that has a mask: class index -> fit."""
    by_class: dict[int, list[MaskedMap]] = defaultdict(list)
    for item in items:
        by_class[item.k].append(item)
    return {
        k: MapFit(
            *map_threshold([item.map for item in mine], [item.mask for item in mine]),
            float(np.median([item.map.max() for item in mine])),
        )
        for k, mine in by_class.items()
    }


def _lowered(observed: Observed, k: int, threshold: float, rule: str) -> tuple[float, str]:
    """Lower a class's threshold where fewer than SHOWN of its positive films with a high score have a region."""
    scores = 1 / (1 + np.exp(-observed.logits[:, k].astype(np.float64)))
    labels = observed.labels[:, k]
    try:
        youden = score_thresholds(scores, labels)["youden"]
    except ValueError:  # films of one kind only
        return threshold, rule
    levels = np.sort(observed.levels[(labels > 0.5) & (scores >= youden), k])
    if len(levels) < _MIN_POSITIVES or threshold < (limit := levels[len(levels) - math.ceil(SHOWN * len(levels))]):
        return threshold, rule
    return float(
        np.nextafter(limit, np.float32(-np.inf))
    ), f"{rule}; lowered, so that {SHOWN:.0%} of real positives have a region"


def _at_share(share: float, height: float) -> float:
    """Take a share of a height; of one below 0, a threshold below it by what is missing of its size."""
    return height - (1 - share) * abs(height)
