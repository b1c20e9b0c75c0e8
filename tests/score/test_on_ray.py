"""The same job on Ray Data, on a cluster of this machine: the same films, scores within 1e-5, the same boxes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest
from pyarrow import dataset as arrow

pytest.importorskip("ray", reason="ray is not installed: pip install 'msloc-edge[ray]'")

SCRIPT, RAY = (Path(sys.executable).with_name(name) for name in ("msloc-edge", "ray"))
ADDRESS = "127.0.0.1"
ENV = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
PATIENCE_S = 240


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return sorted(arrow.dataset(out / table).to_table().to_pylist(), key=lambda row: row["input"])


def descendants(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended meanwhile
            children += map(int, task.read_text().split())
    return [*children, *(below for child in children for below in descendants(child))]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Two nodes of two workers on this machine: the address, and the processes that hold a node each."""
    head, *ports = free_ports(9)
    # Ports that are given: a busy machine need not find them within Ray's 15 s.
    names = (
        "metrics-export-port",
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "runtime-env-agent-port",
    )
    nodes: list[subprocess.Popen[bytes]] = []
    for number in range(2):
        given = [f"--{name}={port}" for name, port in zip(names, ports[4 * number :], strict=False)]
        role = [f"--address={ADDRESS}:{head}"] if number else ["--head", f"--port={head}", "--include-dashboard=false"]
        words = [RAY, "start", "--block", f"--node-ip-address={ADDRESS}", "--num-cpus=2", *role, *given]
        words.append("--object-store-memory=100000000")
        nodes.append(subprocess.Popen(words, stdout=DEVNULL, stderr=DEVNULL, env=ENV))
        if not starts(nodes[-1]):
            end(nodes)
            pytest.skip("Ray's own processes do not start in time on a machine as busy as this one")
    yield f"{ADDRESS}:{head}", nodes
    end(nodes)


def starts(node: subprocess.Popen[bytes]) -> bool:
    """Wait until a node has its agent, the last of its own processes."""
    until = time.monotonic() + PATIENCE_S
    while node.poll() is None and time.monotonic() < until:
        if any("DashboardAgent" in command_of(pid) for pid in descendants(node.pid)):
            return True
        time.sleep(0.2)
    return False


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((ADDRESS, 0))
        return [one.getsockname()[1] for one in sockets]


def end(nodes: list[subprocess.Popen[bytes]]) -> None:
    for node in nodes:
        for pid in [*descendants(node.pid), node.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


def test_a_cluster_that_loses_workers_finds_the_same(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], scored: Path, made: Path, model: Path, tmp_path: Path
) -> None:
    address, nodes = cluster
    out = tmp_path / "scores"
    words = [SCRIPT, "score", made, out, "--model", model, "--maps", "--ray", "--part", "5", "-q"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ENV | {"RAY_ADDRESS": address}) as job:
        waited, killed = time.monotonic() + PATIENCE_S, 0
        while job.poll() is None and not killed and time.monotonic() < waited:
            for pid in [pid for node in nodes for pid in workers(node)]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            time.sleep(0.02)
        _, err = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1, err  # bad.png
    assert killed
    assert [row["reason"] for row in rows(out, "failures")] == ["not_an_image"]
    same = ("input", "sha256", "flagged", "findings", "boxes", "maps")
    for there, here in zip(rows(out, "films"), rows(scored, "films"), strict=True):
        scores = [name for name in here if name.startswith(("score_", "abnormal"))]
        assert [there[name] for name in scores] == pytest.approx([here[name] for name in scores], abs=1e-5)
        assert [there[name] for name in same] == [here[name] for name in same]


def workers(node: subprocess.Popen[bytes]) -> list[int]:
    """Processes of a node that localize."""
    return [pid for pid in descendants(node.pid) if "_Localize" in command_of(pid)]
