"""The Triton form of fuse_cams for maps of a network: each stage's cells are squares of 4, 8, 16 ... pixels.

Two neighbouring columns, and two neighbouring rows, then always lie between the same cells of every stage, and where
they lie is known when the kernel is compiled: a third of the general kernel's instructions.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msloc_edge.kernels.fuse_cams.peaks import part_keys, peak_rows, raised, store_keys
from msloc_edge.kernels.fuse_cams.programs import PER_LAUNCH, class_of, tile_of

STEPS = 16
"""Rows that are written out one by one, where the height is a multiple of them; else 4."""

NEAR = tl.constexpr(8)
"""Pixels of the largest cells of which a source row is read before it is needed: more would need 80 registers."""


def fits(grid: tuple[int, int], stride: int, size: tuple[int, int]) -> bool:
    """True where a stage's grid (h, w) makes a map (H, W) by square cells of `stride` pixels; two columns at least."""
    return grid[1] > 1 and (stride * grid[0], stride * grid[1]) == size


@triton.jit
def strided_columns(x, w, stride: tl.constexpr):
    """Find the source column left of pairs of columns x [2, n]: [n], and how far behind it they are [2, n]."""
    cell = tl.min((x + stride // 2) // stride, axis=0)
    part = ((2 * x + 1 + stride) % (2 * stride)).to(tl.float32) * (0.5 / stride)
    part = tl.where(cell < w, part, 1.0)  # past the right edge all of the last column,
    part = tl.where(cell == 0, 0.0, part)  # past the left edge all of the first
    return tl.minimum(tl.maximum(cell - 1, 0), w - 2), part


@triton.jit
def read(cam, row, left, h, w):
    """Read both source columns [n] of a map [h, w] in a row; one past an edge is the edge."""
    place = cam + (tl.minimum(tl.maximum(row, 0), h - 1) * w + left)
    return tl.load(place), tl.load(place + 1)


@triton.jit
def between(first, second, part):
    """A source row at pairs of columns [2, n], from the source columns [n] beside them."""
    first, second = first.to(tl.float32), second.to(tl.float32)
    return first[None, :] + part * (second - first)[None, :]


@triton.jit
def line(row, below, rises, units, strides: tl.constexpr):
    """The sum of all stages at row `row` [2, n], and what it rises by until the next [2, n]."""
    m, rise = tl.zeros_like(below[0]), tl.zeros_like(below[0])
    for s in tl.static_range(len(below)):
        halves = (2 * row + 1 + strides[s]) % (2 * strides[s])  # of pixels past the source row above
        m += units[s] * (2 * strides[s]) * (below[s] - rises[s])
        m += units[s] * halves * rises[s]
        rise += 2 * units[s] * rises[s]
    return m, rise


@triton.jit(do_not_specialize=PER_LAUNCH)
def fuse_cams_strided_kernel(
    cams,  # S x [B, K, H / stride, W / stride] fp32, fp16 or bf16
    relevance,  # [K, S] fp32
    classes,  # [B, J] int32; None: all K
    content,  # [B, 4] int32: top, left, height, width of where a peak may be; None: anywhere
    K,
    J,
    H,
    W,
    tile_h,  # rows of a program, a multiple of STEPS
    maps,  # [B, J, H, W] fp32, fp16 or bf16, or None; so is the next
    peaks,  # [B, J, row tiles * column tiles * BLOCK_W / 64] int64
    strides: tl.constexpr,  # S multiples of 4
    BLOCK_W: tl.constexpr,  # columns of a program
    STEPS: tl.constexpr,  # rows that are written out one by one: 4 or 16, and H is a multiple of them
):
    """M_k = sum_s w_{k,s} up(A_{k,s}) over tile_h x BLOCK_W pixels of one map, and its peaks.

    grid  B * J * ceil(H / tile_h) * ceil(W / BLOCK_W)

    A thread walks down pairs of columns. From row to row the sum of all stages goes on in a straight line: one addition
    a pixel. It bends where a stage's next source row begins, half a pixel before the centre of a row; only there memory
    is read. Stages of small cells read the row after that one: it is there before it is needed.
    """
    W = W // 4 * 4  # it is one: the compiler may store four pixels at once
    tile_h = tile_h // STEPS * STEPS  # likewise: it then knows where rows of strides up to STEPS begin
    plane, row_first, row_last, column_first = tile_of(H, W, tile_h, BLOCK_W)
    # Both columns of a pair along the first axis: so a thread has both, and reads what they share once.
    x = column_first + 2 * tl.arange(0, BLOCK_W // 2)[None, :] + tl.arange(0, 2)[:, None]
    k, known, first_map = class_of(classes, plane, J, K)

    bases, lefts, parts, units = (), (), (), ()
    below, rises = (), ()  # of each stage: the source row beneath, and what it is above the one before
    firsts, seconds = (), ()  # and of the one after it, what was read
    for s in tl.static_range(len(cams)):
        h, w = H // strides[s], W // strides[s]
        weight = tl.where(known, tl.load(relevance + k * len(cams) + s), float("nan"))
        unit = weight * (0.5 / strides[s])  # of half a pixel
        base = cams[s] + first_map * (h * w)
        left, part = strided_columns(x, w, strides[s])
        cell = (row_first + strides[s] // 2) // strides[s]
        above = between(*read(base, cell - 1, left, h, w), part)
        beneath = between(*read(base, cell, left, h, w), part)
        first, second = read(base, cell + 1, left, h, w) if strides[s] <= NEAR else (0.0, 0.0)
        bases += (base,)
        lefts += (left,)
        parts += (part,)
        units += (unit,)
        below += (beneath,)
        rises += (beneath - above,)
        firsts += (first,)
        seconds += (second,)
    m, rise = line(row_first, below, rises, units, strides)

    if maps is not None:
        pixels = maps + plane.to(tl.int64) * H * W + row_first * W + x
    if peaks is not None:
        best = tl.full([2, BLOCK_W // 2], float("-inf"), tl.float32)
        peak_first, peak_last = peak_rows(content, plane // J, row_first, row_last)
        best_row = tl.zeros([2, BLOCK_W // 2], tl.int32) + peak_first
    for start in range(row_first, row_last, STEPS):
        for step in tl.static_range(STEPS):
            if maps is not None:
                tl.store(pixels, m.to(maps.dtype.element_ty), x < W)
                pixels += W
            if peaks is not None:
                best, best_row = raised(m, start + step, best, best_row, content, peak_first, peak_last)
            m += rise
            next_below, next_rises, next_firsts, next_seconds = (), (), (), ()
            for s in tl.static_range(len(cams)):
                beneath, r, first, second = below[s], rises[s], firsts[s], seconds[s]
                if (step + 1) % 4 == strides[s] // 2 % 4:  # elsewhere no source row of this stage can begin
                    past = start + (step + 1) + strides[s] // 2
                    if past % strides[s] == 0:
                        h, w, cell = H // strides[s], W // strides[s], past // strides[s]
                        if strides[s] <= NEAR:
                            row = between(first, second, parts[s])
                            first, second = read(bases[s], cell + 1, lefts[s], h, w)
                        else:
                            row = between(*read(bases[s], cell, lefts[s], h, w), parts[s])
                        bend = (row - beneath) - r
                        m += units[s] * bend
                        rise += 2 * units[s] * bend
                        r = row - beneath
                        beneath = row
                next_below += (beneath,)
                next_rises += (r,)
                next_firsts += (first,)
                next_seconds += (second,)
            below, rises, firsts, seconds = next_below, next_rises, next_firsts, next_seconds
        if (start + STEPS) % 32 == 0:  # every addition is off by up to half a unit in the last place: not more than 32
            m, rise = line(start + STEPS, below, rises, units, strides)

    if peaks is not None:
        keys = part_keys(best, best_row, x, W, content, plane // J, peak_first, peak_last)
        store_keys(peaks, tl.max(keys, axis=0), BLOCK_W // 64)
