"""Triton's cache filled ahead: what the launchers launch is compiled for a device that is not here.

A cache is of use to the version of Triton that made it, and to no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import CompiledKernel
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.fuse_cams.launch import fuse_cams
from msloc_edge.kernels.regions.launch import regions
from msloc_edge.kernels.window_resize.launch import window_resize

Grid = tuple[int, ...]
Launched = Callable[[CompiledKernel, Grid, Mapping[str, Any]], None]
"""Called with a compiled kernel, the grid of its launch, and the values of its arguments."""

FILMS = ((3000, 2500), (2000, 1600), (1000, 800), (600, 500), (300, 250))
"""Films that an input of 512 x 512 pixels takes in every form: by columns for a pixel, and one enlarged."""


@dataclass(frozen=True, slots=True)
class _NoDevice:
    """What Triton asks its driver before it compiles."""

    sm: int

    def get_current_device(self) -> str:
        return f"sm_{self.sm}, not here"

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.sm, 32)


@contextmanager
def compiled_for(sm: int, launched: Launched = lambda *_: None) -> Iterator[None]:
    """Let kernels of Triton be launched on tensors of the host: they are compiled for a device, and not run."""
    run, active = JITFunction.run, driver._active

    def compile_only(kernel: JITFunction[Any], *args: Any, grid: Grid, warmup: bool, **kwargs: Any) -> CompiledKernel:
        compiled: CompiledKernel = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        named = {name: value for name, value in kwargs.items() if name in kernel.arg_names}
        launched(compiled, grid, kernel.signature.bind(*args, **named).arguments)
        return compiled

    JITFunction.run = compile_only
    driver.set_active(_NoDevice(sm))
    try:
        yield
    finally:
        JITFunction.run, driver._active = run, active


def fill_cache(sm: int) -> None:
    """Compile what the torch backend and the benchmarks launch, into TRITON_CACHE_DIR: four stages, any size."""
    content = torch.zeros(1, 4, dtype=torch.int32)
    with compiled_for(sm):
        for dtype in (torch.float16, torch.float32):
            cams = [torch.zeros(1, 2, side, side, dtype=dtype) for side in (128, 64, 32, 16)]
            relevance, size = torch.zeros(2, 4), (512, 512)
            limits, classes = torch.zeros(2), torch.zeros(1, 2, dtype=torch.int32)
            fuse_cams(cams, relevance, size)
            fuse_cams(cams, relevance, size, classes)
            fuse_cams(cams, relevance, size, peaks=True)
            fuse_cams(cams, relevance, size, content=content, peaks=True, dtype=torch.float32)
            fuse_cams(cams, relevance, size, None, limits, maps=False, mask=True)
        maps = torch.zeros(1, 2, 512, 512)
        regions(maps, torch.zeros(2))
        regions(maps, torch.zeros(2), content)
        for pixel, bits in ((torch.uint8, 8), (torch.int16, 12)):
            for film in FILMS:
                window_resize(torch.zeros(film, dtype=pixel), torch.zeros(2**bits), Geometry.fit(film, (512, 512)))
