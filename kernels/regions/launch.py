"""regions on torch tensors through the Triton kernels: CUDA, or any tensor in Triton's interpreter."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from msloc_edge.kernels import OPTIONS
from msloc_edge.kernels.regions.kernel import regions_kernel, runs_kernel
from msloc_edge.kernels.regions.reference import COLUMNS, check_shapes

MAX_COLUMNS = 128
"""Columns of a turn of runs_kernel: four for each lane of its warp, which take 64 registers."""

ROWS = 512
"""Rows of a turn of regions_kernel: one a thread, so that a usual map takes one turn."""

LANES = 32
LIMIT = 2**31
"""Places within a map are 32-bit."""

MAX_BLOCKS = 2**16 - 1
"""Most blocks along y and z of a grid."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions of maps, see `reference.regions`; `table.rows` reads them on the host.

    counts  [B, J] int32, of all regions: the table has not more than R of them
    table   [B, J, R, 8] int32: first, left, top, right, bottom, area, bits of the peak, 0; in no order, and rows
            past the count are not written
    """

    counts: Tensor
    table: Tensor


def regions(
    maps: Tensor,
    thresholds: Tensor,
    content: Tensor | None = None,
    max_regions: int = 64,
    *,
    out: Regions | None = None,
) -> Regions:
    """Find the 8-connected regions where a map exceeds its threshold: two launches, and no wait for the device.

    maps        [B, J, H, W] float32 or float16, contiguous
    thresholds  [J] float32
    content     [B, 4] int32, the film's top, left, height and width in the map; None: all of it
    max_regions R, rows of a table
    out         to write into: a CUDA graph's own tensors

    Scratch memory of 8 bytes a pixel is allocated; only what runs there are touches it. Raises ValueError when shapes,
    dtypes or devices do not fit together, or exceed 32-bit places inside one map.
    """
    B, J = check_shapes(maps, thresholds, content, max_regions)
    H, W = maps.shape[2:]
    words = (4 * -(-W // 2) + 1) * H
    if max(words, H * W + MAX_COLUMNS, max_regions * COLUMNS) >= LIMIT or max(B, J) > MAX_BLOCKS:
        raise ValueError(f"expected smaller or fewer maps, got {tuple(maps.shape)}")
    device = maps.device
    if out is None:
        out = Regions(
            counts=torch.empty((B, J), dtype=torch.int32, device=device),
            table=torch.empty((B, J, max_regions, COLUMNS), dtype=torch.int32, device=device),
        )
    _check(maps, thresholds, content, (B, J, max_regions), out)
    if not B * J:
        return out
    runs = torch.empty((B, J, words), dtype=torch.int32, device=device)
    columns = min(triton.next_power_of_2(W), MAX_COLUMNS)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        runs_kernel[(H, J, B)](*(maps, thresholds, content, H, W, runs), BLOCK_W=columns, num_warps=1, **OPTIONS)
        regions_kernel[(B * J,)](
            *(runs, H, W, max_regions, out.counts, out.table), BLOCK_H=ROWS, num_warps=ROWS // LANES, **OPTIONS
        )
    return out


def _check(maps: Tensor, thresholds: Tensor, content: Tensor | None, sizes: tuple[int, int, int], out: Regions) -> None:
    expected = ((out.counts, sizes[:2]), (out.table, (*sizes, COLUMNS)))
    if any(tensor.shape != shape or tensor.dtype != torch.int32 for tensor, shape in expected):
        raise ValueError(
            f"expected int32 results of shapes {[shape for _, shape in expected]}, "
            f"got {[(tuple(tensor.shape), tensor.dtype) for tensor, _ in expected]}"
        )
    tensors = [maps, thresholds, out.counts, out.table, *([] if content is None else [content])]
    if any(tensor.device != maps.device or not tensor.is_contiguous() for tensor in tensors):
        raise ValueError(
            "expected contiguous tensors on one device, "
            f"got {[(str(tensor.device), tensor.is_contiguous()) for tensor in tensors]}"
        )
