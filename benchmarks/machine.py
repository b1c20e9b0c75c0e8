"""What every result file names: the machine, the versions, the command. Imported by the benchmark scripts beside it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from msloc_edge.doctor.machine import environment as this_machine
from msloc_edge.doctor.machine import versions

RESULTS = Path(__file__).with_name("results")


def environment(*packages: str) -> dict[str, Any]:
    """Machine and software, with the versions of `packages` too, and the command that is running."""
    found = this_machine()
    return {
        **found,
        "versions": found["versions"] | versions(packages),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
