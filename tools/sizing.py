"""Write the costs of docs/archive.md from benchmarks/results/score.json: where time goes, and 10^6 studies.

python benchmarks/score.py --kills 0      on a quiet machine, then
python tools/sizing.py docs/archive.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from msloc_edge._files import atomic_write

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "score.json"
BEGIN, END = "<!-- tools/sizing.py writes this -->\n", "<!-- to here -->\n"
STUDIES = 1_000_000
FILMS_A_STUDY = 377_110 / 227_835
"""MIMIC-CXR's."""

GFLOP = 1.09
"""Of cxr-edge's network for a film: 0.546 billion multiplications and additions of its convolutions."""

USED = 0.1
"""Share of a GPU's peak that is counted on."""

GPUS = (("NVIDIA L4 (30 TFLOP/s in fp32) with 16 cores", 30e3, 16.0),
        ("Jetson Orin Nano (1.3 TFLOP/s in fp32), 6 cores of a third of the speed", 1.3e3, 2.0))  # fmt: skip
"""Name, peak in GFLOP/s, cores as fast as the measured ones."""


def main() -> None:
    page = Path(sys.argv[1])
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = costs(json.loads(RESULTS.read_text(encoding="utf-8"))["speed"])
    atomic_write(page, f"{before}{BEGIN}\n{text}\n{END}{after}".encode())


def costs(speed: dict[str, Any]) -> str:
    """Word the two tables, from the part `speed` of a result."""
    parts, job = speed["cpu_ms_of_parts"], sum(speed["cpu_ms_of_job"].values())
    rows = [
        ("read, window, letterbox (r)", parts["read"]),
        ("network (n)", parts["network"]),
        ("boxes, row (l)", parts["locate"]),
        ("shared memory, threads, Parquet", job - sum(parts.values())),
        ("**a film of the job**", job),
    ]
    table = "".join(f"| {name} | {ms:.1f} |\n" for name, ms in rows)
    told = "".join(f"| {name} | {rate:,.0f} | {hours(rate):,.1f} |\n" for name, rate in rates(speed, job).items())
    return (
        f"| CPU milliseconds of a film | |\n| --- | --- |\n{table}\n"
        f"| 10^6 studies of {FILMS_A_STUDY:.2f} films | films a second | hours |\n| --- | --- | --- |\n{told}"
    )


def rates(speed: dict[str, Any], job: float) -> dict[str, float]:
    """Compute the films a second of machines: measured, or 1000 C / job, or min(1000 / g, 1000 C / (r + l))."""
    parts, cores = speed["cpu_ms_of_parts"], speed["cores"]
    found = {f"{cores} cores, measured at a load of {speed['load_average']:.0f}": float(speed["films_per_s"])}
    found |= {f"{count} such cores, reckoned": 1e3 * count / job for count in (16, 64)}
    for name, peak, own_cores in GPUS:
        reading = 1e3 * own_cores / (parts["read"] + parts["locate"])
        found[f"{name}, reckoned"] = min(USED * peak / GFLOP, reading)
    return found


def hours(films_per_s: float) -> float:
    return STUDIES * FILMS_A_STUDY / films_per_s / 3600


if __name__ == "__main__":
    main()
