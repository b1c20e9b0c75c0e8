"""msloc-edge bench, as a user runs it. What it measures is nobody's business here; that it measures what it says is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.bench.run import DEVICE_STEPS, STAGES

Run = Callable[..., Any]
QUICK = ("--films", 6, "--warmup", 1, "--cold", 0, "--threads", 1)


@pytest.fixture
def run(msloc: Run, tmp_path: Path, bundle: Path, films: Path) -> Callable[..., dict[str, Any]]:
    """Runs bench on three films with the tiny bundle and returns its JSON."""

    def measure(*arguments: object, code: int = 0) -> dict[str, Any]:
        file = tmp_path / "bench.json"
        ran = msloc("bench", films, "--model", bundle, *QUICK, "--json", file, *arguments)
        assert ran.code == code, ran.err
        assert ran.lines == []
        result: dict[str, Any] = json.loads(file.read_text())
        return result

    return measure


def rows(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["scenario"], row["scope"]): row for row in result["measurements"]}


def test_single_stream(run: Callable[..., dict[str, Any]], films: Path) -> None:
    result = run()
    assert result["schema"] == "msloc-edge/bench/1"
    assert result["backend"]["engine"] == "onnxruntime"
    assert result["films"] == {"what": f"1 inputs: {films}", "files": 3}
    assert result["command"].startswith("msloc-edge bench ")
    assert {"cpu", "cores", "memory", "versions", "gpus"} <= set(result["environment"])
    assert result["first_image_ms"] > 0
    assert 0 < result["harness_overhead_ms"] < 0.1
    assert result["cold_start_ms"] is None
    assert set(rows(result)) == {("single-stream", scope) for scope in ("kernel", "network", "end-to-end")}
    for row in result["measurements"]:
        assert row["films"] == row["latency_ms"]["count"] == len(row["samples_ms"]) == 6
        assert row["latency_ms"]["p50"]["low"] <= row["latency_ms"]["p50"]["value"] <= row["latency_ms"]["p50"]["high"]
        assert row["latency_ms"]["p99"] is None, "six films know nothing of a hundredth"
        assert row["telemetry"]["rss_mb"]["max"] > 10
    whole = rows(result)["single-stream", "end-to-end"]
    assert list(whole["stages_ms"]) == [name for name in STAGES if name not in DEVICE_STEPS or name == "network"]
    parts = sum(stage["mean"]["value"] for stage in whole["stages_ms"].values())
    assert parts <= whole["latency_ms"]["mean"]["value"]
    assert parts > 0.5 * whole["latency_ms"]["mean"]["value"], "the stages are most of a film's time"


def test_a_scope_that_the_backend_does_not_have(bundle: Path, films: Path, msloc: Run) -> None:
    ran = msloc("bench", films, "--model", bundle, *QUICK, "--scope", "device")
    assert ran.code == 1
    assert "[option_invalid]" in ran.err
    assert "expected a backend that windows films on a device, got onnxruntime; use --backend tensorrt" in ran.err


def test_every_scenario(run: Callable[..., dict[str, Any]]) -> None:
    """Each by its own option, in this order."""
    options = ("--rate", 50, "--deadline", 1000, "--batch", 1, "--batch", 2, "--streams", 1, "--streams", 3)
    result = run(*options)
    found = [(row["scenario"], row["scope"], row.get("batch")) for row in result["measurements"]]
    scopes = ("kernel", "network", "end-to-end")
    assert found == [
        *(("single-stream", scope, None) for scope in scopes),
        *(("multi-stream", scope, None) for scope in scopes),
        *(("offline", scope, batch) for scope in scopes[1:] for batch in (1, 2)),
        *(("fixed-rate", scope, None) for scope in scopes),
    ]
    assert all(row["films"] >= 6 and row["films_per_s"] > 0 for row in result["measurements"])
    late = rows(result)["fixed-rate", "end-to-end"]
    assert (late["rate"], late["deadline_ms"]) == (50, 1000)
    assert 0 <= late["missed"] <= 6
    assert rows(result)["multi-stream", "network"]["streams"] == 3


@pytest.mark.parametrize(("option", "scenario"), [("--rate", "fixed-rate"), ("--batch", "offline")])
def test_an_asked_scenario_stands_alone(run: Callable[..., dict[str, Any]], option: str, scenario: str) -> None:
    result = run(option, 4, "--scope", "network")
    assert [row["scenario"] for row in result["measurements"]] == [scenario]


def test_the_bare_classifier_beside_it(run: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("onnx")
    result = run("--compare-classifier", "--scope", "kernel")
    compared = result["classifier"]
    assert set(compared) == {"network", "end-to-end"}
    for scope in compared.values():
        assert scope["localizer_ms"]["count"] == scope["classifier_ms"]["count"] == 6
        assert scope["ratio"]["low"] <= scope["ratio"]["value"] <= scope["ratio"]["high"]
    assert result["localization_overhead_ratio"] == compared["network"]["ratio"]["value"]


def test_cold_start_is_measured_in_fresh_processes(run: Callable[..., dict[str, Any]]) -> None:
    result = run("--cold", 2, "--scope", "kernel")
    cold = result["cold_start_ms"]
    assert list(cold) == ["interpreter", "import", "load", "first_image", "second_image", "total"]
    assert all(0 < step["min"] <= step["median"] <= step["max"] for step in cold.values())
    least = sum(cold[step]["min"] for step in ("interpreter", "import", "load", "first_image"))
    assert cold["total"]["max"] >= least > 50, "Python alone takes some tens of milliseconds to start"


@pytest.mark.parametrize(("kind", "what"), [("90x70x12", "12 bits, DICOM"), ("64x80x8", "8 bits, PNG")])
def test_generated_films(msloc: Run, bundle: Path, kind: str, what: str) -> None:
    ran = msloc("bench", "--model", bundle, *QUICK, "--generate", kind, "--scope", "end-to-end", "-q")
    assert (ran.code, ran.err) == (0, "")
    (result,) = ran.lines
    assert result["films"]["files"] == 8
    assert what in result["films"]["what"]


def test_the_json_goes_to_stdout_without_a_file(start: Callable[..., Any], bundle: Path, films: Path) -> None:
    process = start("bench", films, "--model", bundle, *QUICK, "--scope", "network")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["schema"] == "msloc-edge/bench/1"
    assert b"Latency, ms" in err


def test_the_page(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    page = tmp_path / "new" / "bench.html"
    run("--html", page, "--films", 30)
    text = page.read_text()
    assert text.count("<svg") == 1 + 3, "a waterfall, and a histogram for each scope"
    assert all(word in text for word in ("decode", "preprocess", "network", "localize", "histogram of 30 latencies"))
    assert "http://" not in text
    assert "<script" not in text


def test_against_an_earlier_run(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The earlier run is edited to have been very slow, then very fast."""
    before = run("--scope", "network")
    file = tmp_path / "before.json"
    for factor, code in ((1e3, 0), (1e-3, 1)):
        edited = json.loads(json.dumps(before))
        edited["measurements"][0]["latency_ms"]["p50"]["value"] *= factor
        file.write_text(json.dumps(edited))
        result = run("--scope", "network", "--against", file, code=code)
        assert result["against"]["failed"] == bool(code)
        assert result["against"]["different"] == []
        assert len(result["against"]["rows"]) == 1


