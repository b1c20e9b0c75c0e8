"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "absent", "warning", "failing"]


@dataclass(frozen=True, slots=True)
class Check:
    """Answer to one question about this machine.

    status  ok; absent: something optional is not here; warning: something is here and does not work, or will be in
            the way; failing: the default way, a film on this machine's CPU, cannot work
    fix     the command that fixes it, or gets what is absent; None where there is nothing to do
    """

    group: str
    name: str
    status: Status
    found: str
    fix: str | None = None


def size(count: int) -> str:
    """Bytes for people, by powers of 1000.

    >>> size(512), size(1_500_000)
    ('512 bytes', '1.5 MB')
    """
    if count < 1000:
        return f"{count} bytes"
    power = min(len(str(count)) - 1, 12) // 3
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
