"""Launches that are compiled for a device that is not here; tests/ptx runs what comes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from msloc_edge.imaging.geometry import Geometry

triton = pytest.importorskip("triton", reason="triton is not installed")


def test_a_launch_compiles_into_the_cache_and_runs_nothing(tmp_path: Path) -> None:
    from msloc_edge.kernels.ahead import compiled_for
    from msloc_edge.kernels.window_resize.launch import window_resize

    launched: list[Any] = []
    pixels, table = torch.zeros(30, 20, dtype=torch.uint8), torch.ones(256)
    before = triton.runtime.driver._active, triton.runtime.jit.JITFunction.run
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path)
        with compiled_for(89, lambda kernel, grid, values: launched.append((kernel, grid, values))):
            output = torch.full((1, 1, 16, 16), -7.0)
            window_resize(pixels, table, Geometry.fit((30, 20), (16, 16)), output)
    ((kernel, grid, values),) = launched
    assert (kernel.metadata.target.arch, grid) == (89, (1, 16))
    assert values["output"] is output
    assert output.unique().tolist() == [-7]
    (cubin,) = tmp_path.glob("*/window_resize_kernel.cubin")
    assert cubin.read_bytes().startswith(b"\x7fELF")
    assert (triton.runtime.driver._active, triton.runtime.jit.JITFunction.run) == before
