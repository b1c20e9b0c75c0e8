"""eval.html: one file that opens anywhere, offline, with every table and the pictures of single cases."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.render.page import facts, page, section, table, text
from msloc_edge.train.evaluate.cases import Case
from msloc_edge.train.evaluate.figures import figures
from msloc_edge.train.evaluate.tables import grids


def eval_page(metrics: Mapping[str, Any], pictures: Sequence[tuple[Case, NDArray[np.uint8]]]) -> str:
    """The page of a metrics.json."""
    run = metrics["run"]
    subtitle = (
        f"{run['data']}, split {run['split']}: {run['films']} films of {run['patients']} patients, {run['boxes']} boxes"
    )
    sections = [
        *(section(grid.title, grid.note, table(grid.head, grid.rows)) for grid in grids(metrics)),
        _curves(metrics),
        _cases(pictures),
        section("How this came about", "", facts(run)),
    ]
    css = (resources.files("msloc_edge.train.evaluate") / "page.css").read_text(encoding="utf-8")
    return page(f"Evaluation of {run['what']['name']}", subtitle, sections, css)


def _curves(metrics: Mapping[str, Any]) -> str:
    drawn = "".join(
        f'<img src="data:image/svg+xml;base64,{b64encode(svg).decode()}" alt="{text(title)}">'
        for title, svg in figures(metrics)
    )
    return section("Curves", "", f'<div class="curves">{drawn}</div>') if drawn else ""


def _cases(pictures: Sequence[tuple[Case, NDArray[np.uint8]]]) -> str:
    if not pictures:
        return ""
    labels = dict.fromkeys(case.label for case, _ in pictures)
    groups = []
    for label in labels:
        figures = "".join(_figure(case, picture) for case, picture in pictures if case.label == label)
        groups.append(f'<div class="group"><h3>{text(label)}</h3><div class="cases">{figures}</div></div>')
    legend = (
        'By the IoU of the largest region\'s box: <span class="true">true box or mask</span>, '
        '<span class="found">box of the largest region, and the peak</span>, '
        '<span class="map">map above its threshold</span>.'
    )
    title = f'<h2>Best, median and worst</h2><p class="note">{legend}</p>'
    return f'<section>{title}<div class="groups">{"".join(groups)}</div></section>'


def _figure(case: Case, picture: NDArray[np.uint8]) -> str:
    data = b64encode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()).decode()
    words = f"{case.rank}: IoU {case.overlap:.2f}, peak {'inside' if case.hit else 'outside'}"
    height, width = picture.shape[:2]
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{text(case.label)}, '
        f'{text(words)}"><figcaption><strong>{text(words)}</strong><small>{text(case.film)}</small></figcaption></figure>'
    )
