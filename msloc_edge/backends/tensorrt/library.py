"""TensorRT and TensorRT-RTX: two libraries with one interface, and what installs them."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from msloc_edge.errors import DependencyError

JETPACK_6 = "sudo apt install nvidia-jetpack python3-libnvinfer (TensorRT 10.3, Python 3.10)"
JETPACK_7 = "sudo apt install nvidia-jetpack python3-libnvinfer (TensorRT 10.16, Python 3.12)"
X86 = "pip install tensorrt-cu13, or tensorrt-cu12 for a driver of CUDA 12"


@dataclass(frozen=True, slots=True)
class TensorRTLibrary:
    """One of the two libraries.

    name      of the Python module, of the backend, and in the cache
    title     as NVIDIA writes it
    tags      first bytes that its plans may have
    oldest    the oldest version that is supported
    portable  it builds without a GPU, for every GPU that it supports
    install   words that say how to get it
    """

    name: str
    title: str
    tags: tuple[bytes, ...]
    oldest: tuple[int, int]
    portable: bool
    install: str

    def load(self) -> Any:
        """Import the module. Raises DependencyError (backend_missing) when it is not here, or older than `oldest`."""
        try:
            module = importlib.import_module(self.name)
        except (ImportError, OSError) as error:  # OSError: the package without its libraries
            raise DependencyError(
                "backend_missing", f"{self.name}: its libraries are not on this machine ({error}); {self.install}"
            ) from error
        if release(module.__version__) < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            raise DependencyError(
                "backend_missing",
                f"{self.name}: expected version {oldest} or newer, got {module.__version__}; {self.install}",
            )
        return module

    def version(self) -> str:
        """Version of the module, all its parts. Raises as `load` does."""
        return str(self.load().__version__)

    def built_for(self, sm: int) -> int:
        """The `sm` of a `Key` for a device: its compute capability, or 0 for every one."""
        return 0 if self.portable else sm


TENSORRT = TensorRTLibrary(
    "tensorrt",
    "TensorRT",
    (b"ftrt", b"vtrt"),
    (10, 3),
    False,
    f"JetPack 6: {JETPACK_6}; JetPack 7: {JETPACK_7}; x86: {X86}",
)
TENSORRT_RTX = TensorRTLibrary(
    "tensorrt_rtx", "TensorRT-RTX", (b"vtrt",), (1, 2), True, "install it with: pip install 'msloc-edge[rtx]'"
)


def release(version: str) -> tuple[int, int]:
    """Major and minor of a version such as 10.16.1.11."""
    major, minor, *_ = numbers(version)
    return major, minor


def numbers(version: str) -> tuple[int, ...]:
    """Split a version such as 10.16.1.11 or 10.0.0b6 into its numbers."""
    return tuple(map(int, re.findall(r"\d+", version)))
