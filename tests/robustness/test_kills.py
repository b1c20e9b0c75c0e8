"""Runs that are killed at random moments, and go on: no line is lost, none is there twice."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import ModuleType


def test_kills(robustness: ModuleType, tiny_bundle: Path, tmp_path: Path) -> None:
    """A folder, then a watched one. The benchmark does 50 (`python benchmarks/robustness.py --kills 50`)."""
    found = asdict(robustness.kill_runs(4, 1, str(tiny_bundle), tmp_path))
    assert found["kills"] == 4
    assert found["films"] >= 28
    assert {name: found[name] for name in ("lost", "doubled", "torn", "left_over")} == {
        "lost": 0,
        "doubled": 0,
        "torn": 0,
        "left_over": 0,
    }
