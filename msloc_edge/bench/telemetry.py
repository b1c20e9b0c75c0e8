"""Memory and meters while films run: a thread that looks at them, and figures of one measurement."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from msloc_edge.bench.meters import Meter
from msloc_edge.bench.scenarios import Clock, Run

INTERVAL = 0.2  # seconds between two looks, at first; one takes some tens of microseconds
MAX_LOOKS = 1024  # looks that are kept: of more, every second one goes, so that a long run's memory is not ours
MIN_LOOKS = 8  # looks that a slope needs


@dataclass(frozen=True, slots=True)
class Look:
    """Values at a time: resident memory, and each meter's."""

    at: float
    rss_mb: float
    values: dict[str, dict[str, float]]


class Telemetry:
    """Looks every INTERVAL seconds between entering and leaving; in a long run less and less often."""

    def __init__(self, meters: Sequence[Meter], clock: Clock) -> None:
        self._meters, self._clock = meters, clock
        self._looks: list[Look] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)

    def __enter__(self) -> Telemetry:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def during(self, run: Run) -> dict[str, Any]:
        """Sum up what was seen during a run: memory and its slope, clocks, power; None for what nothing told."""
        self.look()
        looks = [look for look in list(self._looks) if run.begin <= look.at <= run.end] or self._looks[-1:]
        seen = {meter.name: _meter(meter.name, looks, run) for meter in self._meters}
        energies = [values["joules_per_image"] for values in seen.values() if values.get("joules_per_image")]
        return {
            "rss_mb": {"first": looks[0].rss_mb, "last": looks[-1].rss_mb, "max": max(look.rss_mb for look in looks)},
            "rss_mb_per_1000_images": _slope(looks, run),
            "joules_per_image": round(sum(energies), 4) if energies else None,
            **seen,
        }

    def look(self) -> None:
        """Take one look, now."""
        values = {}
        for meter in self._meters:
            try:
                values[meter.name] = meter.read()
            except (OSError, ValueError):  # a sensor may fail to answer now and then
                values[meter.name] = {}
        self._looks.append(Look(self._clock.now(), resident_mb(), values))

    def _watch(self) -> None:
        interval = INTERVAL
        while not self._stop.wait(interval):
            self.look()
            if len(self._looks) >= MAX_LOOKS:
                self._looks = self._looks[::2]
                interval *= 2


def resident_mb() -> float:
    """Read the resident memory of this process, MB (2**20); Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)


def _slope(looks: Sequence[Look], run: Run) -> float | None:
    """MB that resident memory grows by in 1000 images: a least-squares line through the second half of the looks."""
    half = looks[len(looks) // 2 :]
    if len(half) < MIN_LOOKS:
        return None
    per_second = np.polyfit([look.at - run.begin for look in half], [look.rss_mb for look in half], 1)[0]
    return round(float(per_second / run.films_per_s * 1000), 4)


def _meter(name: str, looks: Sequence[Look], run: Run) -> dict[str, Any]:
    """A meter's values over a run: medians of those of the moment, differences of those that count."""
    columns: dict[str, list[float]] = {}
    for look in looks:
        for key, value in look.values.get(name, {}).items():
            columns.setdefault(key, []).append(value)
    rise = {key: values[-1] - values[0] for key, values in columns.items()}
    seen: dict[str, Any] = {
        key: round(float(np.median(columns[key])), 3)
        for key in ("clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
        if key in columns
    }
    span = looks[-1].at - looks[0].at
    if "energy_j" in columns and span > 0:
        seen["power_w"] = round(rise["energy_j"] / span, 3)
    if "power_w" in seen:
        seen["joules_per_image"] = round(seen["power_w"] / run.films_per_s, 4)
    if "throttled" in columns or "throttle_count" in columns:
        seen["throttled"] = any(columns.get("throttled", ())) or rise.get("throttle_count", 0) > 0
    if rise.get("ticks"):
        seen["stolen_percent"] = round(100 * rise["stolen_ticks"] / rise["ticks"], 2)
    return seen
