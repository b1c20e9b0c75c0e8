"""A launch: all of its threads side by side, those with the lowest program counter first.

A step runs one stretch of instructions without a branch, for all threads that are at its beginning. Because the lowest
goes first, threads of a warp that have parted meet again where their ways do; an instruction that a warp executes as
one then finds all of it there, or the kernel is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from . import access, compute, control, warp
from .errors import KernelError, Race
from .memory import Memory, Segment
from .opcodes import TYPES, Values
from .parser import Immediate, Instruction, Kernel, Operand, Register, Symbol, parse
from .races import Accesses, who

WARP = 32
MAX_THREADS = 1024
WAITING, ENDED = 1 << 30, (1 << 30) + 1
"""Program counters of threads at a barrier, and after `ret`."""

Lanes = Any  # numbers of threads in rising order, or a slice for all
Step = Callable[[Lanes], None]


@dataclass(slots=True)
class Executed:
    """What a launch did.

    issued         line of the text -> how often a warp executed its instruction, all lanes or some
    loads, stores  of threads, in global and shared memory; an atomic operation is both
    read, written  bytes of these
    races          line of the later access -> the first there
    """

    issued: Mapping[int, int] = field(default_factory=dict)
    loads: int = 0
    stores: int = 0
    read: int = 0
    written: int = 0
    races: dict[int, Race] = field(default_factory=dict)

    @property
    def instructions(self) -> int:
        """Issue slots, each as the 32 threads that it serves."""
        return WARP * sum(self.issued.values())


def launch(
    ptx_text: str,
    name: str,
    grid: tuple[int, int, int],
    block: int,
    params: Sequence[int],
    memory: Memory,
    *,
    shared: int = 0,
    ulps: int = 0,
    limit: int = 1_000_000,
) -> Executed:
    """Run a kernel to its end.

    grid    blocks along x, y, z
    block   threads of a block, along x: a multiple of 32
    params  bits of each parameter: a number, an address of `memory`
    shared  bytes of dynamic shared memory
    ulps    how far approximate instructions are off: -2 to 2 units in the last place, as the PTX ISA allows
    limit   steps after which the kernel counts as endless

    Raises KernelError. Races raise nothing.
    """
    kernels = parse(ptx_text)
    if name not in kernels:
        raise KernelError("launch", f"expected a kernel of {sorted(kernels)}, got {name}")
    kernel = kernels[name]
    if block % WARP or not 0 < block <= MAX_THREADS or kernel.threads not in (None, block):
        expected = kernel.threads or f"a multiple of {WARP}, at most {MAX_THREADS},"
        raise KernelError("launch", f"{name}: expected {expected} threads of a block, got {block}")
    if len(params) != len(kernel.parameters):
        raise KernelError("launch", f"{name}: expected {len(kernel.parameters)} parameters, got {len(params)}")
    if min(grid) < 1:
        raise KernelError("launch", f"{name}: expected at least one block along each axis, got {grid}")
    with np.errstate(all="ignore"):
        return Machine(kernel, grid, block, params, memory, shared, ulps).run(limit)


class Machine:
    """The state of a launch, and what instructions need of it.

    kernel, block, blocks  what runs: threads of a block, blocks
    threads                numbers of all threads [blocks * block]
    counters               of each thread, the number of its next instruction, or WAITING, or ENDED
    executed               so far
    """

    def __init__(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: int,
        params: Sequence[int],
        memory: Memory,
        shared: int,
        ulps: int,
    ) -> None:
        self.kernel, self.block, self.memory, self.ulps = kernel, block, memory, ulps
        self.blocks = int(np.prod(grid))
        self.threads = np.arange(self.blocks * block)
        self.counters = np.zeros(len(self.threads), np.int64)
        self.params = dict(zip(kernel.parameters, params, strict=True))
        self.executed = Executed()
        self._barriers = np.zeros(self.blocks, np.int64)  # how many each block has passed
        self._resume = np.zeros_like(self.counters)  # where those that wait go on
        self._registers = {
            prefix: np.zeros((count, len(self.threads)), f"u{bits // 8}" if bits > 1 else np.bool_)
            for prefix, (bits, count) in kernel.registers.items()
        }
        self._specials = self._special_registers(grid)
        self.variables, self.block_bytes = _variables(kernel.shared, shared)
        content = np.zeros(self.blocks * self.block_bytes, np.uint8)
        self.shared = Segment(0, content, 0, 1, np.zeros(len(content), bool))
        self._accesses: dict[int, Accesses] = {}

    def _special_registers(self, grid: tuple[int, int, int]) -> dict[str, Values]:
        x, y, z = grid
        at, block = self.threads % self.block, self.threads // self.block
        values = {
            **{"%tid.x": at, "%tid.y": 0, "%tid.z": 0, "%ntid.x": self.block, "%ntid.y": 1, "%ntid.z": 1},
            **{"%ctaid.x": block % x, "%ctaid.y": block // x % y, "%ctaid.z": block // (x * y)},
            **{"%nctaid.x": x, "%nctaid.y": y, "%nctaid.z": z, "%laneid": at % WARP},
        }
        return {name: np.broadcast_to(np.asarray(v, np.uint32), self.threads.shape) for name, v in values.items()}

    # Running

    def run(self, limit: int) -> Executed:
        """Run all threads to their end. Raises KernelError, also after `limit` steps."""
        steps = [self._decode(it) for it in self.kernel.body]
        stretches = self._stretches()
        issued = np.zeros(len(steps), np.int64)
        for _ in range(limit):
            lowest = int(self.counters.min())
            if lowest >= WAITING:
                if lowest == WAITING:
                    raise KernelError("barrier", f"{self.kernel.name}: threads wait for others that have ended")
                lines = [it.line for it in self.kernel.body]
                self.executed.issued = {line: int(n) for line, n in zip(lines, issued, strict=True) if n}
                return self.executed
            lanes: Lanes = np.flatnonzero(self.counters == lowest)
            end = stretches[lowest]
            issued[lowest:end] += np.count_nonzero(np.diff(lanes // WARP)) + 1
            if len(lanes) == len(self.threads):
                lanes = slice(None)
            self.counters[lanes] = end
            for step in steps[lowest:end]:
                step(lanes)
        raise KernelError("endless", f"{self.kernel.name}: has not ended after {limit} steps")

    def _stretches(self) -> dict[int, int]:
        """Where each stretch ends: behind an instruction that leads elsewhere, or before a label."""
        body = self.kernel.body
        if not body or body[-1].opcode not in control.LEAVE:
            raise KernelError("syntax", f"{self.kernel.name}: expected a branch or ret as the last instruction")
        begins = {0, *self.kernel.labels.values()}
        begins |= {place + 1 for place, it in enumerate(body) if it.opcode in (*control.LEAVE, control.BARRIER)}
        return dict(pairwise(sorted(begins)))

    def _decode(self, it: Instruction) -> Step:
        """Make an instruction a function of the lanes that execute it."""
        for chapter in (control, warp, access, compute):
            if step := chapter.decode(self, it):
                return step if it.guard is None else self._guarded(step, *it.guard)
        raise KernelError("unsupported", f"{it}: no such instruction is known here")

    def _guarded(self, step: Step, predicate: Register, negated: bool) -> Step:
        row = self._row(predicate)

        def run(lanes: Lanes) -> None:
            taken = row[lanes] != negated
            if taken.all():
                step(lanes)
            elif taken.any():
                step(self.only(lanes, taken))

        return run

    def only(self, lanes: Lanes, which: Any) -> Lanes:
        """Those of the lanes that a mask has, or all for a slice."""
        if isinstance(which, slice):
            return lanes
        return np.flatnonzero(which) if isinstance(lanes, slice) else lanes[which]

    def end(self, lanes: Lanes) -> None:
        """Let the lanes do nothing any more."""
        self.counters[lanes] = ENDED

    def wait(self, lanes: Lanes) -> None:
        """Let the lanes wait for the others of their blocks; blocks that are complete go on."""
        self._resume[lanes] = self.counters[lanes]
        self.counters[lanes] = WAITING
        complete = (self.counters.reshape(self.blocks, self.block) == WAITING).all(axis=1)
        released = np.repeat(complete, self.block)
        self.counters[released] = self._resume[released]
        self._barriers[complete] += 1

    def check_warps(self, lanes: Lanes, it: Instruction) -> None:
        """Raise KernelError "warp" unless the lanes are whole warps."""
        numbers = self.threads[lanes]
        if len(numbers) % WARP == 0:
            warps = numbers.reshape(-1, WARP)
            if not (warps[:, 0] % WARP).any() and (np.diff(warps, axis=1) == 1).all():
                return
        raise KernelError("warp", f"{it}: expected all threads of a warp, some are elsewhere")

    # Operands

    def _row(self, register: Register) -> Values:
        prefix = register.name.rstrip("0123456789")
        return self._registers[prefix][int(register.name[len(prefix) :])]

    def source(
        self, operand: Operand | None, kind: str, it: Instruction, wider: bool = False
    ) -> Callable[[Lanes], Values]:
        """Make a reader of an operand as values of a PTX type.

        wider  take the lower part of a wider register
        """
        numpy_type = np.dtype(TYPES[kind])
        size = numpy_type.itemsize
        if isinstance(operand, Immediate):
            constant = np.array([operand.bits & (1 << 8 * size) - 1], f"u{size}").view(numpy_type)[0]
            return lambda lanes: constant
        if isinstance(operand, Symbol) and operand.name in self._specials:
            row = self._specials[operand.name]
        elif isinstance(operand, Register):
            row = self._row(operand)
        else:
            raise KernelError("unsupported", f"{it}: expected a register or a number as source")
        if row.itemsize == size:
            row = row.view(numpy_type)
            return lambda lanes: row[lanes]
        if wider and row.itemsize > size:
            return lambda lanes: row[lanes].astype(numpy_type)
        raise KernelError("syntax", f"{it}: expected a register of {8 * size} bits")

    def target(
        self, operand: Operand | None, size: int, it: Instruction, wider: bool = False
    ) -> Callable[[Lanes, Values], None]:
        """Make a writer of a register of `size` bytes.

        wider  let it be wider than the value: zeros go before that
        """
        if not isinstance(operand, Register):
            raise KernelError("unsupported", f"{it}: expected a register as target")
        row = self._row(operand)
        exact = row.itemsize == size
        if not exact and not (wider and row.itemsize > size):
            raise KernelError("syntax", f"{it}: expected a target of {8 * size} bits")

        def store(lanes: Lanes, value: Values) -> None:
            row[lanes] = value.view(row.dtype) if exact else value

        return store

    # Memory

    def note_read(
        self, segment: Segment, places: Values, width: int, lanes: Lanes, strong: bool, it: Instruction
    ) -> None:
        """Count reads of `width` bytes at places of a segment, and look for races."""
        self.executed.loads += len(places)
        self.executed.read += width * len(places)
        if segment.written is None:
            return
        for units in segment.units(places, width):
            if not segment.written[units].all():
                raise KernelError("unwritten", f"{it}: reads what nobody has written")
            self._note(self._of(segment).read(units, self._who(lanes), strong), segment, places, lanes, it)

    def note_write(
        self, segment: Segment, places: Values, values: Values, lanes: Lanes, strong: bool, it: Instruction
    ) -> None:
        """Count writes of values [n, parts] at places of a segment, and look for races."""
        width = values.itemsize * values.shape[1]
        self.executed.stores += len(places)
        self.executed.written += width * len(places)
        if segment.written is None:
            raise KernelError("read-only", f"{it}: writes to an input")
        for units in segment.units(places, width):
            segment.written[units] = True
            self._note(self._of(segment).write(units, self._who(lanes), strong, values), segment, places, lanes, it)

    def _of(self, segment: Segment) -> Accesses:
        assert segment.written is not None
        if id(segment) not in self._accesses:
            self._accesses[id(segment)] = Accesses(len(segment.written))
        return self._accesses[id(segment)]

    def _who(self, lanes: Lanes) -> Values:
        blocks, threads = np.divmod(self.threads[lanes], self.block)
        return who(self._barriers[blocks], blocks, threads)

    def _note(self, races: Values, segment: Segment, places: Values, lanes: Lanes, it: Instruction) -> None:
        if races.any() and it.line not in self.executed.races:
            first = int(np.flatnonzero(races)[0])
            address = int(places[first]) + segment.address - segment.begin
            self.executed.races[it.line] = Race(it.line, it.text, int(self.threads[lanes][first]), address)


def _variables(declared: Mapping[str, int | None], dynamic: int) -> tuple[dict[str, int], int]:
    """Where each variable of a block's shared memory begins, and how many bytes all have."""
    places, size = {}, 0
    for name, own in declared.items():
        places[name] = size
        size += -(-(dynamic if own is None else own) // 16) * 16
    return places, size
