"""Instructions that a warp executes as one: all of its threads have to be there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .errors import KernelError
from .opcodes import Values
from .parser import Instruction, Operand

if TYPE_CHECKING:
    from .machine import Lanes, Machine, Step

WARP = 32
SHUFFLE = re.compile(r"shfl\.sync\.(up|down|bfly|idx)\.b32")
REDUCE = re.compile(r"redux\.sync\.(add|min|max)\.([su]32)")
REDUCTIONS = {"add": np.add, "min": np.minimum, "max": np.maximum}


def decode(machine: Machine, it: Instruction) -> Step | None:
    """Make an instruction of a warp a step; None for another."""
    if found := SHUFFLE.fullmatch(it.opcode):
        return _shuffle(machine, it, found[1])
    if found := REDUCE.fullmatch(it.opcode):
        return _reduce(machine, it, REDUCTIONS[found[1]], found[2])
    return None


def _check(machine: Machine, it: Instruction, members: Operand) -> Step:
    """Look that whole warps are there, and that the mask of members names all."""
    mask = machine.source(members, "b32", it)

    def run(lanes: Lanes) -> None:
        machine.check_warps(lanes, it)
        if (mask(lanes) != 0xFFFFFFFF).any():
            raise KernelError("unsupported", f"{it}: expected all lanes as members")

    return run


def _shuffle(machine: Machine, it: Instruction, mode: str) -> Step:
    """PTX ISA, "Data Movement and Conversion Instructions: shfl.sync"."""
    target, value, place, clamp, members = it.operands
    check, store = _check(machine, it, members), machine.target(target, 4, it)
    fetch, b, c = (machine.source(operand, "u32", it) for operand in (value, place, clamp))

    def run(lanes: Lanes) -> None:
        check(lanes)
        shape = (-1, WARP)
        values = np.broadcast_to(fetch(lanes), machine.threads[lanes].shape).reshape(shape)
        by, limits = (np.broadcast_to(np.ravel(s(lanes)), values.size).reshape(shape).astype(int) for s in (b, c))
        store(lanes, np.take_along_axis(values, source_lanes(mode, by, limits), axis=1).ravel())

    return run


def source_lanes(mode: str, by: Values, limits: Values) -> Values:
    """The lane [warps, 32] that each lane's value comes from; its own where that lies outside its segment."""
    lane = np.arange(WARP)
    by, segment, clamp = by & 31, limits >> 8 & 31, limits & 31
    last, first = lane & segment | clamp & ~segment, lane & segment
    chosen = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": first | by & ~segment}[mode]
    return np.where(chosen >= last if mode == "up" else chosen <= last, chosen, lane)


def _reduce(machine: Machine, it: Instruction, reduction: np.ufunc, kind: str) -> Step:
    """PTX ISA, "Parallel Synchronization and Communication Instructions: redux.sync"."""
    target, value, members = it.operands
    check, store, fetch = _check(machine, it, members), machine.target(target, 4, it), machine.source(value, kind, it)

    def run(lanes: Lanes) -> None:
        check(lanes)
        values = np.broadcast_to(fetch(lanes), machine.threads[lanes].shape).reshape(-1, WARP)
        store(lanes, np.repeat(reduction.reduce(values, axis=1, dtype=values.dtype), WARP))

    return run
