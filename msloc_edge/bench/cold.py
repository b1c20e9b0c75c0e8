"""Cold start: the steps of a fresh process until its first result, timed in one.

    python -m msloc_edge.bench.cold BEGUN MODEL BACKEND DEVICE PRECISION FILM     (DEVICE "" is the backend's own)

BEGUN is the wall clock when the parent asked for the process. Files are in the page cache from the second time on: the
figure is that of a restarted service, not of a machine that was just switched on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from msloc_edge.errors import BackendError

STEPS = ("interpreter", "import", "load", "first_image", "second_image")


def cold_start(model: Path, backend: str, device: str | None, precision: str, film: Path) -> dict[str, float]:
    """Time each step in a new process, milliseconds, and `total`, until the first result. Raises BackendError."""
    command = [sys.executable, "-m", "msloc_edge.bench.cold", repr(time.time())]
    done = subprocess.run(
        [*command, str(model), backend, device or "", precision, str(film)], capture_output=True, text=True
    )
    if done.returncode:
        raise BackendError(
            "backend_failed", f"a fresh process failed: {(done.stderr.splitlines() or ['no words'])[-1]}"
        )
    steps = {name: float(ms) for name, ms in json.loads(done.stdout).items()}
    return {**steps, "total": sum(ms for name, ms in steps.items() if name != STEPS[-1])}


def main() -> None:
    """The child: prints step -> milliseconds as JSON."""
    marks = [time.time()]
    begun, model, backend, device, precision, film = sys.argv[1:]
    from msloc_edge.pipeline import Localizer

    marks.append(time.time())
    with Localizer(model, backend, device or None, precision=precision) as localizer:
        marks.append(time.time())
        for _ in range(2):
            localizer.localize(film)
            marks.append(time.time())
    spent = [(after - before) * 1e3 for before, after in zip([float(begun), *marks], marks, strict=False)]
    print(json.dumps(dict(zip(STEPS, spent, strict=True))))


if __name__ == "__main__":
    main()
