"""A thread that works while there is something to do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from msloc_edge.errors import MslocError
from msloc_edge.listen.log import Log

_LOOK_S = 1.0
"""Seconds between two looks for work that nobody announced."""


class Loop:
    """Calls `work` until it returns False, then waits until it is woken, or for a second, and calls it again.

    An error that comes out of `work` is logged, and work goes on after a second: a disk that was full may have space
    again. An unexpected one is told by its kind alone, since its words may hold a header's.
    """

    def __init__(self, name: str, work: Callable[[], bool], log: Log) -> None:
        self._work, self._log = work, log
        self._woken, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    def stop(self, wait_s: float) -> None:
        """Begin nothing more, and wait until what has begun is done, but no longer than `wait_s` seconds."""
        self._ended.set()
        self._woken.set()
        if self.alive:
            self._thread.join(wait_s)

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    @property
    def name(self) -> str:
        """Name of its thread."""
        return self._thread.name

    def _run(self) -> None:
        while not self._ended.is_set():
            self._woken.clear()
            try:
                more = self._work()
            except MslocError as error:
                self._log.alert("work interrupted", at=self.name, reason=error.reason, message=error.message)
                more = False
            except Exception as error:
                self._log.alert("work interrupted", at=self.name, reason="internal_error", kind=type(error).__name__)
                more = False
            if not more and not self._ended.is_set():
                self._woken.wait(_LOOK_S)
