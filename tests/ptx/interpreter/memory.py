"""Device memory: arrays behind addresses, with gaps between them that nobody may touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import KernelError

ALIGNMENT = 256
"""Bytes: of the addresses that a device's own allocator gives."""

WIDEST = 16
"""Bytes of the widest access."""

SPACING = 1 << 40
"""Bytes between two arrays: no 32-bit place in one reaches another."""

POISON = 0xA5
"""Every byte of memory that nobody has written: float16 and float32 near zero, -1515870811 as int32."""

Bits = NDArray[np.unsignedinteger[Any]]


@dataclass(slots=True)
class Segment:
    """One array in memory.

    address   of its first byte
    content   bytes from the last multiple of WIDEST, or of more, before that address on
    begin     of the array in `content`
    unit      bytes of an element; an access to a part of one counts as one to all of it
    written   of each unit of `content`, whether it holds a value; None for an array that is only read
    """

    address: int
    content: NDArray[np.uint8]
    begin: int
    unit: int
    written: NDArray[np.bool_] | None
    views: dict[int, Bits] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.content) - self.begin

    def places(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes from the beginning of `content`."""
        return addresses - (self.address - self.begin)

    def units(self, places: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
        """Numbers of the elements that accesses of `width` bytes touch: an array for each element of an access."""
        return [places // self.unit + number for number in range(max(1, width // self.unit))]

    def view(self, width: int) -> Bits:
        """The content as unsigned integers of so many bytes."""
        if width not in self.views:
            whole = len(self.content) // width * width
            self.views[width] = self.content[:whole].view(f"u{width}")
        return self.views[width]


class Memory:
    """Arrays at addresses. `memory[address]` is the array itself, as flat elements of its type."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._arrays: dict[int, NDArray[Any]] = {}
        self._next = SPACING

    def put(self, array: NDArray[Any], skew: int = 0, writable: bool = False) -> int:
        """Place a copy of an array and return its address, `skew` bytes behind a multiple of ALIGNMENT.

        writable  otherwise a kernel that writes there is at fault
        """
        return self._place(np.ascontiguousarray(array), skew, written=True if writable else None)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike, skew: int = 0) -> int:
        """Place an array full of POISON: a kernel that reads it before it is written is at fault."""
        array = np.empty(shape, dtype)
        array.view(np.uint8)[...] = POISON
        return self._place(array, skew, written=False)

    def map(self, address: int, array: NDArray[Any], written: bool | None) -> None:
        """Let an array that lies in this process be the memory at `address`, a multiple of WIDEST.

        written  whether it holds values; None: it may only be read
        """
        if address % WIDEST:
            raise ValueError(f"expected an address that is a multiple of {WIDEST}, got {address:#x}")
        flat = array.reshape(-1)
        self._add(address, flat, flat.view(np.uint8), 0, written)

    def __getitem__(self, address: int) -> NDArray[Any]:
        return self._arrays[address]

    def unwritten(self, address: int) -> int:
        """How many elements of the array at `address` nobody has written."""
        segment = next(s for s in self._segments if s.address == address)
        return 0 if segment.written is None else int((~segment.written[segment.begin // segment.unit :]).sum())

    def segments(self, addresses: NDArray[np.int64], width: int, at: str) -> Iterator[tuple[Segment, Any]]:
        """The segments that accesses of `width` bytes lie in, and which of them: a slice or a mask.

        at  the line of the kernel, for the message. Raises KernelError "alignment" or "bounds"
        """
        if (addresses & (width - 1)).any():
            wrong = int(addresses[np.flatnonzero(addresses & (width - 1))[0]])
            raise KernelError("alignment", f"{at}: expected a multiple of {width} as address, got {wrong:#x}")
        lowest, highest = int(addresses.min()), int(addresses.max()) + width
        for segment in self._segments:
            if segment.address <= lowest and highest <= segment.end:
                yield segment, slice(None)
                return
        inside = [(s, (addresses >= s.address) & (addresses + width <= s.end)) for s in self._segments]
        outside = ~np.logical_or.reduce([mask for _, mask in inside]) if inside else np.ones(len(addresses), bool)
        if outside.any():
            raise KernelError("bounds", f"{at}: {self._whereabouts(int(addresses[outside][0]), width)}")
        yield from ((segment, mask) for segment, mask in inside if mask.any())

    def _whereabouts(self, address: int, width: int) -> str:
        near = [s for s in self._segments if s.address - SPACING // 2 <= address < s.end + SPACING // 2]
        if not near:
            return f"{width} bytes at {address:#x}, where nothing is"
        segment = min(near, key=lambda s: max(s.address - address, address - s.end))
        size, offset = segment.end - segment.address, address - segment.address
        element = f"element {offset // segment.unit} of {size // segment.unit}"
        return f"{width} bytes at {offset} of an array of {size} bytes ({element})"

    def _place(self, array: NDArray[Any], skew: int, written: bool | None) -> int:
        if skew % array.itemsize:
            raise ValueError(f"expected a multiple of {array.itemsize} bytes, got {skew}")
        content = np.zeros(skew + array.nbytes, np.uint8)
        content[skew:] = array.reshape(-1).view(np.uint8)
        address = self._next + skew
        self._add(address, content[skew:].view(array.dtype), content, skew, written)
        self._next += SPACING
        return address

    def _add(
        self, address: int, array: NDArray[Any], content: NDArray[np.uint8], begin: int, written: bool | None
    ) -> None:
        units = -(-len(content) // array.itemsize)
        state = None if written is None else np.full(units, written)
        self._segments.append(Segment(address, content, begin, array.itemsize, state))
        self._arrays[address] = array
