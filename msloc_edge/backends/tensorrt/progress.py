"""Progress of a build, for people: bars in a terminal, lines in a log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOG = logging.getLogger("msloc_edge.backends.tensorrt")
"""Logger of this room. Without any handler Python writes its warnings to stderr; a service sends them elsewhere."""


class Watch(Protocol):
    """A listener to the phases of a build; they nest."""

    def start(self, phase: str, steps: int) -> None: ...
    def step(self, phase: str, done: int) -> None: ...
    def finish(self, phase: str) -> None: ...


class Bars:
    """A bar for each phase that is under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def start(self, phase: str, steps: int) -> None:
        self._tasks[phase] = self._progress.add_task(phase.lower(), total=steps)

    def step(self, phase: str, done: int) -> None:
        self._progress.update(self._tasks[phase], completed=done)

    def finish(self, phase: str) -> None:
        self._progress.remove_task(self._tasks.pop(phase))


class Lines:
    """A line for each step of the outermost phase: that of a build has about six."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._phases: list[tuple[str, int]] = []

    def start(self, phase: str, steps: int) -> None:
        self._phases.append((phase, steps))

    def step(self, phase: str, done: int) -> None:
        outermost, steps = self._phases[0]
        if phase == outermost:
            LOG.warning("%s: %s, step %d of %d", self._what, phase.lower(), done, steps)

    def finish(self, phase: str) -> None:
        self._phases = [entry for entry in self._phases if entry[0] != phase]
