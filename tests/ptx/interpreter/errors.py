"""What can be wrong with a kernel."""

from __future__ import annotations

from dataclasses import dataclass


class KernelError(Exception):
    """A kernel that a device would refuse, or whose result would depend on what it must not.

    reason  "syntax", "unsupported", "launch", "bounds", "alignment", "read-only", "unwritten", "warp", "barrier" or
            "endless"
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(f"{reason}: {sentence}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Race:
    """Two accesses to the same memory, one of them a write, that nothing orders: no barrier stands between them.

    line     of the later access, counted from 1, and its text
    thread   that made it, counted over the whole launch
    address  in bytes
    """

    line: int
    text: str
    thread: int
    address: int
