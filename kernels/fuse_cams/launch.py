"""fuse_cams on torch tensors through the Triton kernels: CUDA, or any tensor in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from msloc_edge.kernels import OPTIONS
from msloc_edge.kernels.fuse_cams.kernel import fuse_cams_kernel
from msloc_edge.kernels.fuse_cams.peaks import fuse_cams_peaks_kernel
from msloc_edge.kernels.fuse_cams.programs import GENERAL_TILE, STRIDED_TILE
from msloc_edge.kernels.fuse_cams.reference import check_shapes
from msloc_edge.kernels.fuse_cams.strided import STEPS, fits, fuse_cams_strided_kernel

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WARPS = 4
LANES = 32


@dataclass(frozen=True, slots=True)
class Fused:
    """Results that were asked for; the others are None.

    maps       [B, J, H, W], logit units
    values     [B, J] float32, the highest value of each map before it is rounded to the dtype of the maps
    positions  [B, J, 2] int32, its (y, x), the first of several in reading order
    mask       [B, J, ceil(H / 8), W] uint8, M >= t: bit r of byte (i, x) for pixel (8 i + r, x)
    index      [B, J, H, W] uint8, `render.heatmap.color_index`
    """

    maps: Tensor | None = None
    values: Tensor | None = None
    positions: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None


def fuse_cams(
    cams: Sequence[Tensor],
    relevance: Tensor,
    size: tuple[int, int],
    classes: Tensor | None = None,
    thresholds: Tensor | None = None,
    content: Tensor | None = None,
    *,
    maps: bool = True,
    dtype: torch.dtype | None = None,
    peaks: bool = False,
    mask: bool = False,
    index: bool = False,
) -> Fused:
    """Compute M_k = sum_s w_{k,s} up(A_{k,s}), accumulated in float32, and what is read from it in the same pass.

    cams        S tensors [B, K, h_s, w_s], float32, float16 or bfloat16
    relevance   [K, S]
    size        (H, W)
    classes     [B, J] integers in 0..K-1; None computes all K. The map of any other number is NaN: a look would cost a
                wait for the device
    thresholds  [K], logit units; mask and index need them
    content     [B, 4] int32: top, left, height, width of where a peak may be, at least one pixel; None: anywhere
    dtype       of the maps that are stored; None: that of the first stage

    Raises ValueError when shapes or dtypes do not fit together, or exceed the kernel's 32-bit places inside one map.
    """
    B, K, J = check_shapes(cams, relevance, classes)
    H, W = size
    dtype = dtype or cams[0].dtype
    _check(cams, size, dtype)
    if not (mask or index):
        thresholds = None
    elif thresholds is None or thresholds.shape != (K,):
        raise ValueError(f"expected thresholds of shape {(K,)}, got {_shape(thresholds)}")

    if content is not None and content.shape != (B, 4):
        raise ValueError(f"expected content of shape {(B, 4)}, got {_shape(content)}")

    device, planes = cams[0].device, B * J
    strides = () if mask or index else strides_of(cams, size)
    tile = (
        strided_tile(planes, size) if strides else general_tile(planes, size, len(cams), not (peaks or mask or index))
    )
    tiles = -(-H // tile.rows) * -(-W // tile.columns)
    parts = tiles * tile.columns // tile.columns_of_key
    result = Fused(
        maps=torch.empty((B, J, H, W), dtype=dtype, device=device) if maps else None,
        values=torch.empty((B, J), dtype=torch.float32, device=device) if peaks else None,
        positions=torch.empty((B, J, 2), dtype=torch.int32, device=device) if peaks else None,
        mask=torch.empty((B, J, -(-H // 8), W), dtype=torch.uint8, device=device) if mask else None,
        index=torch.empty((B, J, H, W), dtype=torch.uint8, device=device) if index else None,
    )
    if not planes or result == Fused():
        return result
    keys = torch.empty((planes, parts), dtype=torch.int64, device=device) if peaks else None
    inputs = (
        tuple(cam.contiguous() for cam in cams),
        relevance.to(device, torch.float32).contiguous(),
        None if classes is None else classes.to(device, torch.int32).contiguous(),
    )
    within = None if content is None or not peaks else content.to(device, torch.int32).contiguous()
    numbers = (K, J, H, W, tile.rows)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if strides:
            fuse_cams_strided_kernel[(planes * tiles,)](
                *(*inputs, within, *numbers, result.maps, keys),
                strides=strides,
                BLOCK_W=tile.columns,
                STEPS=STEPS if H % STEPS == 0 else 4,
                num_warps=WARPS,
                **OPTIONS,
            )
        else:
            fuse_cams_kernel[(planes * tiles,)](
                *inputs,
                None if thresholds is None else thresholds.to(device, torch.float32).contiguous(),
                within,
                tuple(cam.shape[2] for cam in cams),
                tuple(cam.shape[3] for cam in cams),
                *numbers,
                *(result.maps, keys, result.mask, result.index),
                BLOCK_W=tile.columns,
                num_warps=WARPS,
                **OPTIONS,
                maxnreg=registers_for(len(cams)),
            )
        if keys is not None:
            fuse_cams_peaks_kernel[(planes,)](
                *(keys, parts, W, result.values, result.positions), num_warps=1, **OPTIONS
            )
    return result


@dataclass(frozen=True, slots=True)
class Tile:
    """Part of a map that a program computes, and how many of its columns share a key of the peaks."""

    rows: int
    columns: int
    columns_of_key: int


def strides_of(cams: Sequence[Tensor], size: tuple[int, int]) -> tuple[int, ...]:
    """Pixels of a cell of each stage, where the strided kernel can be used; else none.

    Every stage has square cells, of a multiple of 4 pixels, and at least two columns: as all stages of a network have.
    """
    grids = [(cam.shape[2], cam.shape[3]) for cam in cams]
    strides = tuple(size[0] // h for h, _ in grids)
    fitting = (stride % 4 == 0 and fits(grid, stride, size) for grid, stride in zip(grids, strides, strict=True))
    return strides if all(fitting) else ()


def strided_tile(planes: int, size: tuple[int, int]) -> Tile:
    """Tile of the strided kernel: two columns a thread."""
    columns = 2 * LANES * WARPS
    return Tile(STRIDED_TILE.tile_h(planes, size, columns), columns, 2 * LANES)


def general_tile(planes: int, size: tuple[int, int], stages: int, only_maps: bool) -> Tile:
    """Tile of the general kernel: two columns a thread where the registers allow it."""
    columns = 2 * LANES * WARPS if only_maps and stages <= 4 else LANES * WARPS
    return Tile(GENERAL_TILE.tile_h(planes, size, columns), columns, LANES)


def registers_for(stages: int) -> int | None:
    """Limit to the registers of a thread of the general kernel: four stages need these without spilling; None: any."""
    return 64 if stages <= 4 else None


def _check(cams: Sequence[Tensor], size: tuple[int, int], dtype: torch.dtype) -> None:
    for found in (dtype, *(cam.dtype for cam in cams)):
        if found not in DTYPES:
            raise ValueError(f"expected float32, float16 or bfloat16, got {found}")
    sides = [(side, cam.shape[2 + axis]) for cam in cams for axis, side in enumerate(size)]
    if min(map(min, sides)) < 1:
        raise ValueError(f"expected at least one row and column, got {size} from {[tuple(c.shape) for c in cams]}")
    # The kernel's n = (2 y + 1) h + H and places in a map are int32, its rest of a division a float32.
    places = (size[0] * size[1], *(cam.shape[2] * cam.shape[3] for cam in cams))
    largest = max(max(2 * side * (source + 2) for side, source in sides), max(places) + size[1])
    if largest >= 2**31 or max(4 * side + 2 * source for side, source in sides) >= 2**24:
        raise ValueError(f"expected smaller maps, got {size} from {[tuple(c.shape) for c in cams]}")


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
