"""The kernels of the whole way on the device, from a folder that `python -m msloc_edge.kernels.aot` has filled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msloc_edge._files import cache_folder
from msloc_edge.backends.tensorrt.locate import LocateKernels
from msloc_edge.backends.tensorrt.window import Form
from msloc_edge.bundle import Bundle
from msloc_edge.cuda.driver import Device, Kernel
from msloc_edge.cuda.providers import CudaBindings
from msloc_edge.errors import BackendError

FOLDER = "kernels"
"""Folder of the cache; the variable MSLOC_KERNELS names another."""

STRIDES = (4, 8, 16, 32)
"""Pixels of a cell of each stage, as the kernel of the maps has them."""

FORMS = {"u8": 1, "u16": 2}
WAYS = {"shrink": False, "enlarge": True}


@dataclass(frozen=True, slots=True)
class DeviceKernels:
    """Those that window a film, by what it is, and those that locate findings."""

    window: Mapping[Form, Kernel]
    locate: LocateKernels


def find_kernels(bundle: Bundle, ordinal: int) -> DeviceKernels:
    """Load the kernels for a bundle's maps on a device: its own, else the portable ones.

    Raises BackendError: kernel_unusable where they are not there, or the bundle's maps are not what they compute;
    backend_failed where the driver does not take them.
    """
    folder = Path(os.environ.get("MSLOC_KERNELS") or cache_folder() / FOLDER)
    height, width = bundle.input_size
    stages = [(stage.height, stage.width, stage.stride) for stage in bundle.stages]
    if stages != [(height // stride, width // stride, stride) for stride in STRIDES] or min(stages[-1][:2]) < 2:
        raise BackendError(
            "kernel_unusable",
            f"expected maps of cells of {STRIDES} pixels and at least two columns for the kernels, got {stages}",
        )
    device = Device(ordinal)
    if device.provider != CudaBindings.name:
        raise BackendError("kernel_unusable", f"expected cuda-bindings for the kernels, got {device.provider}")
    window = {
        (size, enlarges): device.find(folder, "window_resize", "fp32", f"{pixels}-{way}")
        for pixels, size in FORMS.items()
        for way, enlarges in WAYS.items()
    }
    fuse = [device.find(folder, "fuse_cams", "fp32", form) for form in ("located", "peaks")]
    regions = [device.find(folder, "regions", "fp32", form) for form in ("runs", "regions")]
    return DeviceKernels(window, LocateKernels(*fuse, *regions))
