"""A built-in film through a backend, compared with the golden result that came with the bundle.

The film is a digital phantom (a heart too large, a mass, a pneumothorax); its golden result is PyTorch's, of the day of
the export, and is part of the manifest. So a device can tell at any time, with nothing else at hand, whether
its engine, its libraries and its memory still give what the model's maker saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msloc_edge.bundle import Bundle, sha256_file
from msloc_edge.errors import BundleError
from msloc_edge.maps.boxes import agreement, as_boxes
from msloc_edge.pipeline import Localizer

FILM = Path(__file__).with_name("selftest.png")
"""420 x 480 pixels, 8 bits: generate(5000010, (480, 420)) of msloc_edge.train.phantom."""

HEIGHT, WIDTH = 480, 420

LOGIT, VALUE, SHIFT, IOU, ABNORMAL = 1e-3, 1e-2, 0.01, 0.95, 1e-3
"""Limits: the most that logits and peak values may differ, in logit units, that peaks may move, in widths of the film
(or `flat_corner`, where that is more), and that p_abnormal may differ; the least IoU of boxes. Backends of 32-bit
arithmetic differ by about 1e-5, and their boxes not at all."""

STRONG = 0.1
"""Share of a finding's score. Boxes below it may be there or not: their maps hardly reach the threshold."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Distance of a backend from the golden result: the worst over all classes, and the classes beyond the limits.

    abnormal  difference of p_abnormal; 0 where the golden result has none
    """

    logit: float
    value: float
    shift: float
    iou: float
    classes: tuple[str, ...]
    abnormal: float = 0.0

    @property
    def beyond(self) -> tuple[str, ...]:
        """Names of what is beyond the limits: classes, and "abnormal" for p_abnormal."""
        return self.classes if self.abnormal <= ABNORMAL else (*self.classes, "abnormal")


def result(localizer: Localizer) -> dict[str, Any]:
    """Localize the built-in film with a localizer of all classes: the golden result, if it is the reference."""
    film = localizer.prepare(FILM)
    logits = localizer.backend.run(film.batch).logits[0]
    found = localizer.run([film])[0]
    gate = {} if found.gate is None else {"abnormal": round(found.gate.score, 6)}
    return {
        "film": sha256_file(FILM),
        "flat": round(flat_corner(localizer.bundle), 6),
        **gate,
        "findings": {
            finding.label: {
                "logit": round(float(logit), 6),
                "peak": [round(finding.peak.x, 4), round(finding.peak.y, 4), round(finding.peak.value, 6)],
                "boxes": [
                    [round(value, 4) for value in (box.x, box.y, box.w, box.h)]
                    for box in finding.boxes
                    if box.score >= STRONG * finding.score
                ],
            }
            for finding, logit in zip(found.findings, logits, strict=True)
            if finding.peak
        },
    }


def flat_corner(bundle: Bundle) -> float:
    """Compute how far a peak may move where a map is flat, in widths of the film.

    Beyond the centres of the outermost cells a map goes on as it ends: in a corner, over half a finest cell both ways,
    all points are equal up to rounding, which differs from engine to engine.
    """
    height, width = bundle.input_size
    cell = np.hypot(height / bundle.stages[0].height, width / bundle.stages[0].width)
    return float(cell / 2 / min(height / HEIGHT, width / WIDTH) / WIDTH)


def compare(found: Mapping[str, Any], golden: Mapping[str, Any]) -> Deviation:
    """Compare a result with the golden one, over its classes."""
    limit = max(SHIFT, found.get("flat", 0.0))
    rows = {label: _row(found["findings"][label], expected) for label, expected in golden["findings"].items()}
    beyond = tuple(
        label
        for label, (logit, value, shift, iou) in rows.items()
        if not (logit <= LOGIT and value <= VALUE and shift <= limit and iou >= IOU)  # NaN is beyond every limit
    )
    logit, value, shift, iou = np.array(list(rows.values())).T
    abnormal = abs(found["abnormal"] - golden["abnormal"]) if "abnormal" in golden else 0.0
    return Deviation(float(logit.max()), float(value.max()), float(shift.max()), float(iou.min()), beyond, abnormal)


def golden_of(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Read the golden result in a manifest. Raises BundleError: golden_missing."""
    golden: Mapping[str, Any] | None = manifest.get("golden")
    if not golden or golden["film"] != sha256_file(FILM):
        got = "one of another film" if golden else "none"
        raise BundleError(
            "golden_missing", f"{name}: expected a golden result of this version's film, got {got}; export it again"
        )
    return golden


def _row(found: Mapping[str, Any], golden: Mapping[str, Any]) -> tuple[float, float, float, float]:
    shift = np.hypot(*np.subtract(found["peak"][:2], golden["peak"][:2])) / WIDTH
    return (
        abs(found["logit"] - golden["logit"]),
        abs(found["peak"][2] - golden["peak"][2]),
        float(shift),
        agreement(as_boxes(found["boxes"]), as_boxes(golden["boxes"])),
    )
