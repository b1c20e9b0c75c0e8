"""Meters of clocks, throttling and power: the CPU, RAPL, a Jetson's GPU and its INA sensors, NVML.

A meter is found or absent with a reason; a value that a meter lacks is left out, never guessed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msloc_edge.doctor import jetson

THROTTLED = 0xEC
"""NVML's clock event reasons that slow a GPU down against its will: SW power cap 0x4, HW slowdown 0x8, SW thermal 0x20,
HW thermal 0x40, HW power brake 0x80 (nvml.h, nvmlClocksEventReason*)."""


class AbsentMeterError(Exception):
    """This machine has no such meter, or does not let us read it; the message says which."""


class Meter(ABC):
    """A source of values: `energy_j` counts up, all others are those of the moment."""

    name: str

    @abstractmethod
    def read(self) -> dict[str, float]:
        """Value by name."""


class Rapl(Meter):
    """Energy of the CPU packages, Linux powercap (Documentation/power/powercap)."""

    name = "rapl"

    def __init__(self, root: Path = Path("/")) -> None:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:?"))
        if not zones:
            raise AbsentMeterError("no /sys/class/powercap/intel-rapl:0")
        try:
            self._zones = [(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())) for zone in zones]
            self._last = [int(file.read_text()) for file, _ in self._zones]
        except OSError as error:
            raise AbsentMeterError(f"{error.filename}: {error.strerror}") from error
        self._joules = 0.0

    def read(self) -> dict[str, float]:
        for at, (file, wraps_at) in enumerate(self._zones):
            now = int(file.read_text())
            self._joules += (now - self._last[at]) % wraps_at * 1e-6
            self._last[at] = now
        return {"energy_j": self._joules}


class Ina(Meter):
    """Power at a Jetson's INA3221, from the files that tegrastats reads: the rail of the whole module."""

    name = "ina"
    WHOLE = ("VDD_IN", "POM_5V_IN", "SYS_VIN")

    def __init__(self, root: Path = Path("/")) -> None:
        for label in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
            if label.read_text().strip() in self.WHOLE:
                channel = label.name.removeprefix("in").removesuffix("_label")
                self._volts = label.with_name(f"in{channel}_input")  # millivolts
                self._amperes = label.with_name(f"curr{channel}_input")  # milliamperes
                self.read()
                return
        raise AbsentMeterError("no INA3221 with a VDD_IN rail")

    def read(self) -> dict[str, float]:
        return {"power_w": int(self._volts.read_text()) * int(self._amperes.read_text()) * 1e-6}


class Jetson(Meter):
    """A Jetson's GPU clock, its hottest zone, alerts that slow it down, and events of over-current."""

    name = "jetson"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, clocks = root, jetson.gpu_clocks(root)
        if not clocks:
            raise AbsentMeterError("no clock of a Jetson's GPU in /sys/class/devfreq")
        self._clock = clocks[0] / "cur_freq"

    def read(self) -> dict[str, float]:
        values = {
            "clock_mhz": int(self._clock.read_text()) / 1e6,
            "throttled": float(any(jetson.throttling(self._root))),
        }
        if (heat := jetson.temperature_c(self._root)) is not None:
            values["temperature_c"] = heat
        if events := jetson.over_current(self._root):
            values["throttle_count"] = float(sum(events.values()))
        return values


class Cpu(Meter):
    """The CPU's clock, how often its cores were throttled, and what a hypervisor took away."""

    name = "cpu"

    def __init__(self, root: Path = Path("/")) -> None:
        cpus = root / "sys/devices/system/cpu"
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._info, self._stat = root / "proc/cpuinfo", root / "proc/stat"
        if not self.read():
            raise AbsentMeterError("neither cpufreq nor /proc/cpuinfo nor /proc/stat")

    def read(self) -> dict[str, float]:
        values = {}
        clocks = [int(file.read_text()) / 1e3 for file in self._clocks] or self._clocks_of_cpuinfo()
        if clocks:
            values["clock_mhz"] = sum(clocks) / len(clocks)
        if self._throttles:
            values["throttle_count"] = float(sum(int(file.read_text()) for file in self._throttles))
        if self._stat.exists():
            ticks = [int(n) for n in self._stat.read_text().splitlines()[0].split()[1:9]]
            values["ticks"], values["stolen_ticks"] = float(sum(ticks)), float(ticks[7])  # proc(5): the 8th is steal
        return values

    def _clocks_of_cpuinfo(self) -> list[float]:
        if not self._info.exists():
            return []
        return [float(line.split(":")[1]) for line in self._info.read_text().splitlines() if line.startswith("cpu MHz")]


class Nvml(Meter):
    """An NVIDIA GPU: energy, power, clocks, temperature, and whether it is being slowed down. Needs nvidia-ml-py."""

    name = "nvml"

    def __init__(self, index: int = 0) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise AbsentMeterError("nvidia-ml-py is not installed") from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            raise AbsentMeterError(f"NVML: {error}") from error
        self._asked: dict[str, Callable[[], float]] = {
            "energy_j": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3,
            "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(device) / 1e3,
            "clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM),
            "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
            "throttled": lambda: bool(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device) & THROTTLED),
        }

    def read(self) -> dict[str, float]:
        values = {}
        for name, ask in list(self._asked.items()):
            try:
                values[name] = float(ask())
            except self._nvml.NVMLError:  # a GPU that lacks this one, such as energy before Volta, lacks it for good
                del self._asked[name]
        return values


METERS: tuple[Callable[[], Meter], ...] = (Cpu, Rapl, Jetson, Ina, Nvml)


def find_meters() -> tuple[list[Meter], dict[str, str]]:
    """Find the meters of this machine, and for the others name -> why they are absent."""
    found: list[Meter] = []
    absent = {}
    for meter in METERS:
        try:
            found.append(meter())
        except AbsentMeterError as reason:
            absent[meter.name] = str(reason)  # type: ignore[attr-defined]
    return found, absent
