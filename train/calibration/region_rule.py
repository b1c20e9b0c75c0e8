"""The rule of fragments: which regions of a map are too small or too weak to be a box, fitted on inserted lesions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from rich.progress import Progress

from msloc_edge.bundle import RegionRule
from msloc_edge.maps.boxes import select_regions
from msloc_edge.maps.regions import Region, locate
from msloc_edge.train.calibration.network import Network, look_at, maps_of
from msloc_edge.train.data import Films

AREAS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
LesionBox = tuple[float, float, float, float]
SHARES = tuple(round(0.05 * step, 2) for step in range(15))


@dataclass(frozen=True, slots=True)
class LesionRegions:
    """Regions of one class on a film with lesions of it.

    found      in pixels of the model's input
    threshold  of the map, which the regions exceed
    boxes      of the lesions: (x, y, width, height) in pixels of the model's input
    """

    found: tuple[Region, ...]
    threshold: float
    boxes: tuple[LesionBox, ...]

    def counts(self, rule: RegionRule) -> tuple[int, int]:
        """Count the boxes that a rule leaves, and the lesions in whose box the centre of one of them lies."""
        kept = select_regions(self.found, self.threshold, rule.min_area, rule.min_share)
        return len(kept), sum(any(_inside(region, box) for region in kept) for box in self.boxes)

    def beside(self, other: LesionRegions, shift: int) -> LesionRegions:
        """Join this film and another, moved `shift` pixels to the right, into a film with the lesions of both."""
        moved = (region._replace(left=region.left + shift, right=region.right + shift) for region in other.found)
        boxes = ((x + shift, y, width, height) for x, y, width, height in other.boxes)
        return LesionRegions((*self.found, *moved), self.threshold, (*self.boxes, *boxes))


def fit_region_rule(films: Sequence[LesionRegions], size: int) -> tuple[RegionRule, float, float]:
    """Find the rule with the largest F1 of boxes, the mildest of equals; with its F1, and that of no rule.

    films  with one lesion each, of `size` pixels

    A lesion is found by one box; every other box is a fragment, or wrong: F1 = 2 found / (boxes + lesions). Each two
    neighbours of one class also count as one film with two lesions, so that the weaker of two must not be lost.
    """
    pairs = [one.beside(other, size) for one, other in pairwise(films) if one.threshold == other.threshold]
    rules = [RegionRule(area, share) for area, share in product(AREAS, SHARES)]
    scores = [_f1([*films, *pairs], rule) for rule in rules]
    best = max(range(len(rules)), key=lambda at: (scores[at], -at))
    return rules[best], scores[best], scores[0]


def lesion_regions(
    network: Network, films: Films, thresholds: Sequence[float], batch: int, progress: Progress
) -> Iterator[LesionRegions]:
    """Find the regions of each lesion's class on films with inserted lesions.

    thresholds  [K] of the maps
    """
    assert films.masks is not None
    scale = network.size / films.side
    task = progress.add_task("fragments", total=len(films))
    for seen in look_at(network, films, range(len(films)), batch):
        for label, mask in films.masks(seen.row).items():
            k = network.classes.index(label)
            located = locate(maps_of(network, seen, [k]), [thresholds[k]], (slice(0, network.size),) * 2)
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            left, top = float(columns[0]) * scale, float(rows[0]) * scale
            box = left, top, (float(columns[-1]) + 1) * scale - left, (float(rows[-1]) + 1) * scale - top
            yield LesionRegions(located[0].regions, thresholds[k], (box,))
        progress.advance(task)
    progress.remove_task(task)


def _f1(films: Sequence[LesionRegions], rule: RegionRule) -> float:
    boxes, found = np.sum([film.counts(rule) for film in films], axis=0)
    return float(2 * found / (boxes + sum(len(film.boxes) for film in films)))


def _inside(region: Region, box: LesionBox) -> bool:
    x, y = (region.left + region.right) / 2, (region.top + region.bottom) / 2
    left, top, width, height = box
    return left <= x <= left + width and top <= y <= top + height
