"""The Triton form of regions: the runs of every row, then a program for each map that joins them."""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ("H", "W", "max_regions")
"""Arguments that differ from map to map: Triton would compile anew where one is 1, or a multiple of 16."""


@triton.jit
def runs_of(runs, plane, H, W):
    """Place the runs of a map: how many each row has [H], and [ceil(W / 2), H, 4] of left, right, peak and parent.

    The n-th run of row y is the (n H + y)-th, and that is its name too: lanes of `regions_kernel` are rows.
    """
    counts = runs + plane.to(tl.int64) * (H + 4 * H * tl.cdiv(W, 2))
    return counts, counts + H


@triton.jit
def read(row, x, first, last):
    """Values of a row; outside its content -inf, which exceeds no threshold."""
    return tl.load(row + x, mask=(x >= first) & (x < last), other=float("-inf")).to(tl.float32)


@triton.jit
def highest_of_run(run, peak, next_run, next_peak):
    """Join two neighbouring stretches: the run that they end in, and its highest value."""
    return next_run, tl.where(run == next_run, tl.maximum(peak, next_peak), next_peak)


@triton.jit(do_not_specialize=SIZES[:2])
def runs_kernel(
    maps,  # [B, J, H, W] fp32 or fp16
    thresholds,  # [J] fp32
    content,  # [B, 4] int32: top, left, height, width; None: all
    H,
    W,
    runs,  # [B, J, (4 ceil(W / 2) + 1) H] int32
    BLOCK_W: tl.constexpr,  # columns of a turn
):
    """The runs of a row: from where to where, the highest value, each its own parent; grid: H, J, B, of one warp."""
    y, j, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    plane = b * tl.num_programs(1) + j
    counts, runs = runs_of(runs, plane, H, W)
    threshold = tl.load(thresholds + j)
    row = maps + plane.to(tl.int64) * H * W + y * W
    first, last = 0, W
    if content is not None:
        part = content + 4 * b
        top, left = tl.load(part), tl.load(part + 1)
        inside = (y >= top) & (y < top + tl.load(part + 2))
        first = tl.maximum(left, 0)
        last = tl.where(inside, tl.minimum(left + tl.load(part + 3), W), 0)

    count = tl.zeros([], tl.int32)
    open_peak = tl.full([], float("-inf"), tl.float32)  # of the last run, which may go on in the next turn
    for start in range(0, last, BLOCK_W):
        x = start + tl.arange(0, BLOCK_W)
        value = read(row, x, first, last)
        over = value > threshold
        if tl.max(over.to(tl.int32), axis=0) > 0:  # most rows have no run
            opens = over & ~(read(row, x - 1, first, last) > threshold)
            closes = over & ~(read(row, x + 1, first, last) > threshold)
            run = count - 1 + tl.cumsum(opens.to(tl.int32), axis=0)
            peak = tl.where(over, tl.where(value == 0, 0.0, value), float("-inf"))  # -0.0 is 0.0
            _, peak = tl.associative_scan((run, peak), 0, highest_of_run)
            peak = tl.where(run == count - 1, tl.maximum(peak, open_peak), peak)
            bits = peak.to(tl.int32, bitcast=True)
            name = run * H + y
            tl.store(runs + 4 * name, x, opens)
            tl.store(runs + 4 * name + 1, x + 1, closes)
            tl.store(runs + 4 * name + 2, bits, closes)
            tl.store(runs + 4 * name + 3, name, opens)
            count += tl.sum(opens.to(tl.int32), axis=0)
            open_peak = tl.sum(tl.where(x == start + BLOCK_W - 1, bits, 0), axis=0).to(tl.float32, bitcast=True)
    tl.store(counts + y, count)


@triton.jit
def hook(counts, runs, H, BLOCK_H: tl.constexpr):
    """Give the higher parent of every two runs that touch the lower one as its own; return how many had different ones.

    A lane goes through the runs of a row and of the one above as through two sorted lists.
    """
    different = tl.zeros([BLOCK_H], tl.int32)
    for start in range(0, H, BLOCK_H):
        y = start + tl.arange(0, BLOCK_H)
        count = tl.load(counts + y, mask=y < H, other=0)
        count_above = tl.load(counts + y - 1, mask=(y > 0) & (y < H), other=0)
        n, m = tl.zeros([BLOCK_H], tl.int32), tl.zeros([BLOCK_H], tl.int32)
        going = (count > 0) & (count_above > 0)
        while tl.max(going.to(tl.int32), axis=0) > 0:
            here, above = runs + 4 * (n * H + y), runs + 4 * (m * H + y - 1)
            right = tl.load(here + 1, mask=going, other=0)
            right_above = tl.load(above + 1, mask=going, other=0)
            touch = going & (tl.load(here, mask=going, other=0) <= right_above)
            touch &= tl.load(above, mask=going, other=0) <= right
            a = tl.load(here + 3, mask=touch, other=0, volatile=True)
            b = tl.load(above + 3, mask=touch, other=0, volatile=True)
            join = touch & (a != b)
            higher = runs + 4 * tl.maximum(a, b)
            tl.atomic_min(higher + 3, tl.minimum(a, b), mask=join, sem="relaxed", scope="cta")
            different += join.to(tl.int32)
            # The one that ends first touches no other.
            ends = right <= right_above
            n += ends.to(tl.int32)
            m += (~ends).to(tl.int32)
            going &= (n < count) & (m < count_above)
    return tl.sum(different, axis=0)


