"""Instructions that access memory: every access is checked and counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import KernelError
from .memory import Segment
from .opcodes import TYPES, Values
from .parser import Address, Instruction, Operand, Register, Vector

if TYPE_CHECKING:
    from .machine import Lanes, Machine, Step

TRANSFER = re.compile(
    r"(?P<what>ld|st)(?P<volatile>\.volatile)?\.(?P<space>param|global|shared)(?:\.L1::evict_\w+)?(?:\.L2::cache_hint)?"
    r"(?:\.v(?P<count>[24]))?\.[bsuf](?P<bits>8|16|32|64)"
)
ATOMIC = re.compile(r"(?:atom|red)\.global\.cta\.relaxed\.(?P<what>add|min|max)\.(?P<type>[su](?:32|64))")
OPERATIONS = {"add": np.add, "min": np.minimum, "max": np.maximum}


def decode(machine: Machine, it: Instruction) -> Step | None:
    """Make a load, store or atomic operation a step; None for another instruction."""
    if found := ATOMIC.fullmatch(it.opcode):
        return _atomic(machine, it, OPERATIONS[found["what"]], TYPES[found["type"]])
    if (found := TRANSFER.fullmatch(it.opcode)) is None:
        return None
    size, space = int(found["bits"]) // 8, found["space"]
    # A third operand is a policy of the caches.
    data, place = it.operands[:2] if found["what"] == "ld" else it.operands[1::-1]
    if space == "param":
        return _parameter(machine, it, data, place, size)
    parts = data.items if isinstance(data, Vector) else (data,)
    if len(parts) != int(found["count"] or 1):
        raise KernelError("syntax", f"{it}: expected {found['count'] or 1} registers")
    make = _load if found["what"] == "ld" else _store
    return make(machine, it, parts, place, size, space, bool(found["volatile"]))


def _parameter(machine: Machine, it: Instruction, data: Operand, place: Operand, size: int) -> Step:
    name = place.base.name if isinstance(place, Address) and not place.offset else ""
    if name not in machine.params or machine.kernel.parameters[name] != 8 * size:
        raise KernelError("syntax", f"{it}: expected a parameter of {size} bytes")
    store = machine.target(data, size, it)
    bits = np.array(machine.params[name] & (1 << 8 * size) - 1, f"u{size}")
    return lambda lanes: store(lanes, bits)


def _load(
    machine: Machine, it: Instruction, parts: tuple[Any, ...], place: Operand, size: int, space: str, strong: bool
) -> Step:
    """PTX ISA, "Data Movement and Conversion Instructions: ld"; volatile ones are strong."""
    addresses = _addresses(machine, it, place, space)
    stores = [machine.target(part, size, it, wider=True) for part in parts]
    width = size * len(parts)

    def run(lanes: Lanes) -> None:
        where = addresses(lanes)
        values = np.empty((len(stores), len(where)), f"u{size}")
        for segment, which in _segments(machine, it, lanes, where, width, space):
            places = segment.places(where[which])
            machine.note_read(segment, places, width, machine.only(lanes, which), strong, it)
            for number in range(len(stores)):
                values[number, which] = segment.view(size)[places // size + number]
        for store, value in zip(stores, values, strict=True):
            store(lanes, value)

    return run


def _store(
    machine: Machine, it: Instruction, parts: tuple[Any, ...], place: Operand, size: int, space: str, strong: bool
) -> Step:
    """PTX ISA, "Data Movement and Conversion Instructions: st"."""
    addresses = _addresses(machine, it, place, space)
    fetches = [machine.source(part, f"b{8 * size}", it, wider=True) for part in parts]
    width = size * len(parts)

    def run(lanes: Lanes) -> None:
        where = addresses(lanes)
        values = np.empty((len(where), len(fetches)), f"u{size}")
        for number, fetch in enumerate(fetches):
            values[:, number] = fetch(lanes)
        for segment, which in _segments(machine, it, lanes, where, width, space):
            places, chosen = segment.places(where[which]), values[which]
            machine.note_write(segment, places, chosen, machine.only(lanes, which), strong, it)
            for number in range(len(fetches)):
                segment.view(size)[places // size + number] = chosen[:, number]

    return run


def _atomic(machine: Machine, it: Instruction, operation: np.ufunc, kind: type[Any]) -> Step:
    """PTX ISA, "Parallel Synchronization and Communication Instructions: atom, red"; one thread after the other."""
    *target, place, operand = it.operands
    size = kind().itemsize
    addresses = _addresses(machine, it, place, "global")
    fetch = machine.source(operand, f"b{8 * size}", it)
    store = machine.target(target[0], size, it) if target else None

    def run(lanes: Lanes) -> None:
        where = addresses(lanes)
        values = np.broadcast_to(fetch(lanes), where.shape).view(kind)
        before = np.empty(len(where), kind)
        for segment, which in _segments(machine, it, lanes, where, size, "global"):
            places, chosen = segment.places(where[which]), machine.only(lanes, which)
            machine.note_read(segment, places, size, chosen, True, it)
            machine.note_write(segment, places, values[which][:, None], chosen, True, it)
            before[which] = _one_by_one(operation, segment.view(size).view(kind), places // size, values[which])
        if store is not None:
            store(lanes, before)

    return run


def _one_by_one(operation: np.ufunc, content: Values, places: Values, values: Values) -> Values:
    """Apply an operation at places that may repeat; return the values before each."""
    before = np.empty_like(values)
    for number, (place, value) in enumerate(zip(places, values, strict=True)):
        before[number] = content[place]
        content[place] = operation(content[place], value)
    return before


def _addresses(machine: Machine, it: Instruction, place: Operand, space: str) -> Callable[[Lanes], Values]:
    """Make a reader of addresses in bytes; in shared memory, counted over all blocks."""
    if not isinstance(place, Address) or not isinstance(place.base, Register):
        raise KernelError("unsupported", f"{it}: expected [register + number] as address")
    offset = place.offset
    if space == "global":
        base = machine.source(place.base, "s64", it)
        return lambda lanes: base(lanes) + offset
    base = machine.source(place.base, "u32", it)
    own = machine.threads // machine.block * machine.block_bytes
    return lambda lanes: base(lanes).astype(np.int64) + offset + own[lanes]


def _segments(
    machine: Machine, it: Instruction, lanes: Lanes, addresses: Values, width: int, space: str
) -> Iterable[tuple[Segment, Any]]:
    if space == "global":
        return machine.memory.segments(addresses, width, str(it))
    inside = addresses - machine.threads[lanes] // machine.block * machine.block_bytes
    if ((inside < 0) | (inside + width > machine.block_bytes)).any():
        raise KernelError("bounds", f"{it}: {width} bytes outside a block's {machine.block_bytes} of shared memory")
    if (inside & width - 1).any():
        raise KernelError("alignment", f"{it}: expected a multiple of {width} as address")
    return [(machine.shared, slice(None))]
