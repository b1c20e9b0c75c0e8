"""eval.html: one file that opens anywhere, offline, with every table and the pictures of single cases."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.evaluate.cases import Case
from msloc_edge.train.evaluate.tables import Grid, grids

_POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"


def page(metrics: Mapping[str, Any], pictures: Sequence[tuple[Case, NDArray[np.uint8]]], css: str) -> str:
    """The page of a metrics.json. `css` is the style that the reports share; all that is not ours enters as text."""
    css += (resources.files("msloc_edge.train.evaluate") / "page.css").read_text(encoding="utf-8")
    policy = _POLICY.format(b64encode(sha256(css.encode()).digest()).decode())
    run = metrics["run"]
    title = f"Evaluation of {run['what']['name']}"
    facts = "".join(
        f"<div><dt>{_text(key.replace('_', ' '))}</dt><dd>{_value(value)}</dd></div>" for key, value in run.items()
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>\n<style>{css}</style>\n</head>\n<body>",
            f'<header><div class="brand"><h1>{_text(title)}</h1><p>{_text(_subtitle(run))}</p></div></header>\n<main>',
            *(_table(grid) for grid in grids(metrics)),
            _cases(pictures),
            f"<section><h2>How this came about</h2><dl>{facts}</dl></section>",
            "</main>\n<footer><p>Research use, not a diagnosis</p></footer>\n</body>\n</html>\n",
        ]
    )


def _subtitle(run: Mapping[str, Any]) -> str:
    return (
        f"{run['data']}, split {run['split']}: {run['films']} films of {run['patients']} patients, {run['boxes']} boxes"
    )


def _table(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in grid.head)
    rows = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in grid.rows
    )
    return (
        f'<section><h2>{_text(grid.title)}</h2><p class="note">{_text(grid.note)}</p><div class="wide"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _cases(pictures: Sequence[tuple[Case, NDArray[np.uint8]]]) -> str:
    if not pictures:
        return ""
    labels = dict.fromkeys(case.label for case, _ in pictures)
    groups = []
    for label in labels:
        figures = "".join(_figure(case, picture) for case, picture in pictures if case.label == label)
        groups.append(f'<div class="group"><h3>{_text(label)}</h3><div class="cases">{figures}</div></div>')
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
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{_text(case.label)}, '
        f'{_text(words)}"><figcaption><strong>{_text(words)}</strong><small>{_text(case.film)}</small></figcaption></figure>'
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{_text(key)}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        lines = any(len(str(item)) > 40 for item in value)  # sentences, such as problems, or names
        return ("<br>" if lines else ", ").join(_value(item) for item in value) or "none"
    return _text(f"{value:g}" if isinstance(value, float) else value)


def _text(value: Any) -> str:
    """Text that can be no markup; a file name may hold bytes that are no characters."""
    return escape(str(value).encode("utf-8", "replace").decode())
