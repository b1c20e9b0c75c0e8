"""The highest pixel of each map: a key for each part of it, by the kernels that compute the maps, and the last step."""

from __future__ import annotations

import triton
import triton.language as tl

LEAST = tl.constexpr(-(2**63))
"""The key of a part without a pixel."""


@triton.jit
def peak_key(value, place):
    """int64 that order as (value, -place): of equal values the first place is the largest, and NaN tops all."""
    value = tl.where(value == 0, 0.0, value)  # -0.0 equals 0.0
    bits = tl.where(value == value, value.to(tl.int32, bitcast=True), 0x7FFFFFFF)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - place).to(tl.int64)


@triton.jit
def peak_rows(content, image, row_first, row_last):
    """First and last + 1 of a program's rows where a peak may be."""
    if content is not None:
        top = tl.load(content + 4 * image)
        row_first = tl.maximum(row_first, top)
        row_last = tl.minimum(row_last, top + tl.load(content + 4 * image + 2))
    return row_first, row_last


@triton.jit
def raised(m, row, best, best_row, content, peak_first, peak_last):
    """The best pixels so far and their rows, after one more row. NaN takes a place, and then stays."""
    higher = (best == best) & ((m > best) | (m != m))
    if content is not None:
        higher &= (row >= peak_first) & (row < peak_last)
    return tl.where(higher, m, best), tl.where(higher, row, best_row)


@triton.jit
def part_keys(best, best_row, x, W, content, image, peak_first, peak_last):
    """Keys of columns x, of which each has its best pixel in rows peak_first to peak_last - 1."""
    keys = peak_key(best, best_row * W + x)
    inside = x < W
    if content is not None:
        left = tl.load(content + 4 * image + 1)
        right = left + tl.load(content + 4 * image + 3)
        inside &= (x >= left) & (x < right) & (peak_first < peak_last)
    return tl.where(inside, keys, LEAST)


@triton.jit
def store_keys(peaks, keys, warps: tl.constexpr):
    """The largest of every 32 keys, by the first lane: a warp exchanges its own registers, without shared memory."""
    keys = tl.max(tl.reshape(keys, [warps, 32]), axis=1, keep_dims=True)
    lane = tl.arange(0, 32)[None, :]
    place = tl.program_id(0).to(tl.int64) * warps + tl.arange(0, warps)[:, None] + lane
    tl.store(peaks + place, tl.broadcast_to(keys, [warps, 32]), lane == 0)


@triton.jit(do_not_specialize=["parts"])
def fuse_cams_peaks_kernel(
    peaks,  # [B, J, parts] int64 keys
    parts,  # parts of a map
    W,
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
    tl.store(positions + 2 * plane, place // W)
    tl.store(positions + 2 * plane + 1, place % W)
