"""Parity: every backend, form of the graph and precision against torch, on the same films.

`check_parity` is the gate of every bundle: torch and onnxruntime agree on logits, maps and boxes, or it is refused.
`check_all` compares everything that a bundle can become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from msloc_edge.backends import load_backend
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.errors import ExportError, MslocError
from msloc_edge.export.graphs import with_camfuse, with_heatmap
from msloc_edge.export.precision.convert import Films, convert
from msloc_edge.export.precision.gate import ClassFigures, measure
from msloc_edge.export.runtimes import Predict, in_backend, in_onnxruntime, in_openvino
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.boxes import agreement, array_of, find_boxes
from msloc_edge.types import PLAN_PRECISIONS

SCHEMA = "msloc-edge/export-check/1"

REFERENCE = "torch"
"""The backend that the others have to agree with: it runs the network as it was trained."""

LOGIT_LIMIT, MAP_LIMIT, IOU_LIMIT = 1e-4, 1e-3, 0.99
"""Largest absolute difference of logits and of maps, smallest IoU of matching boxes."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The worst disagreement over a set of films: largest of logits and maps, smallest IoU of matching boxes."""

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
        maps_a, maps_b = (outputs.fuse(0, classes).dense() for outputs in (a, b))
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


def require_equal(what: str, expected: NDArray[np.float32], got: NDArray[np.float32]) -> None:
    """Compare what a bundle gives with what the network itself gave, arrays of one shape.

    Raises ExportError (parity) for a difference of more than LOGIT_LIMIT, and of that share of the largest value.
    """
    if expected.shape != got.shape:
        raise ExportError("parity", f"expected outputs {list(expected.shape)} as of {what}, got {list(got.shape)}")
    worst = float(np.abs(expected - got).max(initial=0))
    if not worst <= LOGIT_LIMIT * max(1.0, float(np.abs(expected).max(initial=0))):
        raise ExportError("parity", f"the bundle differs from {what} by {worst:.2e}; please report it")


def check_all(bundle: Bundle, films: Films) -> Iterator[dict[str, Any]]:
    """Compare one after the other, a row for each: what, engine, precision, state, and the worst figures.

    The state is passed, failed, or absent where a package is not installed.

    fp32 must keep to the limits of the parity gate; fp16 and int8 to those of the localization gate, which measures
    them against fp32 and may have to keep layers in fp32: the row says which.
    """
    network = onnx.load_model_from_string(bundle.read(ONNX))
    heatmap, camfuse = with_heatmap(network, bundle), with_camfuse(network, bundle, defined=True)
    reference = in_backend(REFERENCE, bundle)
    exact: list[tuple[str, str, Callable[[], Predict]]] = [
        ("bundle", "onnxruntime", lambda: in_backend("onnxruntime", bundle)),
        ("bundle", "openvino", lambda: in_backend("openvino", bundle)),
        ("heatmap graph", "onnxruntime", lambda: in_onnxruntime(heatmap)),
        ("heatmap graph", "openvino", lambda: in_openvino(heatmap)),
        ("CamFuse graph", "onnxruntime", lambda: in_onnxruntime(camfuse)),
    ]
    for what, engine, load in exact:
        row = _row(bundle, what, engine, "fp32")
        try:
            figures = measure(bundle, reference, load(), films.gate)
            yield row | _summary(figures, [figure.label for figure in figures if not _equal(figure)])
        except MslocError as error:
            absent = error.reason == "backend_missing"
            yield row | {"state": "absent" if absent else "failed", "reason": error.reason, "message": error.message}
    for precision in PLAN_PRECISIONS[1:]:
        row = _row(bundle, "heatmap graph", "onnxruntime", precision)
        try:
            done = convert(bundle, precision, films)
            yield row | _summary(done.figures, []) | {"kept_fp32": done.kept}
        except MslocError as error:
            yield row | {"state": "failed", "reason": error.reason, "message": error.message}


def _row(bundle: Bundle, what: str, engine: str, precision: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": asdict(bundle.id),
        "what": what,
        "engine": engine,
        "precision": precision,
    }


def _equal(figure: ClassFigures) -> bool:
    return figure.logit <= LOGIT_LIMIT and figure.map <= MAP_LIMIT and figure.box_iou >= IOU_LIMIT


def _summary(figures: Sequence[ClassFigures], failed: list[str]) -> dict[str, Any]:
    return {
        "state": "failed" if failed else "passed",
        "classes": failed,
        "auroc_drop": max((figure.auroc_drop for figure in figures if figure.auroc_drop is not None), default=None),
        "logit": max(figure.logit for figure in figures),
        "map": max(figure.map for figure in figures),
        "box_iou": min(figure.box_iou for figure in figures),
        "peak_shift": max(figure.peak_shift for figure in figures),
        "boxes": sum(figure.boxes for figure in figures),
    }
