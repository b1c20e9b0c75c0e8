"""The Triton form of fuse_cams: the maps, or what is read from them, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl

from msloc_edge.kernels.fuse_cams.peaks import part_keys, peak_rows, raised, store_keys
from msloc_edge.kernels.fuse_cams.programs import PER_LAUNCH, class_of, tile_of


@triton.jit
def divided(n, whole):
    """n // whole and n % whole, exact for quotients below 2**20: a third of the instructions of a division."""
    cell = (n.to(tl.float32) * (1.0 / whole.to(tl.float32))).to(tl.int32)
    cell += (n >= (cell + 1) * whole).to(tl.int32) - (n < cell * whole).to(tl.int32)
    return cell, n - cell * whole


@triton.jit
def sampled_row(cam, row, h, w, left, part):
    """Row `row` of a map [h, w] between its columns left and left + 1; a row past an edge is the edge."""
    place = cam + (tl.minimum(tl.maximum(row, 0), h - 1) * w + left)
    first = tl.load(place).to(tl.float32)
    second = tl.load(place + 1, mask=left < w - 1, other=0.0).to(tl.float32)
    return part * second + (first - part * first)


@triton.jit
def color_level(m, threshold):
    """The index of msloc_edge.render.heatmap.color_index, and >= 128 exactly where m >= threshold."""
    # A threshold that is not finite becomes NaN, and so does the level.
    finite = (threshold > float("-inf")) & (threshold < float("inf"))
    threshold = tl.where(finite, threshold, float("nan"))
    over = threshold > 0
    scale = tl.where(over, 128.0 / tl.maximum(threshold, 1e-36), 128.0)
    level = m * scale + tl.where(over, 0.0, 128.0 - 128.0 * threshold)
    held = tl.minimum(tl.maximum(level, 0.0), 255.0)
    held = tl.where(m >= threshold, tl.maximum(held, 128.0), tl.minimum(held, 127.0))
    return tl.where(level == level, held, 0.0).to(tl.int32).to(tl.uint8)


@triton.jit(do_not_specialize=PER_LAUNCH)
def fuse_cams_kernel(
    cams,  # S x [B, K, h_s, w_s] fp32, fp16 or bf16
    relevance,  # [K, S] fp32
    classes,  # [B, J] int32; None: all K
    thresholds,  # [K] fp32; None where neither mask nor index is wanted
    content,  # [B, 4] int32: top, left, height, width of where a peak may be; None: anywhere
    heights,  # S x h_s
    widths,  # S x w_s
    K,
    J,
    H,
    W,
    tile_h,  # rows of a program, a multiple of 8
    maps,  # [B, J, H, W] fp32, fp16 or bf16, or None; so are the next
    peaks,  # [B, J, row tiles * column tiles * BLOCK_W / 32] int64
    mask,  # [B, J, ceil(H / 8), W] uint8
    index,  # [B, J, H, W] uint8
    BLOCK_W: tl.constexpr,  # columns of a program
):
    """M_k = sum_s w_{k,s} up(A_{k,s}) over tile_h x BLOCK_W pixels of one map, and what is read from it.

    grid  B * J * ceil(H / tile_h) * ceil(W / BLOCK_W)

    A column walks down its rows. Of each stage it holds the value at the source row above and the slope to the one
    below, so that a pixel costs two additions and a multiplication a stage, and memory is read only where a new source
    row begins.
    Positions are whole numbers, n / 2H = (y + 0.5) h / H + 0.5, and only their fraction becomes a float: nothing is
    lost at large sizes.
    """
    plane, row_first, row_last, column_first = tile_of(H, W, tile_h, BLOCK_W)
    x = column_first + tl.arange(0, BLOCK_W)
    inside = x < W
    x = tl.minimum(x, W - 1)
    k, known, first_map = class_of(classes, plane, J, K)
    if thresholds is not None:
        threshold = tl.load(thresholds + k)
    first_pixel = plane.to(tl.int64) * H * W
    first_byte = plane.to(tl.int64) * tl.cdiv(H, 8) * W

    whole = (2 * H).to(tl.float32)
    down, across = 1.0 / whole, 1.0 / (2 * W).to(tl.float32)
    bases, lefts, parts, weights = (), (), (), ()
    tops, rests, above, slopes = (), (), (), ()
    for s in tl.static_range(len(cams)):
        h, w = heights[s], widths[s]
        bases += (cams[s] + first_map * h * w,)
        weights += (tl.where(known, tl.load(relevance + k * len(cams) + s), float("nan")),)
        cell, past = divided((2 * x + 1) * w + W, 2 * W)
        # Past the left edge part 0 of the first two columns, past the right edge part 1 of the last two.
        lefts += (tl.minimum(tl.maximum(cell - 1, 0), tl.maximum(w - 2, 0)),)
        part = tl.where(cell == w, 1.0, past.to(tl.float32) * across)
        parts += (tl.where((cell == 0) | (w == 1), 0.0, part),)
        # Two source rows before the first, as if rows had been skipped: the loop then reads both rows.
        cell, past = divided((2 * row_first + 1) * h + H, 2 * H)
        rests += ((past + 4 * H - 2 * h).to(tl.float32),)
        tops += (cell - 2,)
        above += (tl.zeros([BLOCK_W], tl.float32),)
        slopes += (tl.zeros([BLOCK_W], tl.float32),)

    if peaks is not None:
        best = tl.full([BLOCK_W], float("-inf"), tl.float32)
        peak_first, peak_last = peak_rows(content, plane // J, row_first, row_last)
        best_row = tl.zeros([BLOCK_W], tl.int32) + peak_first
    bits = tl.zeros([BLOCK_W], tl.int32)
    for row in range(row_first, row_last):
        next_tops, next_rests, next_above, next_slopes = (), (), (), ()
        for s in tl.static_range(len(cams)):
            h, w = heights[s], widths[s]
            top, rest, a, slope = tops[s], rests[s] + (2 * h).to(tl.float32), above[s], slopes[s]
            if rest >= whole:
                rest -= whole
                top += 1
                a += slope * whole
                if rest >= whole:  # rows are skipped: the map is larger than the result, or this is the first row
                    steps = tl.floor(rest * down)
                    rest -= steps * whole
                    top += steps.to(tl.int32)
                    a = weights[s] * sampled_row(bases[s], top - 1, h, w, lefts[s], parts[s])
                slope = (weights[s] * sampled_row(bases[s], top, h, w, lefts[s], parts[s]) - a) * down
            next_tops += (top,)
            next_rests += (rest,)
            next_above += (a,)
            next_slopes += (slope,)
        tops, rests, above, slopes = next_tops, next_rests, next_above, next_slopes

        m = above[0] + rests[0] * slopes[0]
        for s in tl.static_range(1, len(cams)):
            m += above[s]
            m += rests[s] * slopes[s]
        if maps is not None:
            tl.store(maps + first_pixel + (row * W + x), m.to(maps.dtype.element_ty), inside)
        if index is not None:
            tl.store(index + first_pixel + (row * W + x), color_level(m, threshold), inside)
        if mask is not None:
            bits += tl.where(m >= threshold, 1 << (row % 8), 0)
            if (row % 8 == 7) | (row == H - 1):
                tl.store(mask + first_byte + (row // 8 * W + x), bits.to(tl.uint8), inside)
                bits = tl.zeros([BLOCK_W], tl.int32)
        if peaks is not None:
            best, best_row = raised(m, row, best, best_row, content, peak_first, peak_last)

    if peaks is not None:
        keys = part_keys(best, best_row, x, W, content, plane // J, peak_first, peak_last)
        store_keys(peaks, keys, BLOCK_W // 32)