def test_what_is_refused_as_usage(msloc: Run, films: Path) -> None:
    for words, arguments in (
        ("--deadline belongs to --rate", ("--deadline", 100)),
        ("choose one of the two", (films, "--generate", "64x64x8")),
        ("expects WxHxBITS", ("--generate", "big")),
        ("expects WxHxBITS", ("--generate", "64x64x9")),
        ("expects WxHxBITS", ("--generate", "10x64x8")),
        ('got "-"', ("-",)),
        ("--films", (films, "--films", 0)),
    ):
        ran = msloc("bench", *arguments)
        assert ran.code == 2, arguments
        assert words in ran.err


def test_what_cannot_be_measured(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    (films / "b.png").write_bytes(b"")
    for reason, arguments in (
        ("missing", (tmp_path / "nothing.png", "--model", bundle)),
        ("truncated", (films / "b.png", "--model", bundle)),
        ("bundle_file_missing", (films / "a.dcm", "--model", tmp_path)),
        ("figures_foreign", (films / "a.dcm", "--model", bundle, "--against", tmp_path / "none.json")),
        ("out_unwritable", (films / "a.dcm", "--model", bundle, *QUICK, "--json", films / "a.dcm" / "x.json")),
    ):
        ran = msloc("bench", *arguments)
        assert ran.code == 1, arguments
        assert ran.reasons == [reason], ran.err
