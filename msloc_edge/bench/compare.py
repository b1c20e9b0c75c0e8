"""A benchmark against an earlier one: which measurements got slower, and whether the two may be compared at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msloc_edge.bench.run import SCHEMA
from msloc_edge.errors import BenchError

KEYS = ("scenario", "scope", "batch", "streams", "rate")
"""Keys that tell one measurement from another."""

SAME = ("cpu", "board", "cores", "gpus")
"""Facts of the machine without which a comparison says nothing about the program."""


def read_bench(path: Path) -> dict[str, Any]:
    """Read an earlier result. Raises BenchError (figures_foreign)."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        if result["schema"] == SCHEMA:
            return result
        got = f"schema {result['schema']!r}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = getattr(error, "strerror", None) or f"{type(error).__name__}"
    raise BenchError("figures_foreign", f"{path}: expected a result of `msloc-edge bench --json`, got {got}")


def compare(now: Mapping[str, Any], before: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """Divide time per film now by that before, for each measurement that both have.

    A measurement has failed if it is more than `tolerance` (0.1: a tenth) slower: in median latency, or where there are
    no latencies, in films a second; so has the ratio to the bare classifier. Raises BenchError (figures_foreign) for
    results that share nothing.
    """
    earlier = {_key(row): row for row in before["measurements"]}
    rows = []
    for row in now["measurements"]:
        if _key(row) in earlier:
            old = earlier[_key(row)]
            rows.append({"what": describe(row), **_ratio(_per_film(row), _per_film(old), tolerance)})
    what = "localization_overhead_ratio"
    if what in now and what in before:
        rows.append({"what": what, **_ratio(now[what], before[what], tolerance)})
    if not rows:
        raise BenchError("figures_foreign", "expected a result with some of the same measurements, got none of them")
    return {
        "tolerance": tolerance,
        "different": [name for name in SAME if now["environment"].get(name) != before["environment"].get(name)]
        + [name for name in ("model", "backend", "films") if now[name] != before[name]],
        "rows": rows,
        "failed": any(row["failed"] for row in rows),
    }


def describe(row: Mapping[str, Any]) -> str:
    """Name a measurement in words."""
    facts = [f"{name} {row[name]:g}" for name in ("batch", "streams", "rate") if name in row]
    return ", ".join([row["scenario"], row["scope"], *facts])


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEYS)


def _per_film(row: Mapping[str, Any]) -> float:
    """Milliseconds."""
    return float(row["latency_ms"]["p50"]["value"] if row["latency_ms"] else 1e3 / row["films_per_s"])


def _ratio(now: float, before: float, tolerance: float) -> dict[str, Any]:
    ratio = now / before
    return {"now": now, "before": before, "ratio": round(ratio, 4), "failed": ratio > 1 + tolerance}
