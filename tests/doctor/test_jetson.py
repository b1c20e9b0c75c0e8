"""How a Jetson is run, by files and an nvpmodel of the form that they have on an Orin with JetPack 6.2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from msloc_edge.doctor.check import Check
from msloc_edge.doctor.hardware import check_gpus
from msloc_edge.doctor.jetson import practice
from msloc_edge.doctor.machine import environment

CPUFREQ, DEVFREQ, THERMAL = "sys/devices/system/cpu/cpufreq", "sys/class/devfreq/17000000.gpu", "sys/class/thermal"
ORIN = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/meminfo": "MemTotal:        7802156 kB\nMemAvailable:    5814000 kB\nSwapTotal:       3901072 kB\n"
    "SwapFree:        3901000 kB\n",
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/zram0  partition\t650172\t\t0\t\t5\n",
    f"{CPUFREQ}/policy0/scaling_min_freq": "729600\n",
    f"{CPUFREQ}/policy0/scaling_max_freq": "1728000\n",
    f"{CPUFREQ}/policy4/scaling_min_freq": "729600\n",
    f"{CPUFREQ}/policy4/scaling_max_freq": "1510400\n",
    f"{DEVFREQ}/min_freq": "306000000\n",
    f"{DEVFREQ}/max_freq": "1020000000\n",
    f"{DEVFREQ}/cur_freq": "306000000\n",
    "sys/class/devfreq/15480000.nvdec/min_freq": "1\n",
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
    f"{THERMAL}/thermal_zone0/temp": "48500\n",
    f"{THERMAL}/thermal_zone8/type": "tj-thermal\n",
    f"{THERMAL}/thermal_zone8/temp": "49218\n",
    f"{THERMAL}/thermal_zone2/type": "cv0-thermal\n",  # switched off: temp cannot be read
    f"{THERMAL}/cooling_device0/type": "pwm-fan\n",
    f"{THERMAL}/cooling_device0/cur_state": "2\n",
    f"{THERMAL}/cooling_device6/type": "cpu-throttle-alert\n",
    f"{THERMAL}/cooling_device6/cur_state": "0\n",
    f"{THERMAL}/cooling_device7/type": "gpu-throttle-alert\n",
    f"{THERMAL}/cooling_device7/cur_state": "0\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "0\n",
}


def board(root: Path, **changed: str) -> Path:
    """An Orin under `root`; `changed` files by the ends of their names, with __ for /."""
    for name, text in ORIN.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(next((new for end, new in changed.items() if name.endswith(end.replace("__", "/"))), text))
    return root


@pytest.fixture(autouse=True)
def nvpmodel(program: Callable[[str, str], Path]) -> Path:
    """The script that is found as nvpmodel."""
    return program("nvpmodel", '#!/bin/sh\n[ "$*" = -q ] && printf "NV Power Mode: MAXN_SUPER\\n2\\n"\n')


def lines(root: Path) -> dict[str, Check]:
    return {check.name: check for check in check_gpus(environment(root))[4:]}


def test_an_orin(tmp_path: Path) -> None:
    assert practice(board(tmp_path / "root")) == {
        "power_mode": "MAXN_SUPER",
        "power_mode_id": 2,
        "clocks_mhz": {"gpu": [306, 1020], "cpu": [729.6, 1728]},
        "clocks_locked": False,
        "memory_available": 5814000 * 1024,
        "swap": 3901072 * 1024,
        "swap_used": 72 * 1024,
        "zram": True,
        "throttled": [],
        "over_current": {"under voltage": 0, "average over-current": 0, "instantaneous over-current": 0},
        "temperature_c": 49.218,
    }
    found = lines(tmp_path / "root")
    assert {name: (check.status, check.found) for name, check in found.items()} == {
        "power mode": ("ok", "MAXN_SUPER (nvpmodel -m 2)"),
        "clocks": ("ok", "GPU 306 to 1020 MHz, CPU 730 to 1728 MHz: they follow the load"),
        "shared memory": (
            "ok",
            "6.0 GB free for CPU and GPU together; 73.7 kB of 4.0 GB swap used, which is compressed memory",
        ),
        "throttling": ("ok", "none, 49 C at the hottest"),
    }
    assert (found["clocks"].fix or "").startswith("sudo jetson_clocks")


def test_locked_clocks_may_differ_between_clusters(tmp_path: Path) -> None:
    locked = board(
        tmp_path / "root",
        policy0__scaling_min_freq="1728000",
        policy4__scaling_min_freq="1510400",
        gpu__min_freq="1020000000",
    )
    found = practice(locked)
    assert found is not None
    assert found["clocks_locked"] is True
    assert lines(locked)["clocks"].found == "locked: GPU 1020 MHz, CPU 1510 to 1728 MHz"


def test_what_slows_it_down_is_named(tmp_path: Path) -> None:
    hot = board(tmp_path / "root", cooling_device7__cur_state="1", oc2_event_cnt="1", oc3_event_cnt="37")
    check = lines(hot)["throttling"]
    assert (check.status, check.found) == (
        "warning",
        "gpu-throttle-alert, 1 event of average over-current since the start, 37 events of instantaneous over-current "
        "since the start, 49 C at the hottest",
    )


def test_little_memory_is_a_warning(tmp_path: Path) -> None:
    meminfo = "MemTotal: 7802156 kB\nMemAvailable: 600000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    check = lines(board(tmp_path / "root", proc__meminfo=meminfo, proc__swaps=""))["shared memory"]
    assert (check.status, check.found) == (
        "warning",
        "614.4 MB free for CPU and GPU together; 0 bytes of 0 bytes swap used",
    )


@pytest.mark.parametrize(
    ("said", "name", "number"),
    [
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W\n2\n", "MODE_30W", 2),
        ("NV Power Mode: 15W\n0\n", "15W", 0),
        ("NVPM ERROR: failed to read PARAM\n", None, None),
        ("", None, None),
    ],
)
def test_what_nvpmodel_says(tmp_path: Path, nvpmodel: Path, said: str, name: str | None, number: int | None) -> None:
    nvpmodel.write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n")
    found = practice(board(tmp_path / "root"))
    assert found is not None
    assert (found["power_mode"], found["power_mode_id"]) == (name, number)
    assert lines(tmp_path / "root")["power mode"].status == ("ok" if name else "absent")


def test_a_board_that_tells_nothing(tmp_path: Path, nvpmodel: Path) -> None:
    nvpmodel.unlink()
    (tmp_path / "root/proc/device-tree").mkdir(parents=True)
    (tmp_path / "root/proc/device-tree/compatible").write_text("nvidia,tegra264\0")
    found = practice(tmp_path / "root")
    assert found is not None
    assert (found["clocks_mhz"], found["clocks_locked"]) == ({"gpu": None, "cpu": None}, None)
    assert (found["swap"], found["temperature_c"], found["over_current"]) == (None, None, {})
    assert lines(tmp_path / "root")["clocks"].status == "absent"


def test_another_machine(tmp_path: Path) -> None:
    assert practice(tmp_path) is None
    assert lines(tmp_path) == {}
