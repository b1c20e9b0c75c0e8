"""msloc-edge score: an archive of films in, a dataset of scores and boxes out."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge._tables import counted
from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.cli.inputs import Search
from msloc_edge.cli.options import device_options
from msloc_edge.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from msloc_edge.pipeline import Localizer
    from msloc_edge.score.archive import Shard
    from msloc_edge.score.dataset import Dataset
    from msloc_edge.score.job import Counts, Source

CHOICES = ("uncertain", "flagged", "random")
INSTALL = "pip install 'msloc-edge[score]'"
INSTALL_RAY = "pip install 'msloc-edge[ray]'"
SAY_EVERY_S = 60.0
"""Seconds between lines of progress where no terminal shows a bar."""


def _shard(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(f"expected I/N with I from 1 to N, got {value!r}")
    return int(number), int(count)


@click.command("score")
@click.argument("archive", nargs=-1, metavar="ARCHIVE...")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--model", default=None, help="Name of a model that is here, or bundle folder.  [default: cxr-edge]")
@click.option("--backend", type=click.Choice(list(BACKENDS)), default=DEFAULT_BACKEND, show_default=True)
@device_options
@click.option("--profile", default=None, help="Threshold profile, such as normal-90; `models show` lists them.")
@click.option("--input-gate/--no-input-gate", default=True, help="Refuse what is no frontal chest film.  [default: on]")
@click.option("--maps", is_flag=True, help="Keep the maps of positive findings, as 8-bit pictures.")
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Films per engine call.")
@click.option("--workers", type=click.IntRange(1, 256), default=None, help="Processes that decode.  [default: cores]")
@click.option(
    "--threads", type=click.IntRange(1), default=None, help="Threads of the network on a CPU.  [default: all]"
)
@click.option("--part", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Films in a part.")
@click.option("--shard", metavar="I/N", default="1/1", callback=_shard, help="Only the I-th of N shares.")
@click.option("--retry", is_flag=True, help="Try films again that failed in earlier runs.")
@click.option("--ray", "on_ray", is_flag=True, help="Run on Ray Data: the cluster of RAY_ADDRESS, or this machine.")
@click.option("--select", type=(click.Choice(CHOICES), click.IntRange(1)), default=None, metavar="CHOICE N",
              help="Write a worklist of N films: uncertain, flagged or random.")  # fmt: skip
@click.option("--against", type=click.Path(path_type=Path, file_okay=False), default=None, metavar="DATASET",
              help="Another OUT to compare with.  [default: the films that the model was validated on]")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="No progress and no counts on stderr.")
def command(
    archive: tuple[str, ...],
    out: Path,
    shard: tuple[int, int],
    select: tuple[str, int] | None,
    against: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Score an archive of films into a dataset.

    ARCHIVE is a folder of films or tar shards, a glob, a .tar (WebDataset), or a list: .csv or .parquet with a column
    path, .txt with a path a line. Without ARCHIVE, the dataset that is there is summarized, or selected from.

    OUT gets Parquet parts in films/ and failures/, summary.html and dataset.json. A run goes on where the last one
    ended, however it ended. docs/archive.md has the columns.
    """
    from msloc_edge.cli.console import needing, people

    with needing("score", INSTALL):
        from msloc_edge.score.archive import Shard
        from msloc_edge.score.dataset import Dataset
        from msloc_edge.score.summary import write_summary
        from msloc_edge.score.worklist import write_worklist

    console = people(quiet=quiet)
    other = Dataset.open(against) if against else None
    failed = 0
    if archive:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Slurm's time limit ends as Ctrl-C does: whole parts
        dataset, counts = _score(archive, out, Shard(*shard), console, **options)
        failed = counts.failed
    else:
        dataset = Dataset.open(out)
    summary = write_summary(dataset, other)
    worklist = None
    if select:
        worklist, chosen = write_worklist(dataset, *select)
        console.print(f"{worklist}: {chosen} of {select[1]} {select[0]} films", highlight=False)
    click.echo(json.dumps({"out": str(out), "films": summary["films"], "worklist": worklist and str(worklist)}))
    if failed:
        sys.exit(1)


