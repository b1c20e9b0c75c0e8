"""The localization gate: scores may look fine where maps are ruined, so a precision is judged by boxes and peaks too.

Per class, over films that took no part in calibration:

    auroc_drop  AUROC of the fp32 network less that of the candidate, where the films have both labels
    box_iou     mean IoU of each clear box of either side with its best partner of the other
    peak_shift  mean distance of the peaks in widths of the input, over films with a clear box

A box is clear if its region rises above the map threshold by at least STRONG of the class's strongest rise over all
films. One that hardly reaches the threshold is there or not by rounding alone, so none is asked for; but a clear box
may have any box as its partner. A clear box without a partner counts as IoU 0.

A peak that moved to a place where fp32's own map has SUMMIT of its highest rise has not moved: a map with two summits
of one height has its peak on either by rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import auroc
from msloc_edge.bundle import Bundle
from msloc_edge.errors import ExportError
from msloc_edge.export.runtimes import Array, Predict
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.boxes import Boxes, array_of, find_boxes, iou
from msloc_edge.selftest import STRONG

AUROC_LIMIT, IOU_LIMIT, SHIFT_LIMIT = 0.005, 0.9, 0.01
"""Largest loss of AUROC, smallest mean IoU of boxes, largest mean shift of the peak in widths."""
LIMITS = {"auroc_drop": AUROC_LIMIT, "box_iou": IOU_LIMIT, "peak_shift": SHIFT_LIMIT}
SUMMIT = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class GateFilms:
    """Displayed films, N of [H, W] in [0, 1], and labels [N, K]: 1, 0, or nan where it is not known."""

    films: Sequence[Array]
    labels: Array
    source: str


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of a class against fp32: those of the gate, and the worst of logits, maps and boxes."""

    label: str
    auroc_drop: float | None
    box_iou: float
    peak_shift: float
    boxes: int
    worst_iou: float
    logit: float
    map: float

    @property
    def passes(self) -> bool:
        """All limits are kept; a candidate that gives nan anywhere does not pass."""
        lost = self.auroc_drop is not None and not self.auroc_drop <= AUROC_LIMIT
        finite = math.isfinite(self.logit) and math.isfinite(self.map)
        return finite and not lost and self.box_iou >= IOU_LIMIT and self.peak_shift <= SHIFT_LIMIT

    def __str__(self) -> str:
        drop = "not known" if self.auroc_drop is None else f"{self.auroc_drop:.4f}"
        return f"{self.label} (AUROC drop {drop}, box IoU {self.box_iou:.3f}, peak shift {self.peak_shift:.2%})"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passes": self.passes}


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Results on a film, of one of the two: logits [K], maps [K, h, w]; boxes of each class, their rises."""

    logits: Array
    maps: Array
    boxes: list[Boxes]
    rises: list[NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Results on one film, of both, without the maps, which of all films together would fill the memory.

    shift, map   [K] distance of the peaks in pixels of the input, largest difference of the maps
    """

    logits: tuple[Array, Array]
    boxes: tuple[list[Boxes], list[Boxes]]
    rises: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]
    shift: list[float]
    map: list[float]


def measure(bundle: Bundle, reference: Predict, candidate: Predict, films: GateFilms) -> list[ClassFigures]:
    """Compare two forms of a network over the films, one at a time, at the default profile's map thresholds."""
    pairs = [_pair(bundle, _see(reference, bundle, film), _see(candidate, bundle, film)) for film in films.films]
    return [_figures(bundle, k, pairs, films.labels[:, k]) for k in range(len(bundle.classes))]


def _see(predict: Predict, bundle: Bundle, film: Array) -> _Seen:
    geometry = Geometry.fit((film.shape[0], film.shape[1]), bundle.input_size)
    logits, batch = predict(geometry.letterbox(film)[None, None])
    maps = batch[0][:, geometry.content[0], geometry.content[1]]
    # With the map's greatest rise for a score, each box's score is the rise of its own region.
    found = [
        find_boxes(m, threshold, float(m.max()) - threshold, geometry)
        for m, threshold in zip(maps, bundle.profile().map, strict=True)
    ]
    return _Seen(
        logits[0],
        maps,
        [array_of(row) for row in found],
        [np.array([box.score for box in row], np.float64) for row in found],
    )


def _pair(bundle: Bundle, first: _Seen, second: _Seen) -> _Pair:
    maps = zip(first.maps, second.maps, bundle.profile().map, strict=True)
    return _Pair(
        (first.logits, second.logits),
        (first.boxes, second.boxes),
        (first.rises, second.rises),
        [_shift(own, other, threshold) for own, other, threshold in maps],
        np.abs(first.maps - second.maps).max(axis=(1, 2)).tolist(),
    )


def _shift(own: Array, other: Array, threshold: float) -> float:
    at = np.array(np.unravel_index(int(own.argmax()), own.shape))
    moved = np.array(np.unravel_index(int(other.argmax()), own.shape))
    if own[tuple(moved)] - threshold >= SUMMIT * (own[tuple(at)] - threshold):
        return 0.0
    return float(np.hypot(*(at - moved)))


def _figures(bundle: Bundle, k: int, pairs: Sequence[_Pair], labels: Array) -> ClassFigures:
    strongest = max((float(pair.rises[0][k].max()) for pair in pairs if pair.rises[0][k].size), default=0.0)
    overlaps: list[float] = []
    shifts: list[float] = []
    for pair in pairs:
        clear = [rises[k] >= STRONG * strongest for rises in pair.rises]
        table = iou(pair.boxes[0][k], pair.boxes[1][k])
        overlaps += table.max(axis=1, initial=0)[clear[0]].tolist()
        overlaps += table.max(axis=0, initial=0)[clear[1]].tolist()
        if clear[0].any():
            shifts.append(pair.shift[k])
    first, second = (np.array([pair.logits[side][k] for pair in pairs]) for side in (0, 1))
    return ClassFigures(
        bundle.classes[k],
        _auroc_drop(first, second, labels),
        float(np.mean(overlaps)) if overlaps else 1.0,
        float(np.mean(shifts)) / bundle.input_size[1] if shifts else 0.0,
        len(overlaps),
        min(overlaps, default=1.0),
        float(np.abs(first - second).max()),
        float(np.max([pair.map[k] for pair in pairs])),
    )


def refusal(precision: str, figures: Sequence[ClassFigures], advice: str) -> ExportError:
    """Word the error for figures of which some are beyond the limits."""
    failed = "; ".join(str(row) for row in figures if not row.passes)
    return ExportError(
        "parity",
        f"{precision} changes what is localized: expected AUROC to drop by at most {AUROC_LIMIT}, boxes of IoU >= "
        f"{IOU_LIMIT} with fp32, peaks within {SHIFT_LIMIT:.0%} of the width; got {failed}; {advice}",
    )


def _auroc_drop(before: Array, after: Array, labels: Array) -> float | None:
    """AUROC of scores [N] less that of other scores, by labels [N] of 1, 0 and nan; None where the known are alike."""
    known, positive = np.isfinite(labels), labels == 1
    if len(np.unique(labels[known])) < 2:
        return None
    first, second = (auroc(scores[known].astype(float), positive[known]).item() for scores in (before, after))
    return first - second
