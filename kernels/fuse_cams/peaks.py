"""The highest pixel of each map: a key for each part of it, by the kernels that compute the maps, and the last step."""

from __future__ import annotations

import triton
import triton.language as tl

LEAST = tl.constexpr(-(2**63))
"""The key of a part without a pixel."""


@triton.jit
def higher(m, best):
    """Whether a pixel takes the place of the best one before it: NaN does, and then stays."""
    return (best == best) & ((m > best) | (m != m))


@triton.jit
def peak_key(value, place):
    """int64 that order as (value, -place): of equal values the first place is the largest, and NaN tops all."""
    value = tl.where(value == 0, 0.0, value)  # -0.0 equals 0.0
    bits = tl.where(value == value, value.to(tl.int32, bitcast=True), 0x7FFFFFFF)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - place).to(tl.int64)


@triton.jit
def content_rows(content, image):
    """First and last + 1 of the rows where a peak may be."""
    first = tl.load(content + 4 * image)
    return first, first + tl.load(content + 4 * image + 2)


@triton.jit
def part_keys(best, best_row, x, width, content, image, row_first, row_last):
    """Keys of columns x, of which each has its best pixel in rows row_first to row_last - 1."""
    keys = peak_key(best, best_row * width + x)
    inside = x < width
    if content is not None:
        peak_first, peak_last = content_rows(content, image)
        left = tl.load(content + 4 * image + 1)
        right = left + tl.load(content + 4 * image + 3)
        inside &= (x >= left) & (x < right) & (row_first < peak_last) & (row_last > peak_first)
    return tl.where(inside, keys, LEAST)


@triton.jit
def fuse_cams_peaks_kernel(
    peaks,  # [B, J, parts] int64 keys
    parts,  # parts of a map
    width,  # W
    values,  # [B, J] fp32
    positions,  # [B, J, 2] int32: y, x
):
    """The highest value of each map and its first place, from the keys of its parts; grid: B * J, of one warp."""
    plane = tl.program_id(0)
    lane = tl.arange(0, 32)
    keys = tl.full([32], LEAST, tl.int64)
    for start in range(0, parts, 32):
        place = start + lane
        here = tl.load(peaks + plane.to(tl.int64) * parts + place, mask=place < parts, other=LEAST)
        keys = tl.maximum(keys, here)
    key = tl.max(keys, axis=0)
    ordered = (key >> 32).to(tl.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    place = 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)
    tl.store(values + plane, bits.to(tl.float32, bitcast=True))
    tl.store(positions + 2 * plane, place // width)
    tl.store(positions + 2 * plane + 1, place % width)
