"""Machine and software, as plain values for JSON; what is not there is None or an empty list."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from msloc_edge.doctor.jetson import practice
from msloc_edge.doctor.system import output_of, text

PACKAGES = (
    *("msloc-edge", "numpy", "pillow", "opencv-python-headless", "opencv-python"),
    *("onnxruntime", "onnxruntime-gpu", "openvino", "torch", "triton", "tensorrt", "tensorrt-rtx"),
    *("onnx", "safetensors", "cuda-bindings", "pycuda"),
    *("pydicom", "imagecodecs", "simplejpeg", "pynetdicom", "highdicom"),
)
"""Distributions whose version can explain a result or a failure."""

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader")
NVIDIA_PATIENCE = 10.0
"""Seconds until nvidia-smi counts as hanging: without a persistence daemon it first wakes every GPU."""


def environment(root: Path = Path("/")) -> dict[str, Any]:
    """Machine, software and GPUs; never fails. `root` is where the system's files are looked for.

    cpu, board, cores     as the kernel names them; the cores that this process may use
    memory                bytes
    container, virtual    "docker", "podman" or what else `container` says; whether this is a virtual machine (x86 only)
    versions              of PACKAGES, those that are installed; nothing is imported for it
    nvidia_driver, gpus   as nvidia-smi names them; a GPU is {name, sm: 90, memory: bytes}
    nvidia_problem        one sentence where nvidia-smi is there and gives no GPU
    cuda                  the newest CUDA that the driver can run
    jetpack               {l4t: Jetson Linux, package: version of nvidia-jetpack}
    jetson                power mode, clocks, memory, throttling, see `practice`; None on another machine
    """
    info = text(root / "proc/cpuinfo")
    memory = re.search(r"^MemTotal:\s+(\d+) kB", text(root / "proc/meminfo"), re.MULTILINE)
    return {
        "cpu": _field(info, "model name") or platform.processor() or platform.machine(),
        "board": text(root / "proc/device-tree/model").strip("\0\n ") or None,
        "cores": _cores(),
        "memory": int(memory[1]) * 1024 if memory else None,
        "container": _container(root),
        "virtual": "hypervisor" in _field(info, "flags").split(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        **_nvidia(),
        "cuda": _cuda(),
        "jetpack": _jetpack(root),
        "jetson": practice(root),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that are installed: name -> version."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError, KeyError):  # KeyError: half removed
            found[package] = metadata.version(package)
    return found


def _field(info: str, name: str) -> str:
    """The first value of a name in /proc/cpuinfo, or ""."""
    match = re.search(rf"^{name}\s*:(.*)$", info, re.MULTILINE)
    return match[1].strip() if match else ""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _container(root: Path) -> str | None:
    marks = {"docker": root / ".dockerenv", "podman": root / "run/.containerenv"}
    named = os.environ.get("container")  # noqa: SIM112 - systemd's name for it
    return next((name for name, mark in marks.items() if os.path.exists(mark)), named or None)


def _nvidia() -> dict[str, Any]:
    found: dict[str, Any] = {"nvidia_driver": None, "gpus": [], "nvidia_problem": None}
    try:
        status, out, err = output_of(NVIDIA_SMI, NVIDIA_PATIENCE)
    except FileNotFoundError:
        return found
    except OSError as error:
        return {**found, "nvidia_problem": f"nvidia-smi: {error}"}
    rows = [[cell.strip() for cell in line.split(",")] for line in out.splitlines() if line]
    if status or not rows or any(len(row) != len(("name", "compute_cap", "memory", "driver")) for row in rows):
        words = " ".join((out.strip() or err).split())[:160] or f"nothing, and exit status {status}"
        return {**found, "nvidia_problem": f"nvidia-smi says: {words}"}
    found["nvidia_driver"] = rows[0][3]
    found["gpus"] = [
        {"name": name, "sm": _sm(capability), "memory": _mib(memory)} for name, capability, memory, _ in rows
    ]
    return found


def _sm(capability: str) -> int | None:
    """9.0 -> 90; None where nvidia-smi gives [N/A]."""
    match = re.fullmatch(r"(\d+)\.(\d)", capability)
    return int(match[1] + match[2]) if match else None


def _mib(memory: str) -> int | None:
    match = re.fullmatch(r"(\d+) MiB", memory)
    return int(match[1]) * 2**20 if match else None


def _cuda() -> str | None:
    number = ctypes.c_int()
    try:
        status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):  # no such library, or another one by this name
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}" if status == 0 and number.value else None


def _jetpack(root: Path) -> dict[str, str | None] | None:
    release = re.search(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", text(root / "etc/nv_tegra_release"))
    stanza = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*", text(root / "var/lib/dpkg/status"), re.MULTILINE)
    package = re.search(r"^Version: (.+)$", stanza[0], re.MULTILINE) if stanza and " installed\n" in stanza[0] else None
    if not (release or package):
        return None
    return {"l4t": f"{release[1]}.{release[2]}" if release else None, "package": package[1] if package else None}
