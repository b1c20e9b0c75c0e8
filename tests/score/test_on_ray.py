"""The same job on Ray Data, on a cluster of this machine: the same films, scores within 1e-5, the same boxes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import dataset as arrow

pytest.importorskip("ray", reason="ray is not installed: pip install 'msloc-edge[ray]'")

SCRIPT = Path(sys.executable).with_name("msloc-edge")
PATIENCE_S = 240


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return sorted(arrow.dataset(out / table).to_table().to_pylist(), key=lambda row: row["input"])


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [*children, *(below for child in children for below in descendants(child))]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_cluster_that_loses_a_worker_finds_the_same(scored: Path, made: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    words = [SCRIPT, "score", made, out, "--model", model, "--maps", "--ray", "--part", "5", "-q"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as job:
        end, killed = time.monotonic() + PATIENCE_S, 0
        while job.poll() is None and not killed and time.monotonic() < end:
            for pid in descendants(job.pid):
                if "_Localize" in command_of(pid) and not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed = pid
            time.sleep(0.05)
        _, err = job.communicate(timeout=PATIENCE_S)
    if "timed out during startup" in err:
        pytest.skip("Ray's own processes do not start in time on a machine as busy as this one")
    assert job.returncode == 1, err  # bad.png
    assert killed
    assert [row["reason"] for row in rows(out, "failures")] == ["not_an_image"]
    for there, here in zip(rows(out, "films"), rows(scored, "films"), strict=True):
        scores = [name for name in here if name.startswith(("score_", "abnormal"))]
        assert [there[name] for name in scores] == pytest.approx([here[name] for name in scores], abs=1e-5)
        assert [there[name] for name in ("input", "sha256", "flagged", "findings", "boxes", "maps")] == [
            here[name] for name in ("input", "sha256", "flagged", "findings", "boxes", "maps")
        ]
