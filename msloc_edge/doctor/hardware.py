"""Checks of the machine and its GPUs, in words: what `environment()` found."""

from __future__ import annotations

from typing import Any

from msloc_edge._tables import counted
from msloc_edge.doctor.check import Check, size

MIN_MEMORY = 10**9
"""Bytes that a Jetson should have free, so that building an engine does not swap; a guess, as none was built on one."""

LOCK = "sudo jetson_clocks  # for times that can be compared; until the next start"


def check_machine(found: dict[str, Any]) -> list[Check]:
    """Check system and processor; both are always ok."""
    inside = [found["container"], "virtual machine" if found["virtual"] else None]
    software = [f"msloc-edge {found['versions'].get('msloc-edge', 'not installed')}", f"Python {found['python']}"]
    system = [*software, found["platform"], *filter(None, inside)]
    cores = f"{found['cores']} core{'s' * (found['cores'] != 1)} to use"
    memory = f"{size(found['memory'])} memory" if found["memory"] else None
    processor = [found["board"], found["cpu"], cores, memory]
    return [
        Check("machine", "system", "ok", ", ".join(system)),
        Check("machine", "processor", "ok", ", ".join(filter(None, processor))),
    ]


def check_gpus(found: dict[str, Any]) -> list[Check]:
    """Check NVIDIA's driver, GPUs, CUDA and JetPack, which are all optional, and how a Jetson is run."""
    jetson = found["jetson"]
    checks = [_power(jetson), _clocks(jetson), _memory(jetson), _throttling(jetson)] if jetson else []
    return [_driver(found), _gpus(found), _cuda(found), _jetpack(found), *checks]


def _driver(found: dict[str, Any]) -> Check:
    if found["nvidia_problem"]:
        fix = "nvidia-smi  # says more; after an update of the driver: sudo reboot"
        return Check("gpu", "NVIDIA driver", "warning", found["nvidia_problem"], fix)
    if not found["nvidia_driver"]:
        return Check("gpu", "NVIDIA driver", "absent", "no nvidia-smi: films run on the CPU")
    return Check("gpu", "NVIDIA driver", "ok", found["nvidia_driver"])


def _gpus(found: dict[str, Any]) -> Check:
    if not found["gpus"]:
        return Check("gpu", "GPU", "absent", "none listed")
    return Check("gpu", "GPU", "ok", "; ".join(_gpu(gpu) for gpu in found["gpus"]))


def _gpu(gpu: dict[str, Any]) -> str:
    sm = f"sm_{gpu['sm']}" if gpu["sm"] else "SM not told"
    return ", ".join(filter(None, [gpu["name"], sm, size(gpu["memory"]) if gpu["memory"] else None]))


def _cuda(found: dict[str, Any]) -> Check:
    if not found["cuda"]:
        return Check("gpu", "CUDA", "absent", "no libcuda.so.1, or it does not answer")
    return Check("gpu", "CUDA", "ok", f"the driver runs up to {found['cuda']}")


def _jetpack(found: dict[str, Any]) -> Check:
    if not (jetpack := found["jetpack"]):
        return Check("gpu", "JetPack", "absent", "not a Jetson")
    linux = f"Jetson Linux {jetpack['l4t']}" if jetpack["l4t"] else None
    return Check("gpu", "JetPack", "ok", ", ".join(filter(None, [jetpack["package"] or "version not told", linux])))


def _power(jetson: dict[str, Any]) -> Check:
    if not jetson["power_mode"]:
        return Check("gpu", "power mode", "absent", "nvpmodel does not tell it", "sudo nvpmodel -q")
    return Check("gpu", "power mode", "ok", f"{jetson['power_mode']} (nvpmodel -m {jetson['power_mode_id']})")


def _clocks(jetson: dict[str, Any]) -> Check:
    spans = [f"{part.upper()} {_mhz(span)}" for part, span in jetson["clocks_mhz"].items() if span]
    if not spans:
        return Check("gpu", "clocks", "absent", "neither devfreq nor cpufreq tells them")
    if jetson["clocks_locked"]:
        return Check("gpu", "clocks", "ok", f"locked: {', '.join(spans)}")
    return Check("gpu", "clocks", "ok", f"{', '.join(spans)}: they follow the load", LOCK)


def _mhz(span: list[float]) -> str:
    low, high = span
    return f"{high:.0f} MHz" if low == high else f"{low:.0f} to {high:.0f} MHz"


def _memory(jetson: dict[str, Any]) -> Check:
    available, swap, used = jetson["memory_available"] or 0, jetson["swap"] or 0, jetson["swap_used"] or 0
    kind = ", which is compressed memory" if jetson["zram"] else ""
    found = f"{size(available)} free for CPU and GPU together; {size(used)} of {size(swap)} swap used{kind}"
    if available < MIN_MEMORY:
        return Check("gpu", "shared memory", "warning", found, "sudo systemctl isolate multi-user.target  # no desktop")
    return Check("gpu", "shared memory", "ok", found)


def _throttling(jetson: dict[str, Any]) -> Check:
    heat = f"{jetson['temperature_c']:.0f} C at the hottest" if jetson["temperature_c"] is not None else ""
    counts = jetson["over_current"].items()
    events = [f"{counted(count, 'event')} of {kind} since the start" for kind, count in counts if count]
    found = ", ".join(filter(None, [*jetson["throttled"], *events, heat]))
    if jetson["throttled"] or events:
        fix = "sudo nvpmodel -q  # a lower mode, a stronger supply, or a fan: nothing here changes it"
        return Check("gpu", "throttling", "warning", found, fix)
    return Check("gpu", "throttling", "ok", ", ".join(filter(None, ["none", heat])))
