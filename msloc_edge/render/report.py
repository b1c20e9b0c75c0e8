"""The HTML report: one file that opens anywhere, offline, with every film, its findings and how they came about.

All that is not ours (names, labels, messages) enters as JSON in inert script blocks and reaches the page as text,
never as markup. The page's own script and style are named by hash in its content security policy, so nothing else
could run even so.
"""

from __future__ import annotations

import html
import json
import math
import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge._files import append_whole, temporary_beside
from msloc_edge.render.colors import palette
from msloc_edge.render.heatmap import color_index, encode
from msloc_edge.result import Result
from msloc_edge.types import Finding

_FILM_SIDE, _MAP_SIDE, _THUMB_SIDE = 1024, 256, 112

PAGE_FILMS = 100
"""Films on a page of a report."""

PAGES = ("report*.html", ".report*.html.part")
"""Names of the pages of report.html, finished and not, as globs."""

_BEGIN, _END = '<script type="application/json" class="', "</script>\n"
_CONTENT = tuple(f'{_BEGIN}{kind}"' for kind in ("card", "film", "failure"))


class Report:
    """A report that grows on disk, film by film, and appears under its name when it is closed.

    After PAGE_FILMS films it goes on in a file of its own, report-2.html beside report.html, linked from page to page:
    a browser reads all of a file before it shows any. Memory stays flat however many films are added. As a context
    manager it is closed in any case: what was added before an exception is a whole report.

    model  name, version, sha256, classes, intended_use, map_thresholds (label -> logit units), relevance (label ->
           one weight per stage), operating_point (a sentence), show (findings that are drawn at first); what is
           missing is left out of the page
    known  tells whether a film (input, sha256, ...) or failure (input, reason, message) that the report of an earlier
           run ends with belongs there; None begins a new report, otherwise an earlier one, killed or not, goes on
    """

    def __init__(
        self,
        path: Path,
        title: str,
        model: Mapping[str, Any],
        known: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        self._path = path
        self._thresholds: Mapping[str, float] = model.get("map_thresholds") or {}
        head, self._tail = _page(title)
        self._head = head + _block("report", {"title": title, "model": dict(model)})
        self._films = 0
        self._number, blocks = self._earlier(known) if known else (1, [])
        self._begin(blocks)

    def _earlier(self, known: Callable[[Mapping[str, Any]], bool]) -> tuple[int, list[str]]:
        """The number of the last page of an earlier run, and its whole and known blocks."""
        number = 1
        while any(place.exists() for place in (self._place(number + 1), self._unfinished(number + 1))):
            number += 1
        place = next((place for place in (self._unfinished(number), self._place(number)) if place.exists()), None)
        if place is None:
            return 1, []
        with place.open(encoding="ascii", errors="replace", newline="\n") as lines:
            blocks = [line for line in lines if line.startswith(_CONTENT) and line.endswith(_END)]
        while blocks and (blocks[-1].startswith(_CONTENT[0]) or not known(_record(blocks[-1]))):
            blocks.pop()
        return number, blocks

    def _begin(self, blocks: Sequence[str] = ()) -> None:
        """Begin a page, with the blocks of its earlier run, under a name by which it is found again."""
        temporary = temporary_beside(self._path)
        self._file = temporary.open("xb", buffering=0)
        try:
            self._write("".join([self._head, *blocks]))
            temporary.replace(self._unfinished(self._number))
        except BaseException:
            self._file.close()
            temporary.unlink(missing_ok=True)
            raise
        self._films = sum(block.startswith(_CONTENT[1]) for block in blocks)

    def _place(self, number: int) -> Path:
        return self._path if number == 1 else self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")

    def _unfinished(self, number: int) -> Path:
        return self._path.with_name(f".{self._place(number).name}.part")

    def add(self, display: NDArray[np.float32], result: Result, links: Mapping[str, str] | None = None) -> None:
        """Add one film.

        display  [H, W] float32 in [0, 1], the windowed film in stored-image pixels
        links    what -> name of a sibling file, such as {"overlay": "a.overlay.png"}
        """
        colors = palette(finding.label for finding in result.findings)
        card = {
            "name": result.input,
            "thumb": _jpeg(display, _THUMB_SIDE, 75),
            "warnings": len(result.warnings),
            "refused": result.refused,
            "positive": [
                {"label": f.label, "score": f.score, "excess": f.excess, "color": colors[f.label]}
                for f in result.positive
            ],
        }
        film = result.to_dict() | {"image": _jpeg(display, _FILM_SIDE, 90), "links": dict(links or {})}
        for record, finding in zip(film["findings"], result.findings, strict=True):
            facts = {"excess": finding.excess, "lacks_region": finding.lacks_region}
            record |= {"color": colors[finding.label]} | facts | self._maps(result, finding)
        if self._films == PAGE_FILMS:
            self._finish(last=False)
            self._number += 1
            self._films = 0
            self._begin()
        self._write(_block("card", card) + _block("film", film))
        self._films += 1

    def add_failure(self, name: str, reason: str, message: str) -> None:
        """Add an input that could not be read or localized: its name, the reason code and one sentence."""
        self._write(_block("failure", {"input": name, "reason": reason, "message": message}))

    def remove(self) -> None:
        """Take back what was added last."""
        end, self._films = self._before
        self._file.truncate(end)
        self._file.seek(end)

    def close(self) -> None:
        """Finish the page and give it its name. Closing twice does nothing more."""
        if not self._file.closed:
            self._finish(last=True)

    def _finish(self, last: bool) -> None:
        pages = {"number": self._number, "last": last, "name": self._path.stem, "suffix": self._path.suffix}
        with self._file:
            self._write(_block("pages", pages) + self._tail)
        os.replace(self._unfinished(self._number), self._place(self._number))

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _maps(self, result: Result, finding: Finding) -> dict[str, Any]:
        """The localization map as colour indices, and the stage maps as bytes with their range in logit units."""
        threshold = self._thresholds.get(finding.label)
        if threshold is None or not math.isfinite(threshold) or finding.label not in result.maps:
            return {}
        map = _shrink(result.maps[finding.label], _MAP_SIDE)
        stages = [_stage(stage) for stage in result.stage_maps.get(finding.label, ())]
        return {"map_threshold": threshold, "map": _png(color_index(map, threshold)), "stages": stages}

    def _write(self, text: str) -> None:
        self._before = self._file.tell(), self._films
        append_whole(self._file, text.encode())


def _page(title: str) -> tuple[str, str]:
    """The page before and after its films."""
    folder = resources.files("msloc_edge.render")
    names = ("report.html", "report.css", "report.maps.js", "report.film.js", "report.js")
    page, css, *scripts = ((folder / name).read_text(encoding="utf-8") for name in names)
    js = "\n".join(scripts)
    page = page.replace("__CSS_HASH__", _csp_hash(css)).replace("__JS_HASH__", _csp_hash(js))
    head, tail = page.replace("__CSS__", css).replace("__JS__", js).split("__FILMS__\n")
    return head.replace("__TITLE__", html.escape(_speakable(title))), tail


def _csp_hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _speakable(text: str) -> str:
    """Text that UTF-8 can write: a file name may hold bytes that are no characters."""
    return text.encode("utf-8", "replace").decode()


def _block(kind: str, value: Any) -> str:
    """Inert JSON: no "<" is left, so no tag or comment can begin inside it, and all of it is ASCII."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return f'{_BEGIN}{kind}">{text}{_END}'


def _record(block: str) -> dict[str, Any]:
    return dict(json.loads(block[block.index(">") + 1 : -len(_END)]))


def _plain(value: Any) -> Any:
    """JSON types only: arrays become lists, and a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shrink(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    height, width = image.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _stage(map: NDArray[np.float32]) -> dict[str, Any]:
    """A stage map in 8 bits between its own extremes, which travel with it: the page goes back to logit units."""
    if not np.isfinite(map).all():
        map = np.nan_to_num(map)
    low, high = float(map.min()), float(map.max())
    levels = np.rint((map - low) * (255 / (high - low or 1.0))).astype(np.uint8)
    return {"low": low, "high": high, "mean": float(map.mean()), "image": _png(levels)}


def _png(image: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + b64encode(encode(".png", image)).decode()


def _jpeg(display: NDArray[np.float32], side: int, quality: int) -> str:
    levels = np.rint(np.clip(_shrink(display, side), 0, 1) * 255).astype(np.uint8)
    return "data:image/jpeg;base64," + b64encode(encode(".jpg", levels, cv2.IMWRITE_JPEG_QUALITY, quality)).decode()
