"""The launcher of window_resize: torch tensors in, the model's input out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from msloc_edge.kernels import OPTIONS

from .kernel import window_resize_kernel
from .reference import enlarges

if TYPE_CHECKING:
    from msloc_edge.imaging.geometry import Geometry

PIXELS = (torch.uint8, torch.uint16, torch.int16)
INPUTS = (torch.float32, torch.float16, torch.bfloat16)
TILE = 512
"""Source columns that a program has under way, over all its output pixels: 4 for each of its threads."""
WARPS = 4
MAX_TAPS = 16
LIMIT = 2**31
"""Positions and weights are 32-bit whole numbers."""


def taps_for(geometry: Geometry) -> int:
    """Choose a power of two, 2 to 16, that holds the source columns of an output pixel; wider windows take turns."""
    whole, rest = divmod(geometry.image_width, geometry.width)
    widest = whole + 2 * (rest > 0)
    return min(MAX_TAPS, max(2, 1 << (widest - 1).bit_length()))


def window_resize(
    pixels: Tensor,
    table: Tensor,
    geometry: Geometry,
    output: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """input(y, x) = sum_{i, j} v_{y,i} w_{x,j} table[pixels(i, j)]: windowed, antialiased, letterboxed in one pass.

    pixels   [H, W] uint8, uint16, or int16 with the bits of uint16, contiguous
    table    [2**bits] float32, on the same device; a pixel has no value beyond it, and higher bits are not looked at
    output   [1, 1, h, w] float32, float16 or bfloat16, contiguous, to write into: one film's place in a batch, say
    dtype    of the result where there is no `output`
    returns  [1, 1, h, w]: the model's input, all of it written

    Raises ValueError when a tensor does not fit the geometry or the kernel.
    """
    g, enlarge = geometry, enlarges(geometry)
    shape = (1, 1, g.input_height, g.input_width)
    if output is None:
        output = torch.empty(shape, dtype=dtype, device=pixels.device)
    _check(pixels, table, geometry, output, shape)
    taps = taps_for(geometry)
    columns = TILE // taps
    grid = (-(-g.input_width // columns), g.input_height)
    with torch.cuda.device_of(pixels):  # type: ignore[no-untyped-call]  # Triton launches on the current device
        window_resize_kernel[grid](
            pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels,
            table,
            len(table) - 1,
            g.image_width,
            g.image_height,
            g.input_width,
            g.input_height,
            g.left,
            g.top,
            g.width,
            g.height,
            output,
            enlarge=enlarge,
            taps=taps,
            BLOCK_W=columns,
            num_warps=WARPS,
            **OPTIONS,
        )
    return output


def _check(pixels: Tensor, table: Tensor, geometry: Geometry, output: Tensor, shape: tuple[int, ...]) -> None:
    g = geometry
    if pixels.shape != (g.image_height, g.image_width) or pixels.dtype not in PIXELS or not pixels.is_contiguous():
        raise ValueError(
            f"expected contiguous pixels of shape {(g.image_height, g.image_width)}, uint8, uint16 or int16, "
            f"got {_said(pixels)}"
        )
    if table.ndim != 1 or len(table) & len(table) - 1 or not 1 < len(table) <= 1 << 8 * pixels.itemsize:
        raise ValueError(
            f"expected a table of 2**bits entries, at most {1 << 8 * pixels.itemsize}, got shape {tuple(table.shape)}"
        )
    if table.dtype != torch.float32 or not table.is_contiguous():
        raise ValueError(f"expected a contiguous table of float32, got {_said(table)}")
    if output.shape != shape or output.dtype not in INPUTS or not output.is_contiguous():
        raise ValueError(
            f"expected a contiguous output of shape {shape}, float32, float16 or bfloat16, got {_said(output)}"
        )
    if not pixels.device == table.device == output.device:
        raise ValueError(
            f"expected everything on one device, got pixels on {pixels.device}, the table on {table.device}, "
            f"the output on {output.device}"
        )
    largest = max(
        pixels.numel(), output.numel(), 2 * g.image_width * (g.width + 1), 2 * g.image_height * (g.height + 1)
    )
    if largest >= LIMIT:
        raise ValueError(f"expected a film and an input that 32-bit positions reach, got {geometry}")
    inside = 0 <= g.left <= g.input_width - g.width and 0 <= g.top <= g.input_height - g.height
    if not inside or min(g.width, g.height, g.image_width, g.image_height) < 1:
        raise ValueError(f"expected a film inside the input, got {geometry}")


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}{'' if tensor.is_contiguous() else ', not contiguous'}"
