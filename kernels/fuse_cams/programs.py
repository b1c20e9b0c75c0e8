"""The program of either fuse_cams kernel: which tile of which map, of which class, and how large tiles are."""

from __future__ import annotations

import triton
import triton.language as tl

from msloc_edge.cuda.compiled import TileRule

STRIDED_TILE = TileRule((128, 32, 16), 400)
"""400 programs are three for each multiprocessor of an H100: a rule of thumb, not measured."""

GENERAL_TILE = TileRule((128, 32, 8), 1024)
"""A rule of thumb as well."""

PER_LAUNCH = ("J", "tile_h")
"""Arguments that differ from launch to launch: Triton would compile anew where one is 1, or a multiple of 16."""


@triton.jit
def tile_of(H, W, tile_h, BLOCK_W: tl.constexpr):
    """The number of the map among B * J, first and last + 1 of its rows, and its first column."""
    column_tiles = tl.cdiv(W, BLOCK_W)
    tiles = tl.cdiv(H, tile_h) * column_tiles
    tile = tl.program_id(0) % tiles
    row_first = tile // column_tiles * tile_h
    return tl.program_id(0) // tiles, row_first, tl.minimum(row_first + tile_h, H), tile % column_tiles * BLOCK_W


@triton.jit
def class_of(classes, plane, J, K):
    """The class k, whether there is one, and the number of its maps among B * K.

    Another number than 0..K-1 reads no foreign memory: its map is NaN.
    """
    k = plane % J
    if classes is not None:
        k = tl.load(classes + plane)
    known = (k >= 0) & (k < K)
    k = tl.where(known, k, 0)
    return k, known, (plane // J).to(tl.int64) * K + k
