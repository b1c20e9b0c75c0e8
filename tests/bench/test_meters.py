"""Meters on folders like those that Linux and a Jetson show, and what telemetry makes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msloc_edge.bench.meters import AbsentMeterError, Cpu, Ina, Jetson, Meter, Nvml, Rapl, find_meters
from msloc_edge.bench.scenarios import Run
from msloc_edge.bench.telemetry import Telemetry, resident_mb


def put(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


ZONE = "sys/class/powercap/intel-rapl:{}/{}"


def zone(root: Path, number: int, energy_uj: int, wraps_at: int = 1000_000_000) -> None:
    put(root, **{ZONE.format(number, "energy_uj"): f"{energy_uj}\n"})
    put(root, **{ZONE.format(number, "max_energy_range_uj"): f"{wraps_at}\n"})


def test_rapl_adds_packages_and_survives_the_wrap(tmp_path: Path) -> None:
    zone(tmp_path, 0, 900_000_000)
    zone(tmp_path, 1, 5_000_000)
    put(tmp_path, **{"sys/class/powercap/intel-rapl:0:0/energy_uj": "1"})  # a core inside package 0: counted there
    meter = Rapl(tmp_path)
    assert meter.read() == {"energy_j": 0}
    zone(tmp_path, 0, 100_000_000)  # 100 J to the end, 100 J from the start
    zone(tmp_path, 1, 6_000_000)
    assert meter.read()["energy_j"] == pytest.approx(201)
    zone(tmp_path, 1, 6_500_000)
    assert meter.read()["energy_j"] == pytest.approx(201.5)


def test_rapl_that_is_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(AbsentMeterError, match="intel-rapl"):
        Rapl(tmp_path)
    zone(tmp_path, 0, 1)
    (tmp_path / ZONE.format(0, "energy_uj")).unlink()
    (tmp_path / ZONE.format(0, "energy_uj")).mkdir()  # as unreadable as a file that only root may read
    with pytest.raises(AbsentMeterError, match="energy_uj"):
        Rapl(tmp_path)


def test_ina_is_the_rail_of_the_whole_module(tmp_path: Path) -> None:
    monitor = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    for channel, label, millivolts, milliamperes in ((1, "VDD_IN", 19_000, 500), (2, "VDD_CPU_GPU_CV", 19_000, 200)):
        put(tmp_path, **{f"{monitor}/in{channel}_label": label + "\n", f"{monitor}/in{channel}_input": str(millivolts)})
        put(tmp_path, **{f"{monitor}/curr{channel}_input": str(milliamperes)})
    assert Ina(tmp_path).read() == {"power_w": pytest.approx(9.5)}
    (tmp_path / monitor / "in1_label").write_text("VDD_SOC\n")
    with pytest.raises(AbsentMeterError, match="VDD_IN"):
        Ina(tmp_path)


def test_a_jetson_tells_its_clock_and_what_slows_it_down(tmp_path: Path) -> None:
    thermal, hwmon = "sys/class/thermal", "sys/class/hwmon/hwmon3"
    put(tmp_path, **{"sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n"})
    put(tmp_path, **{f"{thermal}/thermal_zone0/temp": "48500\n", f"{thermal}/thermal_zone8/temp": "61250\n"})
    put(tmp_path, **{f"{thermal}/cooling_device0/type": "pwm-fan\n", f"{thermal}/cooling_device0/cur_state": "3\n"})
    put(tmp_path, **{f"{thermal}/cooling_device1/type": "gpu-throttle-alert\n"})
    put(tmp_path, **{f"{thermal}/cooling_device1/cur_state": "0\n", f"{hwmon}/name": "soctherm_oc\n"})
    put(tmp_path, **{f"{hwmon}/oc{kind}_event_cnt": f"{count}\n" for kind, count in ((1, 0), (2, 15), (3, 37))})
    meter = Jetson(tmp_path)
    assert meter.read() == {"clock_mhz": 612, "temperature_c": 61.25, "throttled": 0, "throttle_count": 52}
    put(tmp_path, **{f"{thermal}/cooling_device1/cur_state": "1\n"})
    assert meter.read()["throttled"] == 1
    with pytest.raises(AbsentMeterError, match="devfreq"):
        Jetson(tmp_path / "nothing")


def test_the_cpu_tells_clocks_throttling_and_what_was_stolen(tmp_path: Path) -> None:
    put(tmp_path, proc__stat="cpu  100 0 50 800 10 0 0 40 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    for core, khz, count in ((0, 1_000_000, 3), (1, 2_000_000, 4)):
        put(tmp_path, **{f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": f"{khz}\n"})
        put(tmp_path, **{f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count": f"{count}\n"})
    assert Cpu(tmp_path).read() == {"clock_mhz": 1500, "throttle_count": 7, "ticks": 1000, "stolen_ticks": 40}


def test_a_cpu_that_tells_its_clock_in_cpuinfo_only(tmp_path: Path) -> None:
    put(tmp_path, proc__cpuinfo="processor\t: 0\ncpu MHz\t\t: 2400.0\nprocessor\t: 1\ncpu MHz\t\t: 2600.0\n")
    assert Cpu(tmp_path).read() == {"clock_mhz": 2500}
    with pytest.raises(AbsentMeterError, match="/proc/stat"):
        Cpu(tmp_path / "nothing")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA driver")
def test_nvml_without_a_driver_says_so() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    with pytest.raises(AbsentMeterError, match="NVML"):
        Nvml()


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA driver")
def test_nvml_tells_power_and_clocks() -> None:
    values = Nvml().read()
    assert values["power_w"] > 0
    assert values["clock_mhz"] > 0


def test_nvml_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(AbsentMeterError, match="nvidia-ml-py"):
        Nvml()


def test_every_meter_of_this_machine_is_found_or_absent_with_a_reason() -> None:
    found, absent = find_meters()
    assert {meter.name for meter in found} | set(absent) == {"cpu", "rapl", "jetson", "ina", "nvml"}
    assert all(absent.values())
    for meter in found:
        assert all(isinstance(value, float) for value in meter.read().values())


class Told(Meter):
    """A meter that says what the test puts into `values`; None: it fails to answer."""

    name = "told"

    def __init__(self) -> None:
        self.values: dict[str, float] | None = {}

    def read(self) -> dict[str, float]:
        if self.values is None:
            raise OSError("no answer")
        return dict(self.values)


def ran(begin: float, end: float, films: int) -> Run:
    return Run(np.ones(films), begin, end, films)


def test_energy_that_counts_up_becomes_power_and_joules_per_image(clock: Any) -> None:
    meter = Told()
    telemetry = Telemetry([meter], clock)
    for second in range(11):
        meter.values = {
            "energy_j": 500.0 + 30 * second,
            "throttle_count": 2.0,
            "ticks": 100.0 * second,
            "stolen_ticks": second * 1.0,
        }
        telemetry.look()
        clock.work(1000)
    clock.at -= 1
    seen = telemetry.during(ran(1000, 1010, 200))
    assert seen["told"] == {"power_w": 30, "joules_per_image": 1.5, "throttled": False, "stolen_percent": 1}
    assert seen["joules_per_image"] == 1.5


def test_power_of_the_moment_and_throttling(clock: Any) -> None:
    meter = Told()
    telemetry = Telemetry([meter], clock)
    for watts, throttled in ((10.0, 0.0), (12.0, 1.0), (11.0, 0.0)):
        meter.values = {"power_w": watts, "throttled": throttled, "clock_mhz": 100 * watts}
        telemetry.look()
        clock.work(1000)
    meter.values = None
    seen = telemetry.during(ran(1000, 1002, 4))
    assert seen["told"] == {"clock_mhz": 1100, "power_w": 11, "joules_per_image": 5.5, "throttled": True}


def test_what_no_meter_tells_is_none(clock: Any) -> None:
    telemetry = Telemetry([], clock)
    telemetry.look()
    seen = telemetry.during(ran(1000, 1001, 10))
    assert seen["joules_per_image"] is None
    assert seen["rss_mb_per_1000_images"] is None, "one look makes no slope"
    assert seen["rss_mb"]["first"] == pytest.approx(resident_mb(), rel=0.2)


def test_a_leak_has_a_slope(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 films a second, 0.25 MB each: 250 MB in 1000 films. What fills up in the first half does not count."""
    telemetry = Telemetry([], clock)
    for second in range(60):
        rss = 100 + (50 * second if second < 10 else 500) + 0.25 * 10 * second
        monkeypatch.setattr("msloc_edge.bench.telemetry.resident_mb", lambda rss=rss: rss)
        telemetry.look()
        clock.work(1000)
    assert telemetry.during(ran(1000, 1059, 590))["rss_mb_per_1000_images"] == pytest.approx(250, rel=1e-3)


def test_a_long_run_keeps_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from msloc_edge.bench.scenarios import Clock

    monkeypatch.setattr("msloc_edge.bench.telemetry.INTERVAL", 1e-4)
    monkeypatch.setattr("msloc_edge.bench.telemetry.MAX_LOOKS", 16)
    clock = Clock()
    begin = clock.now()
    with Telemetry([], clock) as telemetry:
        clock.sleep(begin + 0.5)
    assert 2 <= len(telemetry._looks) <= 16
    assert telemetry._looks[0].at - begin < 0.3, "the first looks are among them"


def test_it_watches_by_itself() -> None:
    from msloc_edge.bench.scenarios import Clock

    clock = Clock()
    begin = clock.now()
    with Telemetry(find_meters()[0], clock) as telemetry:
        clock.sleep(begin + 1.0)
    assert len(telemetry._looks) >= 2
