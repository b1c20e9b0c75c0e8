"""The parity gate: two engines give the same logits, maps and boxes on the same films, or the bundle is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends import load_backend
from msloc_edge.bundle import Bundle
from msloc_edge.errors import ExportError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.boxes import agreement, array_of, find_boxes

REFERENCE = "torch"
"""The backend that the others have to agree with: it runs the network as it was trained."""

LOGIT_LIMIT, MAP_LIMIT, IOU_LIMIT = 1e-4, 1e-3, 0.99
"""Largest absolute difference of logits and of maps, smallest IoU of matching boxes."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The worst disagreement over a set of films, and where it was."""

    logit: float
    map: float
    iou: float
    films: int
    boxes: int


def check_parity(
    bundle: Bundle, films: Sequence[NDArray[np.float32]], reference: str = REFERENCE, other: str = "onnxruntime"
) -> Parity:
    """Compare two backends on displayed films [H, W] in [0, 1], over all classes.

    Raises ExportError (`parity`) naming the film, the class and the figure when a limit is passed. Boxes are compared
    one to one, each pair by its IoU; a box that one side lacks counts as IoU 0. The threshold of the second may move by
    as much as the maps differ.
    """
    first, second = load_backend(reference, bundle), load_backend(other, bundle)
    worst = Parity(0.0, 0.0, 1.0, len(films), 0)
    classes = range(len(bundle.classes))
    for number, film in enumerate(films):
        geometry = Geometry.fit((film.shape[0], film.shape[1]), bundle.input_size)
        batch = geometry.letterbox(film)[None, None]
        a, b = first.run(batch), second.run(batch)
        maps_a, maps_b = (o.maps(0, bundle.relevance, bundle.input_size, classes).dense() for o in (a, b))
        logit = np.abs(a.logits[0] - b.logits[0])
        maps = np.abs(maps_a - maps_b).max(axis=(1, 2))
        for k, label in enumerate(bundle.classes):
            threshold = bundle.profile().map[k]
            own = array_of(find_boxes(maps_a[k][geometry.content], threshold, 1.0, geometry))
            # A pixel that lies within rounding of the threshold may fall on either side of it: so may the box.
            sides = (threshold, threshold - float(maps[k]), threshold + float(maps[k]))
            others = (array_of(find_boxes(maps_b[k][geometry.content], side, 1.0, geometry)) for side in sides)
            iou = max(agreement(own, other) for other in others)
            worst = Parity(
                max(worst.logit, float(logit[k])),
                max(worst.map, float(maps[k])),
                min(worst.iou, iou),
                worst.films,
                worst.boxes + len(own),
            )
            if not (logit[k] <= LOGIT_LIMIT and maps[k] <= MAP_LIMIT and iou >= IOU_LIMIT):
                raise ExportError(
                    "parity",
                    f"{reference} and {other} disagree on film {number}, {label}: logit by {logit[k]:.2e} (limit "
                    f"{LOGIT_LIMIT}), map by {maps[k]:.2e} (limit {MAP_LIMIT}), box IoU {iou:.4f} (limit {IOU_LIMIT})",
                )
    first.close()
    second.close()
    return worst
