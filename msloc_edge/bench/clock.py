"""Time for the scenarios: the machine's, or in tests one that stands still until it is told to go on."""

from __future__ import annotations

import time


class Clock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.perf_counter()

    def sleep(self, until: float) -> None:
        """Return at `until`, or at once when that has passed. The last half millisecond is waited for awake: a sleep
        alone returns up to some tenths of a millisecond late, which would count as latency."""
        while (rest := until - self.now()) > 0:
            if rest > 1e-3:
                time.sleep(rest - 5e-4)
