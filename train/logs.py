"""Words of a run: progress with speed and time left, a line for each epoch, history.csv, TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from msloc_edge.model import CamNet
from msloc_edge.train.checkpoint import Run
from msloc_edge.train.data import Films
from msloc_edge.train.events import Events, example_maps
from msloc_edge.train.validate import Validation

PROBLEMS_SHOWN = 5


class Speed(ProgressColumn):
    """Films per second, of tasks that say how many films a step has."""

    def render(self, task: Task) -> Text:
        films = task.fields.get("films")
        return Text(f"{films * task.speed:.1f} films/s" if films and task.speed else "")


class Journal:
    """The voice of a run, on stderr and in its folder. Ranks other than the first say and write nothing."""

    def __init__(self, run: Run, quiet: bool, first: bool) -> None:
        self.run, self.writes, self.quiet = run, first, quiet or not first
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Speed(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=self.quiet or not self.console.is_terminal,
            transient=True,
        )
        self._events: Events | None = None

    def __enter__(self) -> Journal:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self._events:
            self._events.close()

    def say(self, text: str) -> None:
        """Say a line to whoever watches."""
        if not self.quiet:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def problems(self, sources: Sequence[Films]) -> None:
        """Name what was left out of each source."""
        for source in sources:
            if source.problems:
                shown = "".join(f"\n  {problem}" for problem in source.problems[:PROBLEMS_SHOWN])
                self.say(f"{source.source}: {len(source.problems)} left out, such as{shown}")

    def steps(self, losses: Iterable[float], title: str, steps: int, films: int) -> Iterator[float]:
        """Pass on the losses of an epoch's steps, of so many films each, with a bar that moves along."""
        task = self.progress.add_task(title, total=steps, films=films)
        for loss in losses:
            yield loss
            self.progress.advance(task)
        self.progress.remove_task(task)

    def epoch(self, row: Mapping[str, float], checked: Validation, net: CamNet, judged: Sequence[Films]) -> None:
        """Write a row of the table of epochs, which begins with the epoch counted from 1, its curves and pictures."""
        self.say("  ".join(f"{name} {value}" for name, value in row.items()))
        if not self.writes:
            return
        self.run.log(row)
        (_, number), *curves = row.items()
        if self._events is None:
            self._events = Events(self.run.folder / "tensorboard", int(number))
        auroc = zip(net.config.classes, checked.auroc.tolist(), strict=True)
        per_class = {f"auroc/{label}": value for label, value in auroc if np.isfinite(value)}
        self._events.scalars({**dict(curves), **per_class}, int(number))
        if self._events.wanted:
            self._events.picture(example_maps(net, judged), int(number))