def _score(
    archive: tuple[str, ...], out: Path, shard: Shard, console: Console, on_ray: bool, maps: bool, retry: bool,
    part: int, batch: int, workers: int | None, **options: Any,
) -> tuple[Dataset, Counts]:  # fmt: skip
    """Score what the dataset does not have."""
    from msloc_edge.bundle import DEFAULT_MODEL
    from msloc_edge.pipeline import Localizer
    from msloc_edge.score.archive import list_films
    from msloc_edge.score.dataset import Dataset
    from msloc_edge.score.job import on_this_host, run

    options["model"] = options["model"] or DEFAULT_MODEL
    settings = {"precision": options["precision"], "input_gate": options["input_gate"], "maps": maps}
    search = Search()
    here: dict[str, Any] = {}
    if on_ray:  # a head has no GPU
        here = {"backend": DEFAULT_BACKEND, "device": None, "precision": "fp32"}
    elif options["backend"] == DEFAULT_BACKEND and options["device"] in (None, "cpu"):
        here = {"threads": 1, "lanes": options["threads"] or _cores()}
    with Localizer(**options | here) as localizer:
        dataset = Dataset.create(out, localizer, settings)
        if on_ray:
            source = _ray_source(options, localizer, workers, batch, maps)
        else:
            source = on_this_host(localizer, workers or _cores(), batch, maps)
        with _Progress(console) as progress:
            films = list_films(_paths(archive, out, search))
            counts = run(dataset, films, source, shard, part, retry, progress.begin, progress.advance)
    before = f", {counts.before} done before" if counts.before else ""
    failed = f", {counts.failed} failed (table failures)" if counts.failed else ""
    console.print(f"{counted(counts.done, 'film')} scored{before}{failed}", highlight=False)
    if search.passed_over:
        console.print(f"{counted(len(search.passed_over), 'file')} in the folders passed over", highlight=False)
    return dataset, counts


def _ray_source(options: dict[str, Any], localizer: Localizer, workers: int | None, batch: int, maps: bool) -> Source:
    from msloc_edge.cli.console import needing

    with needing("score --ray", INSTALL_RAY):
        from msloc_edge.score.on_ray import on_ray
    model = options["model"]
    options = options | {"model": os.path.abspath(model) if os.path.isdir(model) else model}
    return on_ray(options, localizer.bundle.input_size, workers, batch, maps)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _paths(archive: tuple[str, ...], out: Path, search: Search) -> Iterator[str]:
    """Paths of films, manifests and shards; a folder may hold films and shards, and OUT, which is none of it.

    Raises InputError (missing) for what holds nothing: a row of a mistyped path would stay.
    """
    for item in archive:
        if os.path.isdir(item):
            shards = sorted(map(str, Path(item).rglob("*.tar")))
            found = _outside(out, item, search.films_in(Path(item)) + shards)
            search.passed_over = {path: search.passed_over[path] for path in _outside(out, item, search.passed_over)}
            for shard in shards:
                search.passed_over.pop(shard, None)
        else:
            found = list(filter(os.path.lexists, search.expand([item])))
        if not found:
            raise InputError("missing", f"{item}: expected films in an archive, found none; check the path.")
        yield from found


def _outside(out: Path, folder: str, paths: Iterable[str]) -> list[str]:
    """List the paths below a folder that do not lie in OUT."""
    own, whole = out.resolve(), Path(folder).resolve()
    if not own.is_relative_to(whole):
        return list(paths)
    within = Path(folder) / own.relative_to(whole)
    return [path for path in paths if not Path(path).is_relative_to(within)]


class _Progress:
    """Rate and time left: a bar on a terminal, a line a minute in a log."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
            console=console, disable=console.quiet or not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("films", total=None, rate="")
        self._done, self._left = 0, 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._bar.stop()

    def begin(self, left: int, before: int) -> None:
        self._left, self._start = left, time.monotonic()
        self._said = self._start
        self._bar.update(self._task, total=left + before, completed=before)
        self._console.print(f"{counted(left, 'film')} to score, {before} done before", highlight=False)

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        self._bar.update(self._task, advance=1, rate=f"{rate:.1f}/s")
        if self._bar.disable and now - self._said >= SAY_EVERY_S:
            self._said = now
            minutes = (self._left - self._done) / rate / 60
            self._console.print(
                f"{self._done} of {self._left} films, {rate:.1f}/s, {minutes:.0f} min left", highlight=False
            )