@triton.jit
def flatten(counts, runs, H, BLOCK_H: tl.constexpr):
    """Make the parent of every run its parent's parent; return how many had another one before.

    Four runs of a row at a time: their reads, one after the other for each, are what this takes.
    """
    moved = tl.zeros([4, BLOCK_H], tl.int32)
    for start in range(0, H, BLOCK_H):
        y = start + tl.arange(0, BLOCK_H)
        count = tl.load(counts + y, mask=y < H, other=0)
        for first in range(0, tl.max(count, axis=0), 4):
            n = first + tl.arange(0, 4)[:, None]
            here, live = runs + 4 * (n * H + y[None, :]), n < count[None, :]
            parent = tl.load(here + 3, mask=live, other=0, volatile=True)
            next_parent = tl.load(runs + 4 * parent + 3, mask=live, other=0, volatile=True)
            move = live & (next_parent != parent)
            tl.atomic_min(here + 3, next_parent, mask=move, sem="relaxed", scope="cta")
            moved += move.to(tl.int32)
    return tl.sum(tl.sum(moved, axis=0), axis=0)


@triton.jit(do_not_specialize=SIZES)
def regions_kernel(
    runs,  # [B, J, (4 ceil(W / 2) + 1) H] int32 of runs_kernel; the parents are written
    H,
    W,
    max_regions,  # rows of a table
    counts,  # [B, J] int32
    table,  # [B, J, R, 8] int32: first, left, top, right, bottom, area, peak, 0
    BLOCK_H: tl.constexpr,  # rows of a turn
):
    """Joins the runs of a map that touch, and measures what they make; grid: B * J.

    A barrier stands between any two steps of which one reads what the other writes. Within a step, what is read may
    be older or newer; but a round that joins nothing has read nothing that was changing: touching runs have one parent,
    so all runs of a region have, and it is one of them.
    """
    plane = tl.program_id(0)
    row_counts, runs = runs_of(runs, plane, H, W)
    table += plane.to(tl.int64) * max_regions * 8
    tl.store(counts + plane, 0)

    while hook(row_counts, runs, H, BLOCK_H) > 0:
        tl.debug_barrier()
        while flatten(row_counts, runs, H, BLOCK_H) > 0:
            tl.debug_barrier()
        tl.debug_barrier()
    tl.debug_barrier()

    # A root opens the row of its region, and keeps the number of that row as -1 - number in place of its parent.
    for start in range(0, H, BLOCK_H):
        y = start + tl.arange(0, BLOCK_H)
        count = tl.load(row_counts + y, mask=y < H, other=0)
        for n in range(tl.max(count, axis=0)):
            name, live = n * H + y, n < count
            here = runs + 4 * name
            root = live & (tl.load(here + 3, mask=live, other=0) == name)
            number = tl.atomic_add(counts + plane + y * 0, 1, mask=root, sem="relaxed", scope="cta")
            tl.store(here + 3, -1 - number, root)
            kept = root & (number < max_regions)
            left = tl.load(here, mask=kept, other=0)
            right = tl.load(here + 1, mask=kept, other=0)
            entry = table + number * 8
            tl.store(entry, y * W + left, kept)
            tl.store(entry + 1, left, kept)
            tl.store(entry + 2, y, kept)
            tl.store(entry + 3, right, kept)
            tl.store(entry + 4, y + 1, kept)
            tl.store(entry + 5, right - left, kept)
            tl.store(entry + 6, tl.load(here + 2, mask=kept, other=0), kept)
            tl.store(entry + 7, 0, kept)
    tl.debug_barrier()

    for start in range(0, H, BLOCK_H):
        y = start + tl.arange(0, BLOCK_H)
        count = tl.load(row_counts + y, mask=y < H, other=0)
        for n in range(tl.max(count, axis=0)):
            here = runs + 4 * (n * H + y)
            parent = tl.load(here + 3, mask=n < count, other=-1)
            number = -1 - tl.load(runs + 4 * parent + 3, mask=parent >= 0, other=-1)
            kept = (parent >= 0) & (number < max_regions)
            left = tl.load(here, mask=kept, other=0)
            right = tl.load(here + 1, mask=kept, other=0)
            peak = tl.load(here + 2, mask=kept, other=0).to(tl.float32, bitcast=True)
            entry = table + number * 8
            tl.atomic_min(entry, y * W + left, mask=kept, sem="relaxed", scope="cta")
            tl.atomic_min(entry + 1, left, mask=kept, sem="relaxed", scope="cta")
            tl.atomic_min(entry + 2, y, mask=kept, sem="relaxed", scope="cta")
            tl.atomic_max(entry + 3, right, mask=kept, sem="relaxed", scope="cta")
            tl.atomic_max(entry + 4, y + 1, mask=kept, sem="relaxed", scope="cta")
            tl.atomic_add(entry + 5, right - left, mask=kept, sem="relaxed", scope="cta")
            highest = (entry + 6).to(tl.pointer_type(tl.float32), bitcast=True)
            tl.atomic_max(highest, peak, mask=kept, sem="relaxed", scope="cta")
