"""A Ray cluster on this machine whose nodes can be killed. Imported by benchmarks/score.py and the tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import DEVNULL

RAY = Path(sys.executable).with_name("ray")
HOST = "127.0.0.1"
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
START_S = 240
_PORTS = ("metrics-export-port", "dashboard-agent-grpc-port", "dashboard-agent-listen-port", "runtime-env-agent-port")


class LocalRay:
    """A cluster of nodes with `cpus` CPUs each, of which the first is the head. Use it in a `with` statement.

    environment  what a program needs in its environment to use the cluster

    Raises TimeoutError where Ray's own processes do not start in time.
    """

    def __init__(self, nodes: int = 2, cpus: int = 1) -> None:
        head, *ports = _free_ports(1 + nodes * len(_PORTS))
        self.environment = os.environ | ENVIRONMENT | {"RAY_ADDRESS": f"{HOST}:{head}"}
        self._nodes: list[subprocess.Popen[bytes]] = []
        until = time.monotonic() + START_S
        for number in range(nodes):
            # Ports that are given: a busy machine need not find them within Ray's 15 s.
            given = [f"--{name}={ports.pop()}" for name in _PORTS]
            role = [f"--address={HOST}:{head}"] if number else ["--head", f"--port={head}", "--include-dashboard=false"]
            memory = "--object-store-memory=100000000"
            words = ["--block", f"--node-ip-address={HOST}", f"--num-cpus={cpus}", memory, *role, *given]
            self._nodes.append(_start(words))
            while not _runs(self._nodes[-1]):  # it gives up after 30 s, which a busy machine may need
                self.kill_node(number)
                if time.monotonic() > until:
                    self.close()
                    raise TimeoutError(f"Ray's own processes do not start on a machine as busy as this, in {START_S} s")
                self._nodes[number] = _start(words)

    def __enter__(self) -> LocalRay:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        for number in range(len(self._nodes)):
            self.kill_node(number)

    def kill_node(self, number: int) -> None:
        """Kill all processes of a node."""
        node = self._nodes[number]
        for pid in [*descendants(node.pid), node.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def workers(self, number: int) -> list[int]:
        """Processes of a node that localize."""
        return [pid for pid in descendants(self._nodes[number].pid) if "_Localize" in _command(pid)]


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended meanwhile
            children += map(int, task.read_text().split())
    return [*children, *(below for child in children for below in descendants(child))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([RAY, "start", *words], stdout=DEVNULL, stderr=DEVNULL, env=os.environ | ENVIRONMENT)


def _runs(node: subprocess.Popen[bytes]) -> bool:
    """Wait until a node has its agent, the last of its own processes; False when it has ended."""
    while node.poll() is None:
        if any("DashboardAgent" in _command(pid) for pid in descendants(node.pid)):
            return True
        time.sleep(0.2)
    return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
