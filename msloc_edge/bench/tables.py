"""Tables of a benchmark, in text, for terminal and page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msloc_edge.bench.compare import describe

COLUMNS = ("p50", "p90", "p95", "p99", "p99.9")


@dataclass(frozen=True, slots=True)
class Table:
    """Title, one sentence, head, and rows of cells whose first is their name."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Make the tables that have rows."""
    return [
        one
        for one in (
            *_cold(result),
            _latency(result),
            _stages(result),
            *_classifier(result),
            *_machine(result),
            *_against(result),
        )
        if one.rows
    ]


def number(value: float | None) -> str:
    """Format with three significant digits, never in powers of ten."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{number(found['value'])} ({number(found['low'])}-{number(found['high'])})"


def _cold(result: Mapping[str, Any]) -> Iterator[Table]:
    cold = result["cold_start_ms"]
    if cold:
        rows = [
            (step.replace("_", " "), *(number(found[of]) for of in ("median", "min", "max")))
            for step, found in cold.items()
        ]
        note = f"{result['settings']['cold']} fresh processes, files in the page cache; total: until the first result."
        yield Table("Cold start, ms", note, ("step", "median", "min", "max"), rows)


def _latency(result: Mapping[str, Any]) -> Table:
    rows = []
    for row in result["measurements"]:
        found = row["latency_ms"]
        cells = [_interval(found[q]) for q in COLUMNS] if found else ["-"] * len(COLUMNS)
        late = "-" if row.get("missed") is None else f"{row['missed']} of {row['films']}"
        rows.append((describe(row), *cells, number(found["max"]) if found else "-", number(row["films_per_s"]), late))
    note = (
        "With 95% intervals (block bootstrap); a quantile beyond which no film is expected is left out. "
        "Offline rows: the time of one batch. A film at a fixed rate counts from its arrival."
    )
    return Table("Latency, ms", note, ("measurement", *COLUMNS, "max", "films/s", "missed"), rows)


def _stages(result: Mapping[str, Any]) -> Table:
    rows = [
        (f"{describe(row)}: {name}", *(_interval(found[q]) for q in ("p50", "p90", "p99")), number(found["max"]))
        for row in result["measurements"]
        for name, found in row["stages_ms"].items()
    ]
    return Table("Stages, ms", "Where the time of one film goes.", ("stage", "p50", "p90", "p99", "max"), rows)


def _classifier(result: Mapping[str, Any]) -> Iterator[Table]:
    if "classifier" in result:
        rows = [
            (
                {"network": "model input to boxes / to logits", "end-to-end": "file to line / to line of scores"}[
                    scope
                ],
                _interval(found["localizer_ms"]["p50"]),
                _interval(found["classifier_ms"]["p50"]),
                _interval(found["ratio"]),
            )
            for scope, found in result["classifier"].items()
        ]
        note = "Median ms, film by film in turns; the ratio is the median over pairs."
        yield Table(
            "Localization over the bare classifier", note, ("from / to", "localizer", "classifier", "ratio"), rows
        )


def _machine(result: Mapping[str, Any]) -> Iterator[Table]:
    rows = []
    for row in result["measurements"]:
        seen = row["telemetry"]
        meters = "; ".join(
            f"{name}: {', '.join(f'{key} {_plain(value)}' for key, value in values.items())}"
            for name, values in seen.items()
            if isinstance(values, Mapping) and name != "rss_mb" and values
        )
        memory = seen["rss_mb"]
        slope = seen["rss_mb_per_1000_images"]
        rows.append(
            (
                describe(row),
                number(memory["max"]),
                "-" if slope is None else f"{slope:+.2f}",
                number(seen["joules_per_image"]),
                meters or "-",
            )
        )
    note = "Resident memory, its slope over the second half, and what meters told. Absent: " + "; ".join(
        f"{name} ({why})" for name, why in result["meters_absent"].items()
    )
    yield Table("The machine meanwhile", note, ("measurement", "max MB", "MB / 1000 films", "J / film", "meters"), rows)


def _against(result: Mapping[str, Any]) -> Iterator[Table]:
    against = result.get("against")
    if against:
        rows = [
            (
                row["what"],
                number(row["now"]),
                number(row["before"]),
                number(row["ratio"]),
                "slower" if row["failed"] else "ok",
            )
            for row in against["rows"]
        ]
        differs = f" Not the same: {', '.join(against['different'])}." if against["different"] else ""
        note = f"Fails above {1 + against['tolerance']:g}.{differs}"
        yield Table(f"Against {against['file']}", note, ("measurement", "now, ms", "before, ms", "ratio", ""), rows)


def _plain(value: Any) -> str:
    return number(value) if isinstance(value, float) and not isinstance(value, bool) else str(value).lower()
