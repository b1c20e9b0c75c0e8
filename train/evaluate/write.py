"""The files of an evaluation: metrics.json, and the same as a long table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msloc_edge.errors import TrainError

SCHEMA = "msloc-edge/eval/1"
_FIGURE = ("value", "low", "high", "n")


def metrics_json(metrics: Mapping[str, Any]) -> str:
    """The whole of an evaluation; nan cannot occur."""
    return json.dumps(metrics, indent=1, allow_nan=False) + "\n"


def read_metrics(path: Path) -> dict[str, Any]:
    """A metrics.json. Raises TrainError for a file that is none."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError("figures_foreign", f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise TrainError("figures_foreign", f"{path}: expected a metrics.json of msloc-edge eval ({error})") from error
    schema = metrics.get("schema") if isinstance(metrics, dict) else None
    if schema != SCHEMA:
        raise TrainError("figures_foreign", f"{path}: expected schema {SCHEMA}, got {schema!r}; run eval again")
    return dict(metrics)


def metrics_csv(metrics: Mapping[str, Any]) -> str:
    """One line per figure: metric (the path in metrics.json), label ("macro" for the mean of the findings), value, low,
    high, n."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("metric", "label", *_FIGURE))
    writer.writerows(_lines(metrics, ()))
    return text.getvalue()


def _lines(node: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    if not isinstance(node, Mapping):
        return
    if set(_FIGURE) <= node.keys():
        label = path[-1] if path[-1] == "macro" or path[-2:-1] == ("per_class",) else ""
        parts = path[: -1 if label else None]
        metric = ".".join(part for part in parts if part != "per_class")
        yield (metric, label, *("" if node[key] is None else node[key] for key in _FIGURE))
        return
    for key, value in node.items():
        yield from _lines(value, (*path, key))
