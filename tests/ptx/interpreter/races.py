"""Races: accesses to the same memory, one of them a write, that nothing orders (PTX ISA, "Memory Consistency Model").

Ordered are the accesses of one thread, and those of one block with a barrier between them. Strong ones (atomic, or
volatile) race with each other only between blocks, as all are taken to be of the block's scope. Threads of a warp may
store the same value at one place by one instruction.

Of every unit of memory four things are kept: who read and who wrote it last, weakly and strongly. Who is one number:
how many barriers its block has passed, the block, and the thread in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WARP = 32
THREAD_BITS, BLOCK_BITS = 11, 23
BARRIERS = THREAD_BITS + BLOCK_BITS
SEVERAL = (1 << THREAD_BITS) - 1
"""In place of a thread: several of its block."""

NEVER, ELSEWHERE = -1, -2
"""Nobody; threads of several blocks."""

Who = NDArray[np.int64]
Mask = NDArray[np.bool_]


def who(barriers: NDArray[np.int64], blocks: NDArray[np.int64], threads: NDArray[np.int64]) -> Who:
    """Number the threads of an access by what orders it."""
    return barriers << BARRIERS | blocks << THREAD_BITS | threads


class Accesses:
    """Who has accessed each unit of an array in this launch."""

    def __init__(self, units: int) -> None:
        self._reads = [np.full(units, NEVER), np.full(units, NEVER)]
        self._writes = [np.full(units, NEVER), np.full(units, NEVER)]
        self._last = np.zeros(units, np.int64)

    def read(self, units: NDArray[np.int64], by: Who, strong: bool) -> Mask:
        """Record reads; return which of them race."""
        races = _against(self._writes, units, by, strong)
        _record(self._reads[strong], units, by)
        return races

    def write(self, units: NDArray[np.int64], by: Who, strong: bool, values: NDArray[Any]) -> Mask:
        """Record writes of values [n, parts]; return which of them race, also with another of these."""
        races = _against(self._writes, units, by, strong) | _against(self._reads, units, by, strong)
        _record(self._writes[strong], units, by)
        self._last[units] = np.arange(len(units))
        last = self._last[units]
        if strong:
            return races | ~_same_block(by[last], by)
        same_warp = (by[last] ^ by) // WARP == 0
        return races | (by[last] != by) & ~(same_warp & (values[last] == values).all(axis=1))


def _against(others: list[Who], units: NDArray[np.int64], by: Who, strong: bool) -> Mask:
    weak_ones, strong_ones = (other[units] for other in others)
    races = _unordered(strong_ones, by)
    if strong:
        races &= ~_same_block(strong_ones, by)
    return races | _unordered(weak_ones, by)


def _same_block(a: Who, b: Who) -> Mask:
    return (a ^ b) >> THREAD_BITS & (1 << BLOCK_BITS) - 1 == 0


def _unordered(before: Who, now: Who) -> Mask:
    ordered = (before ^ now) & (1 << BARRIERS) - 1 == 0  # the same thread
    ordered |= _same_block(before, now) & (before >> BARRIERS < now >> BARRIERS)
    return (before != NEVER) & ~ordered


def _record(last: Who, units: NDArray[np.int64], by: Who) -> None:
    before = last[units]
    now = np.where(_unordered(before, by), np.where(_same_block(before, by), by | SEVERAL, ELSEWHERE), by)
    last[units] = now
    kept = last[units]
    shared = kept != now  # of several accesses to one unit one was noted
    if shared.any():
        many = np.where(_same_block(kept, by), kept | SEVERAL, ELSEWHERE)
        last[units[shared]] = many[shared]
        last[units[shared & (many == ELSEWHERE)]] = ELSEWHERE
