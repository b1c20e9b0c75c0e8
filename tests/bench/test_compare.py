"""One benchmark against another: what is slower, what is not the same, what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.bench.compare import compare, describe, read_bench
from msloc_edge.errors import BenchError


def row(scenario: str, scope: str, p50: float | None, films_per_s: float = 1.0, **facts: Any) -> dict[str, Any]:
    latency = None if p50 is None else {"p50": {"value": p50, "low": p50, "high": p50}}
    return {"scenario": scenario, "scope": scope, "films_per_s": films_per_s, "latency_ms": latency, **facts}


def result(*rows: dict[str, Any], cpu: str = "Z80", model: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "schema": "msloc-edge/bench/1",
        "environment": {"cpu": cpu, "cores": 1},
        "model": model,
        "backend": {"engine": "x"},
        "films": {"what": "y"},
        "measurements": list(rows),
        **more,
    }


def test_slower_than_the_tolerance_fails() -> None:
    before = result(row("single-stream", "network", 100), row("single-stream", "end-to-end", 200))
    now = result(row("single-stream", "network", 109), row("single-stream", "end-to-end", 221))
    found = compare(now, before, 0.1)
    assert [(r["what"], r["ratio"], r["failed"]) for r in found["rows"]] == [
        ("single-stream, network", 1.09, False),
        ("single-stream, end-to-end", 1.105, True),
    ]
    assert found["failed"]
    assert found["different"] == []
    assert not compare(now, before, 0.2)["failed"]
    assert not compare(before, now, 0.0)["failed"], "faster never fails"


def test_rows_meet_by_what_they_measured() -> None:
    before = result(row("offline", "end-to-end", None, 10, batch=1), row("offline", "end-to-end", None, 20, batch=4))
    now = result(row("offline", "end-to-end", None, 8, batch=4), row("fixed-rate", "network", 5, rate=3.0))
    (only,) = compare(now, before, 0.1)["rows"]
    assert only == {"what": "offline, end-to-end, batch 4", "now": 125, "before": 50, "ratio": 2.5, "failed": True}
    assert describe(now["measurements"][1]) == "fixed-rate, network, rate 3"


def test_the_overhead_ratio_is_compared_too() -> None:
    found = compare(result(localization_overhead_ratio=1.5), result(localization_overhead_ratio=1.2), 0.1)
    assert found["rows"] == [
        {"what": "localization_overhead_ratio", "now": 1.5, "before": 1.2, "ratio": 1.25, "failed": True}
    ]


def test_another_machine_or_model_is_named() -> None:
    rows = [row("single-stream", "network", 1)]
    found = compare(result(*rows, cpu="6502", model="b"), result(*rows), 0.1)
    assert found["different"] == ["cpu", "model"]


def test_nothing_in_common() -> None:
    with pytest.raises(BenchError) as error:
        compare(result(row("offline", "network", 1, batch=1)), result(row("offline", "network", 1, batch=2)), 0.1)
    assert error.value.reason == "figures_foreign"


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (None, "No such file"),
        ("not json", "JSONDecodeError"),
        ("[1]", "TypeError"),
        ("{}", "KeyError"),
        (json.dumps({"schema": "msloc-edge/bench/99"}), "msloc-edge/bench/99"),
    ],
)
def test_a_file_that_is_no_benchmark(tmp_path: Path, content: str | None, got: str) -> None:
    file = tmp_path / "before.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BenchError, match=got) as error:
        read_bench(file)
    assert error.value.reason == "figures_foreign"
