"""A job that is killed at random moments, and gone on with, has the rows of one that nobody killed."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are counted in /proc")
def test_ten_kills_lose_nothing_and_double_nothing(benchmark: ModuleType, model: Path, tmp_path: Path) -> None:
    """The benchmark does 20 over 5,000 films (`python benchmarks/score.py --films 5000 --kills 20`)."""
    films = benchmark.make_films(tmp_path / "films", 400)
    words = ["--model", str(model), "--workers", "1"]
    kills = benchmark.kill_runs(films, tmp_path / "out", 10, [*words, "--part", "10"])
    whole = [*benchmark.SCORE, films, tmp_path / "whole", *words, "-q"]
    subprocess.run(list(map(str, whole)), capture_output=True)
    assert kills.kills >= 5
    must_be_none = set(asdict(kills)) - {"kills", "films"}
    assert {name: getattr(kills, name) for name in must_be_none} == dict.fromkeys(must_be_none, 0)
    assert kills.films == 400
    assert len(benchmark.column(tmp_path / "out" / "failures", "input")) == 8
    assert benchmark.other_scores(tmp_path / "out", tmp_path / "whole") == 0
