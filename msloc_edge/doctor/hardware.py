"""Checks of the machine and its GPUs, in words: what `environment()` found."""

from __future__ import annotations

from typing import Any

from msloc_edge.doctor.check import Check, size


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
    """Check NVIDIA's driver, GPUs, CUDA and JetPack; all of them are optional."""
    return [_driver(found), _gpus(found), _cuda(found), _jetpack(found)]


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
