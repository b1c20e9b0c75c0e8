"""The same job on Ray Data, on a cluster of this machine: the same films, scores within 1e-5, the same boxes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pyarrow import dataset as arrow

pytest.importorskip("ray", reason="ray is not installed: pip install 'msloc-edge[ray]'")


@pytest.fixture(scope="module")
def cluster(benchmark: ModuleType) -> Iterator[Any]:
    """Two nodes of one CPU each."""
    try:
        with benchmark.LocalRay() as ray:
            yield ray
    except TimeoutError as late:
        pytest.skip(str(late))


def rows(out: Path, table: str = "films") -> list[dict[str, Any]]:
    return sorted(arrow.dataset(out / table).to_table().to_pylist(), key=lambda row: row["input"])


def test_a_cluster_finds_the_same(
    benchmark: ModuleType, cluster: Any, scored: Path, made: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    words = [*benchmark.SCORE, str(made), str(out), "--model", str(model), "--maps", "--ray", "-q"]
    done = subprocess.run(words, capture_output=True, text=True, env=cluster.environment)
    assert done.returncode == 1, done.stderr  # bad.png
    assert [row["reason"] for row in rows(out, "failures")] == ["not_an_image"]
    assert benchmark.other_scores(out, scored) == 0
    same = ("sha256", "flagged", "findings", "maps")
    for there, here in zip(rows(out), rows(scored), strict=True):
        assert there["abnormal"] == pytest.approx(here["abnormal"], abs=1e-5)
        assert [there[name] for name in same] == [here[name] for name in same]


def test_a_worker_and_a_node_are_killed_and_nothing_is_lost(
    benchmark: ModuleType, cluster: Any, model: Path, tmp_path: Path
) -> None:
    """The last test here: the node stays dead."""
    films = benchmark.make_films(tmp_path / "films", 400)
    words = ["--model", str(model), "--part", "20"]
    subprocess.run([*benchmark.SCORE, str(films), str(tmp_path / "whole"), *words, "-q"], capture_output=True)
    kills = benchmark.kill_node(films, tmp_path / "out", words, cluster)
    assert asdict(kills) == asdict(benchmark.Kills(kills=1, films=400))
    assert benchmark.other_scores(tmp_path / "out", tmp_path / "whole") == 0
