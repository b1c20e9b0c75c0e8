"""Instructions from registers to registers of the same thread: those of `opcodes`, and mov."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import KernelError
from .opcodes import FORMS, TYPES, Form, Values
from .parser import Instruction, Symbol, Vector

if TYPE_CHECKING:
    from .machine import Lanes, Machine, Step


def decode(machine: Machine, it: Instruction) -> Step | None:
    """Make an instruction that computes a step; None for another."""
    if it.opcode.startswith("mov."):
        return _move(machine, it)
    return _compute(machine, it, FORMS[it.opcode]) if it.opcode in FORMS else None


def _compute(machine: Machine, it: Instruction, form: Form) -> Step:
    target, *operands = it.operands
    if not form.sources:
        operands = []  # the fraction of createpolicy is of no consequence
    if len(operands) != len(form.sources):
        raise KernelError("syntax", f"{it}: expected {len(form.sources)} sources")
    sources = [machine.source(operand, kind, it) for operand, kind in zip(operands, form.sources, strict=True)]
    store = machine.target(target, TYPES[form.result]().itemsize, it)
    off = machine.ulps if form.approximate else 0

    def run(lanes: Lanes) -> None:
        value = form.compute(*(source(lanes) for source in sources))
        store(lanes, _moved(value, off) if off else value)

    return run


def _moved(value: Values, ulps: int) -> Values:
    """Finite numbers, so many units in the last place away."""
    moved = (value.view(np.int32) + np.int32(ulps)).view(np.float32)
    return np.where(np.isfinite(value) & (value != 0) & np.isfinite(moved), moved, value)


def _move(machine: Machine, it: Instruction) -> Step:
    """PTX ISA, "Data Movement and Conversion Instructions: mov", both the plain and the packing one."""
    kind = it.opcode.removeprefix("mov.")
    if kind not in TYPES or len(it.operands) != 2:
        raise KernelError("unsupported", f"{it}: no such move is known here")
    target, source = it.operands
    if isinstance(target, Vector):
        return _unpack(machine, it, target, machine.source(source, kind, it))
    store = machine.target(target, TYPES[kind]().itemsize, it)
    if isinstance(source, Vector):
        fetch = _pack(machine, it, source, TYPES[kind])
    elif isinstance(source, Symbol) and source.name in machine.variables:
        place = np.uint32(machine.variables[source.name])
        return lambda lanes: store(lanes, place)
    else:
        fetch = machine.source(source, kind, it)
    return lambda lanes: store(lanes, fetch(lanes))


def _pack(machine: Machine, it: Instruction, vector: Vector, kind: type[Any]) -> Callable[[Lanes], Values]:
    """Parts of a register, the lowest first."""
    bits = 8 * kind().itemsize // len(vector.items)
    parts = [machine.source(item, f"b{bits}", it) for item in vector.items]

    def fetch(lanes: Lanes) -> Values:
        value = parts[0](lanes).astype(kind)
        for place, part in enumerate(parts[1:], start=1):
            value = value | part(lanes).astype(kind) << kind(place * bits)
        return value

    return fetch


def _unpack(machine: Machine, it: Instruction, vector: Vector, fetch: Callable[[Lanes], Values]) -> Step:
    size = int(it.opcode.removeprefix("mov.b")) // 8 // len(vector.items)
    stores = [machine.target(item, size, it) if item else None for item in vector.items]

    def run(lanes: Lanes) -> None:
        value = fetch(lanes)
        for place, store in enumerate(stores):
            if store is not None:
                store(lanes, (value >> value.dtype.type(8 * size * place)).astype(f"u{size}"))

    return run
