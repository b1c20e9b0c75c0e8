"""Control flow and barriers (PTX ISA, "Control Flow Instructions", "Parallel Synchronization ...: bar")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import KernelError
from .parser import Immediate, Instruction, Symbol

if TYPE_CHECKING:
    from .machine import Lanes, Machine, Step

LEAVE = ("bra", "bra.uni", "ret")
BARRIER = "bar.sync"


def decode(machine: Machine, it: Instruction) -> Step | None:
    """Make a branch, ret or barrier a step; None for another instruction."""
    if it.opcode == BARRIER:
        return _barrier(machine, it)
    if it.opcode in LEAVE:
        return _leave(machine, it)
    return None


def _leave(machine: Machine, it: Instruction) -> Step:
    if it.opcode == "ret":
        return machine.end
    (target,) = it.operands
    if not isinstance(target, Symbol) or target.name not in machine.kernel.labels:
        raise KernelError("syntax", f"{it}: expected a label of the kernel")
    place = machine.kernel.labels[target.name]

    def run(lanes: Lanes) -> None:
        machine.counters[lanes] = place

    return run


def _barrier(machine: Machine, it: Instruction) -> Step:
    if it.operands != (Immediate(0),) or it.guard:
        raise KernelError("unsupported", f"{it}: expected barrier 0, for all threads")

    def run(lanes: Lanes) -> None:
        machine.check_warps(lanes, it)
        machine.wait(lanes)

    return run
