"""A Jetson as it is run: power mode, clocks, memory, throttling; from sysfs, which needs no root, and from nvpmodel.

The names are those of NVIDIA's Jetson Linux Developer Guide, "Jetson Orin Nano Series, Jetson Orin NX Series and Jetson
AGX Orin Series" (r36.3): cooling devices X-throttle-alert, and the counters of soctherm_oc.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msloc_edge.doctor.system import number, output_of, text

NVPMODEL_PATIENCE = 5.0
"""Seconds until nvpmodel counts as hanging."""

GPU = re.compile(r".+\.(gpu|g[a-z]\d+b)|gpu-gpc-0")
"""Names of a GPU in /sys/class/devfreq: 17000000.gpu (Orin), 17000000.ga10b before JetPack 6, gpu-gpc-0 (Thor)."""

OVER_CURRENT = {1: "under voltage", 2: "average over-current", 3: "instantaneous over-current"}
"""Counters of soctherm_oc."""


def practice(root: Path = Path("/")) -> dict[str, Any] | None:
    """Look how a Jetson is run; None on another machine. Never raises; what nothing tells is None.

    power_mode, power_mode_id  as nvpmodel names them: MAXN_SUPER, 2
    clocks_mhz                 {gpu: [lowest, highest], cpu: [lowest, highest]} that the governors may choose
    clocks_locked              whether each of these has one clock only, as after jetson_clocks
    memory_available           bytes, of the one memory that CPU and GPU share
    swap, swap_used            bytes; zram: whether it is memory that is compressed
    throttled                  cooling devices that slow something down now
    over_current               events since the start, by kind
    temperature_c              of the hottest zone
    """
    if "nvidia,tegra" not in text(root / "proc/device-tree/compatible"):
        return None
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    clocks = {
        "gpu": _clocks(gpu_clocks(root), "min_freq", "max_freq", 1e6),
        "cpu": _clocks(policies, "scaling_min_freq", "scaling_max_freq", 1e3),
    }
    each = [span for spans in clocks.values() for span in spans]
    memory = {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text(root / "proc/meminfo"), re.M)}
    swap = memory.get("SwapTotal")
    return {
        **_power_mode(root),
        "clocks_mhz": {part: [min(s)[0], max(s, key=max)[1]] if s else None for part, s in clocks.items()},
        "clocks_locked": all(low == high for low, high in each) if each else None,
        "memory_available": memory.get("MemAvailable"),
        "swap": swap,
        "swap_used": None if swap is None else swap - memory.get("SwapFree", 0),
        "zram": "/zram" in text(root / "proc/swaps"),
        "throttled": throttling(root),
        "over_current": over_current(root),
        "temperature_c": temperature_c(root),
    }


def gpu_clocks(root: Path) -> list[Path]:
    """Find the folders of the GPU's clocks: cur_freq, min_freq, max_freq in Hz."""
    return [folder for folder in sorted((root / "sys/class/devfreq").glob("*")) if GPU.fullmatch(folder.name)]


def throttling(root: Path) -> list[str]:
    """Name the alerts that are on, gpu-throttle-alert and others: their state is above 0.

    A fan that turns, or a clock that is capped, is no alert.
    """
    devices = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    named = [(text(device / "type").strip(), number(device / "cur_state")) for device in devices]
    return [name for name, state in named if name.endswith("-alert") and state]


def over_current(root: Path) -> dict[str, int]:
    """Count the events since the start for which the hardware slowed down; {} where it does not tell."""
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if text(chip / "name").strip() == "soctherm_oc":
            counts = {kind: number(chip / f"oc{at}_event_cnt") for at, kind in OVER_CURRENT.items()}
            return {kind: int(count) for kind, count in counts.items() if count is not None}
    return {}


def temperature_c(root: Path) -> float | None:
    """Read the hottest thermal zone; a zone of a part that is switched off cannot be read."""
    zones = [number(zone / "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*")]
    return max((zone / 1e3 for zone in zones if zone is not None), default=None)


def _power_mode(root: Path) -> dict[str, Any]:
    """What `nvpmodel -q` says: "NV Power Mode: MAXN_SUPER", and the mode's number on a line of its own."""
    command = shutil.which("nvpmodel") or str(root / "usr/sbin/nvpmodel")
    try:
        _, said, _ = output_of([command, "-q"], NVPMODEL_PATIENCE)
    except OSError:
        said = ""
    name = re.search(r"^NV Power Mode:\s*(\S+)", said, re.MULTILINE)
    mode = re.search(r"^\s*(\d+)\s*$", said, re.MULTILINE)
    return {"power_mode": name[1] if name else None, "power_mode_id": int(mode[1]) if mode else None}


def _clocks(folders: Sequence[Path], lowest: str, highest: str, unit: float) -> list[tuple[float, float]]:
    """Lowest and highest clock of each part that tells both, in MHz."""
    found = [(number(folder / lowest), number(folder / highest)) for folder in folders]
    return [(low / unit, high / unit) for low, high in found if low is not None and high is not None]
