"""Parity across everything: each engine, each form of the graph, each precision against torch, on the same films."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import onnx

from msloc_edge.bundle import Bundle
from msloc_edge.errors import MslocError
from msloc_edge.export.choices import PRECISIONS
from msloc_edge.export.engines import Engine, in_onnxruntime, in_openvino, of_backend
from msloc_edge.export.gate import ClassFigures, measure
from msloc_edge.export.graphs import with_camfuse, with_heatmap
from msloc_edge.export.mixed import Films, convert
from msloc_edge.export.parity import IOU_LIMIT, LOGIT_LIMIT, MAP_LIMIT, REFERENCE

SCHEMA = "msloc-edge/export-check/1"


def check_everything(bundle: Bundle, films: Films) -> Iterator[dict[str, Any]]:
    """One row for each comparison: what, engine, precision, state (passed, failed, absent), and the worst figures.

    fp32 must keep to the limits of the parity gate; fp16 and int8 to those of the localization gate, which measures
    them against fp32 and may have to keep layers in fp32: the row says which.
    """
    network = onnx.load(bundle.onnx)
    heatmap, camfuse = with_heatmap(network, bundle), with_camfuse(network, bundle, defined=True)
    reference = of_backend(REFERENCE, bundle)
    exact: list[tuple[str, str, Callable[[], Engine]]] = [
        ("bundle", "onnxruntime", lambda: of_backend("onnxruntime", bundle)),
        ("bundle", "openvino", lambda: of_backend("openvino", bundle)),
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
    for precision in PRECISIONS[1:]:
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
