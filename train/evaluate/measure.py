"""Measures of one map against the true regions of its finding: one row of numbers, to be summed later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps import Region
from msloc_edge.maps.boxes import Boxes, as_boxes, box_scores, iobb, iou
from msloc_edge.train.evaluate import froc, maxbox, wang
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.priors import Priors
from msloc_edge.train.evaluate.truth import TrueRegion, whole_mask

BLOB_T = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def _columns() -> dict[str, slice]:
    widths = {
        "pointing": 1,
        "blob_overlap": 1,
        "mask_iou": 1,
        "mask_found": 1,
        "boxes": 1,
        "blob_iou": len(BLOB_T),
        "blob_iobb": len(BLOB_T),
        "wang_iou_hits": len(wang.IOU_T),
        "wang_iou_false": len(wang.IOU_T),
        "wang_iobb_hits": len(wang.IOBB_T),
        "wang_iobb_false": len(wang.IOBB_T),
        "maxbox": len(maxbox.LEVELS) * len(maxbox.DELTAS),
    }
    ends = np.cumsum(list(widths.values()))
    return {name: slice(int(end) - width, int(end)) for (name, width), end in zip(widths.items(), ends, strict=True)}


COLUMNS = _columns()
"""Measure -> its place in a row. `pointing`: 1 where the peak lies in a true region. `blob_overlap`: IoU of the largest
region's box with the best true box. `boxes`: true boxes. `blob_...`: 1 above each T. `wang_...`: hit true boxes and
unmatched detected boxes at each T. `maxbox`: 1 at each level and delta. `mask_iou`: nan where the truth has no mask.
`mask_found`: 1 where the map above its threshold is not empty, so that CheXlocalize counts the film."""

WIDTH = max(part.stop for part in COLUMNS.values())


@dataclass(frozen=True, slots=True, eq=False)
class FilmMaps:
    """Maps and scores of a method for one film.

    size      (height, width) of the picture file
    scores    finding -> score, higher is more; a finding may be missing
    called    profile -> finding -> whether it is positive, as `msloc-edge infer` decides
    main      gives the map of a finding, None where the method has none
    others    gives the maps of the method's other rows, such as single stages
    boxes     finding -> number of its boxes, positive or not
    abnormal  probability that the film shows anything; None where the method has none
    """

    size: tuple[int, int]
    scores: Mapping[str, float]
    called: Mapping[str, Mapping[str, bool]]
    main: Callable[[str], Evidence | None]
    others: Callable[[str], Mapping[str, Evidence]]
    boxes: Mapping[str, int] = field(default_factory=dict)
    abnormal: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FilmMeasures:
    """One film, measured.

    rows        (row, finding) -> [WIDTH], for the findings with true regions
    detections  finding -> (score at which each true box is found, scores of false boxes), for `froc`
    """

    name: str
    scores: Mapping[str, float]
    called: Mapping[str, Mapping[str, bool]]
    rows: Mapping[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    detections: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    boxes: Mapping[str, int] = field(default_factory=dict)
    abnormal: float | None = None


def measure_film(
    name: str,
    maps: FilmMaps,
    regions: Mapping[str, Sequence[TrueRegion]],
    absent: Sequence[str],
    main_row: str,
    priors: Priors | None = None,
) -> FilmMeasures:
    """Measure a film's maps: every row for the findings with true regions, false boxes for those that are absent.

    regions  finding -> true regions, pixels of the picture file
    absent   findings known to be absent whose maps are to be looked at for false boxes
    """
    rows: dict[tuple[str, str], NDArray[np.float64]] = {}
    detections: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for label, found in regions.items():
        if (evidence := maps.main(label)) is None:  # no map is a map that finds nothing
            rows[main_row, label] = _nothing(found)
            detections[label] = np.full(len(found), -np.inf), np.zeros(0)
        else:
            parts = evidence.regions()
            rows[main_row, label] = measure_map(evidence, found, maps.size, parts)
            true = on_grid(found, evidence.values.shape, maps.size)
            detections[label] = froc.match(boxes_of(parts), scores_of(parts, maps.scores.get(label)), true)
        others = {**maps.others(label), **(priors.evidence(name, label) if priors else {})}
        for row, other in others.items():
            rows[row, label] = measure_map(other, found, maps.size, other.regions())
    for label in absent:
        if (evidence := maps.main(label)) is not None:
            parts = evidence.regions()
            detections[label] = froc.match(boxes_of(parts), scores_of(parts, maps.scores.get(label)), as_boxes([]))
    return FilmMeasures(name, maps.scores, maps.called, rows, detections, maps.boxes, maps.abnormal)


def measure_map(
    evidence: Evidence, regions: Sequence[TrueRegion], size: tuple[int, int], found: Sequence[Region]
) -> NDArray[np.float64]:
    """Measure one map against the true regions of its finding, of which there is one at least: [WIDTH].

    size   (height, width) of the film
    found  the map's own regions
    """
    measured = np.zeros(WIDTH)
    true = on_grid(regions, evidence.values.shape, size)
    blob = largest_box(found)
    overlap, covered = iou(blob, true).max(initial=0), iobb(blob, true).max(initial=0)
    boxes = wang.detected_boxes(evidence.values)
    measured[COLUMNS["pointing"]] = hits_peak(evidence.values, regions, size)
    measured[COLUMNS["blob_overlap"]] = overlap
    measured[COLUMNS["mask_iou"]] = mask_iou(evidence.margin, regions, size)
    measured[COLUMNS["mask_found"]] = bool((evidence.margin > 0).any())
    measured[COLUMNS["boxes"]] = len(regions)
    measured[COLUMNS["blob_iou"]] = overlap > np.array(BLOB_T)
    measured[COLUMNS["blob_iobb"]] = covered > np.array(BLOB_T)
    for kind, pairs, thresholds in (("iou", iou, wang.IOU_T), ("iobb", iobb, wang.IOBB_T)):
        hits, false = wang.count_hits(pairs(boxes, true), thresholds)
        measured[COLUMNS[f"wang_{kind}_hits"]], measured[COLUMNS[f"wang_{kind}_false"]] = hits, false
    best = maxbox.best_ious(evidence.values, true)
    measured[COLUMNS["maxbox"]] = (best[:, None] >= np.array(maxbox.DELTAS)).ravel()
    return measured


def hits_peak(values: NDArray[np.float32], regions: Sequence[TrueRegion], size: tuple[int, int]) -> bool:
    """The pointing game (Zhang et al. 2016, arXiv 1608.00507), without its tolerance of 15 pixels: whether the highest
    point of a map, the centre of its pixel, lies in a true mask, or in a true box where there is no mask.

    The first of several equal peaks counts; a constant map has none.
    """
    height, width = values.shape
    row, column = divmod(int(values.argmax()), width)
    if not values[row, column] > values.min():
        return False
    x, y = (column + 0.5) * size[1] / width, (row + 0.5) * size[0] / height
    return any(region.contains(x, y) for region in regions)


def mask_iou(margin: NDArray[np.float32], regions: Sequence[TrueRegion], size: tuple[int, int]) -> float:
    """IoU of where a margin [h, w], enlarged bilinearly to the film, is above 0 with all true masks together; nan where
    the truth has no mask.

    Pixels are the film's, as CheXlocalize counts them (Saporta et al. 2022): a map is enlarged, then thresholded.
    """
    true = whole_mask(regions, size)
    if true is None:
        return float("nan")
    found = cv2.resize(margin, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0
    return np.count_nonzero(found & true) / np.count_nonzero(found | true)


def boxes_of(found: Sequence[Region]) -> Boxes:
    """Make an array [R, 4] of the boxes of regions, in pixels of their map."""
    return as_boxes([region.box for region in found])


def largest_box(found: Sequence[Region]) -> Boxes:
    """Give the box [1, 4] of the region with the most pixels, of equal ones the first in reading order, or [0, 4]."""
    return boxes_of([max(found, key=lambda region: (region.area, -region.first))] if found else [])


def scores_of(found: Sequence[Region], score: float | None) -> NDArray[np.float64]:
    """Score boxes [R], as `msloc-edge infer` does, by the film's score; without one by the rise above the threshold.

    found  regions of a margin, the strongest first
    """
    rises = [region.peak for region in found]
    return np.array(rises if score is None else box_scores(found, 0, score), np.float64)


def on_grid(regions: Sequence[TrueRegion], shape: tuple[int, ...], size: tuple[int, int]) -> Boxes:
    """The true boxes [M, 4] in pixels of a map of `shape` that covers a film of `size`, both (height, width)."""
    scale = np.tile([shape[1] / size[1], shape[0] / size[0]], 2)
    return as_boxes([region.box for region in regions]) * scale


def _nothing(regions: Sequence[TrueRegion]) -> NDArray[np.float64]:
    """The row of a map that finds nothing."""
    measured = np.zeros(WIDTH)
    measured[COLUMNS["boxes"]] = len(regions)
    measured[COLUMNS["mask_iou"]] = np.nan if all(region.mask is None for region in regions) else 0.0
    return measured
