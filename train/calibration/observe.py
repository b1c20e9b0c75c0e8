"""Observations of a network on films: logits and heights of maps, all that scores and thresholds are fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.bundle import RegionRule
from msloc_edge.maps.boxes import select_regions
from msloc_edge.maps.regions import locate
from msloc_edge.train.calibration.network import F32, MAP_STRIDE, Network, look_at, maps_of
from msloc_edge.train.calibration.subgroups import subgroups
from msloc_edge.train.data import Films


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Observations of a network on N films, and what is known of the films. K classes.

    logits    [N, K]
    levels    [N, K] below which threshold the map has a region: it has one exactly where the threshold is lower
    heights   [N, K] highest value of the map on the finest stage's grid
    labels    [N, K] 1, 0, or nan where unknown
    patients  [N]
    groups    name of a subgroup -> [N] each film's group, None where unknown
    fine      [N] whether the film has at least as many pixels as the network's input
    """

    classes: tuple[str, ...]
    logits: F32
    levels: F32
    heights: F32
    labels: F32
    patients: NDArray[np.str_]
    groups: Mapping[str, NDArray[np.object_]]
    fine: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, films: NDArray[np.bool_]) -> Observed:
        """Take some of the films [N]."""
        return Observed(
            classes=self.classes,
            logits=self.logits[films],
            levels=self.levels[films],
            heights=self.heights[films],
            labels=self.labels[films],
            patients=self.patients[films],
            groups={name: groups[films] for name, groups in self.groups.items()},
            fine=self.fine[films],
        )


def observe(network: Network, sources: Sequence[Films], min_area: int, batch: int, progress: Progress) -> Observed:
    """Run a network over all films of some sources.

    min_area  smallest region, pixels of the input
    """
    task = progress.add_task("calibration", total=sum(len(source) for source in sources))
    logits, levels, heights = [], [], []
    for source in sources:
        for seen in look_at(network, source, range(len(source)), batch):
            logits.append(seen.logits)
            levels.append([region_level(m, min_area) for m in maps_of(network, seen).dense()])
            heights.append(maps_of(network, seen, stride=MAP_STRIDE).dense().max(axis=(1, 2)))
            progress.advance(task)
    progress.remove_task(task)
    return Observed(
        classes=network.classes,
        logits=np.array(logits, np.float32),
        levels=np.array(levels, np.float32),
        heights=np.array(heights, np.float32),
        labels=np.concatenate([source.labels for source in sources]),
        patients=np.concatenate([np.array(source.patients) for source in sources]),
        groups=_groups(sources),
        fine=np.concatenate([np.full(len(source), source.side >= network.size) for source in sources]),
    )


def count_boxes(
    network: Network,
    sources: Sequence[Films],
    films: NDArray[np.bool_],
    thresholds: F32,
    rule: RegionRule,
    batch: int,
    progress: Progress,
) -> NDArray[np.intp]:
    """Count the boxes of each class on some of the films of all sources together, as the pipeline draws them.

    films       [N] which films to look at
    thresholds  [N, K] of the maps
    returns     [N, K], 0 for the other films
    """
    counts = np.zeros(thresholds.shape, np.intp)
    task = progress.add_task("boxes on normal films", total=int(films.sum()))
    whole = (slice(0, network.size),) * 2
    first = 0
    for source in sources:
        for seen in look_at(network, source, np.flatnonzero(films[first : first + len(source)]).tolist(), batch):
            limits = thresholds[first + seen.row].tolist()
            located = locate(maps_of(network, seen), limits, whole)
            counts[first + seen.row] = [
                len(select_regions(found.regions, limit, rule.min_area, rule.min_share))
                for found, limit in zip(located, limits, strict=True)
            ]
            progress.advance(task)
        first += len(source)
    progress.remove_task(task)
    return counts


def region_level(localization_map: F32, min_area: int) -> float:
    """Find the level below which a map has a region: the highest value such that the pixels of at least that value
    have an 8-connected part of `min_area` pixels. At a threshold below the level the map has a region, at it none.

    -inf for a map of fewer pixels.

    >>> region_level(np.float32([[5, 4, 0, 9], [0, 0, 0, 0]]), 2)
    4.0
    """
    total = localization_map.size
    if total < min_area:
        return -np.inf

    def level(count: int) -> np.float32:
        return np.partition(localization_map, total - count, axis=None)[total - count]

    def holds(count: int) -> bool:
        return _largest_part(localization_map >= level(count)) >= min_area

    return float(level(_first(holds, min_area, total)))


def _groups(sources: Sequence[Films]) -> dict[str, NDArray[np.object_]]:
    """Name each film's source, and its subgroups where the source tells them."""
    groups = [subgroups(source.records) for source in sources]
    found: dict[str, list[str | None]] = {"source": [source.source for source in sources for _ in source.names]}
    for name in groups[0]:
        each = (mine[name] or [None] * len(source) for mine, source in zip(groups, sources, strict=True))
        found[name] = [group for source in each for group in source]
    return {name: np.array(names, object) for name, names in found.items()}


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Find the least number from `low` to `high` that holds, where all larger ones do, and `high` does."""
    step = 1
    while low + step - 1 < high and not holds(low + step - 1):
        low, step = low + step, 2 * step
    high = min(high, low + step - 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _largest_part(mask: NDArray[np.bool_]) -> int:
    """Count the pixels of the largest 8-connected part of a mask [h, w]."""
    x, y, across, down = cv2.boundingRect(mask.view(np.uint8))
    part = np.ascontiguousarray(mask[y : y + down, x : x + across]).view(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))
