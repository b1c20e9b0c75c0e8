"""What a program of either fuse_cams kernel computes: which tile of which map, of which class."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(height, width, rows, block: tl.constexpr):
    """The number of the map among B * J, first and last + 1 of its rows, and its first column."""
    column_tiles = tl.cdiv(width, block)
    tiles = tl.cdiv(height, rows) * column_tiles
    tile = tl.program_id(0) % tiles
    row_first = tile // column_tiles * rows
    return tl.program_id(0) // tiles, row_first, tl.minimum(row_first + rows, height), tile % column_tiles * block


@triton.jit
def class_of(classes, plane, wanted, count):
    """The class k, whether there is one, and the number of its maps among B * K.

    Another number than 0..K-1 reads no foreign memory: its map is NaN.
    """
    k = plane % wanted
    if classes is not None:
        k = tl.load(classes + plane)
    known = (k >= 0) & (k < count)
    k = tl.where(known, k, 0)
    return k, known, (plane // wanted).to(tl.int64) * count + k
