"""bench.html: the latency distributions and the waterfall of stages of one benchmark, in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from msloc_edge.bench.compare import describe
from msloc_edge.bench.tables import tables
from msloc_edge.render.page import facts, page, section, table, text

WIDTH, PLOT, BINS = 920, 150, 80
LEFT = 110  # room for the names of stages, pixels
COLORS = ("#8cc8ff", "#56b4e9", "#c3a6ff", "#f5a300", "#e8a2c8", "#12b886", "#7bd88f", "#9aa4b2")
SHOWN_UP_TO = 99.5  # percentile: one interrupted film must not squeeze all others into one bar


def bench_page(result: Mapping[str, Any]) -> str:
    """Make the page of a benchmark's JSON."""
    model, backend = result["model"], result["backend"]
    subtitle = ", ".join(
        [f"{backend['engine']} {backend['version']} on {backend['device']}", result["films"]["what"], result["time"]]
    )
    rows = result["measurements"]
    shown = {name: value for name, value in result.items() if name in _FACTS}
    sections = [
        *(section(one.title, one.note, table(one.head, one.rows)) for one in tables(result)),
        section("Where the time goes", "Median milliseconds of each stage of one film.", _each(rows, _waterfall)),
        section(
            "How latencies are distributed",
            f"Films by latency, to the {SHOWN_UP_TO:g}th percentile; how many were slower, at the right.",
            _each((row for row in rows if row["samples_ms"]), _histogram),
        ),
        section("How this came about", "", facts(shown)),
    ]
    css = (resources.files("msloc_edge.bench") / "page.css").read_text(encoding="utf-8")
    return page(f"Benchmark of {model['name']} {model['version']}", subtitle, sections, css)


_FACTS = ("command", "model", "backend", "films", "settings", "harness_overhead_ms", "meters_absent", "environment")


def _each(rows: Iterable[Mapping[str, Any]], draw: Any) -> str:
    figures = [(describe(row), draw(row)) for row in rows]
    return "".join(f"<figure><figcaption>{text(what)}</figcaption>{svg}</figure>" for what, svg in figures if svg)


def _waterfall(row: Mapping[str, Any]) -> str:
    """Draw a bar for each stage, each beginning where the one before ends."""
    stages = {name: found["p50"]["value"] for name, found in row["stages_ms"].items() if found["p50"]}
    total = sum(stages.values())
    if not total:
        return ""
    height, scale, x = 26, (WIDTH - LEFT - 90) / total, float(LEFT)
    bars = []
    for at, (name, ms) in enumerate(stages.items()):
        y, width = at * height, max(1.0, ms * scale)
        bars.append(
            f'<text x="{LEFT - 10}" y="{y + 17}" text-anchor="end">{text(name)}</text>'
            f'<rect x="{x:.1f}" y="{y + 5}" width="{width:.1f}" height="16" rx="2" fill="{COLORS[at % len(COLORS)]}"/>'
            f'<text x="{x + width + 6:.1f}" y="{y + 17}">{ms:.3g}</text>'
        )
        x += ms * scale
    return _svg(len(stages) * height + 4, bars, f"stages of {describe(row)}, {total:.3g} ms in all")


def _histogram(row: Mapping[str, Any]) -> str:
    samples = np.array(row["samples_ms"])
    low, high = float(samples.min()), float(np.percentile(samples, SHOWN_UP_TO))
    if high <= low:
        high = low + max(1e-3, low * 0.01)
    counts, _ = np.histogram(samples, BINS, (low, high))
    width = (WIDTH - 80) / BINS
    bars = [
        f'<rect x="{40 + at * width:.1f}" y="{20 + PLOT * (1 - n / counts.max()):.1f}" width="{width - 1:.1f}" '
        f'height="{PLOT * n / counts.max():.1f}" fill="{COLORS[1]}"/>'
        for at, n in enumerate(counts)
        if n
    ]
    for name in ("p50", "p90", "p99"):
        found = row["latency_ms"][name]
        if found and low <= found["value"] <= high:
            x = 40 + (found["value"] - low) / (high - low) * width * BINS
            bars.append(
                f'<path d="M{x:.1f} 14V{20 + PLOT}" stroke="currentColor" stroke-dasharray="3 3"/>'
                f'<text x="{x:.1f}" y="11" text-anchor="middle">{name}</text>'
            )
    base = 20 + PLOT + 16
    beyond = int(np.count_nonzero(samples > high))
    bars.append(f'<text x="40" y="{base}">{low:.3g} ms</text>')
    more = f"; {beyond} slower, to {samples.max():.3g}" if beyond else ""
    bars.append(f'<text x="{WIDTH - 40}" y="{base}" text-anchor="end">{high:.3g} ms{more}</text>')
    return _svg(base + 6, bars, f"histogram of {len(samples)} latencies, {describe(row)}")


def _svg(height: float, parts: Sequence[str], what: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{text(what)}" '
        f'fill="currentColor" font-size="12">{"".join(parts)}</svg>'
    )
