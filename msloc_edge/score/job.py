"""A job: the films of an archive that a dataset does not have yet, localized and written part by part."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from msloc_edge.errors import BackendError, InternalError
from msloc_edge.pipeline import Localizer, Outcome
from msloc_edge.score.archive import Film, Shard
from msloc_edge.score.dataset import FAILURES, Dataset, Row, to_row
from msloc_edge.score.feeder import Feeder

GIVE_UP = 20
"""Films in a row that the backend fails on, after which it is the backend that failed, not the films."""

Source = Callable[[Sequence[Film]], Generator[Row, None, None]]
"""Anything that makes a row of each film, in any order: this host's processes, or a cluster's."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Films of a run: localized or refused, failed; and those that the dataset had before."""

    done: int = 0
    failed: int = 0
    before: int = 0


def run(
    dataset: Dataset,
    films: Iterable[Film],
    source: Source,
    shard: Shard,
    part: int = 1000,
    retry: bool = False,
    begin: Callable[[int, int], None] = lambda left, before: None,
    advance: Callable[[], None] = lambda: None,
) -> Counts:
    """Score the films of a shard that the dataset does not have.

    part     rows in a part, at most: what a kill costs
    retry    try the shard's films again that failed in earlier runs
    begin    called once with the films that are left, and those done before
    advance  called for each row

    Raises OutputError, and BackendError or InternalError after GIVE_UP films in a row that failed with it.
    """
    with dataset.claim(shard) as parts:
        parts.rows = part
        if retry:
            dataset.forget_failures(shard)
        known = dataset.inputs()
        own = [film for film in films if shard.holds(film.input)]
        left = [film for film in own if film.input not in known]
        del known
        begin(len(left), len(own) - len(left))
        done = failed = 0
        with closing(source(left)) as rows:
            for row in rows:
                parts.add(row)
                failed += row.table == FAILURES
                done += row.table != FAILURES
                advance()
    return Counts(done, failed, len(own) - len(left))


def on_this_host(localizer: Localizer, workers: int, batch: int, maps: bool) -> Source:
    """Localize films with `workers` processes that decode."""

    def source(films: Sequence[Film]) -> Generator[Row, None, None]:
        with Feeder(localizer, workers) as feeder:
            outcomes = localizer.stream(films, feeder.load, batch, workers)
            with closing(outcomes):
                yield from (to_row(outcome, maps) for outcome in unless_broken(outcomes))

    return source


def unless_broken(outcomes: Iterable[Outcome[Film]]) -> Generator[Outcome[Film], None, None]:
    """Pass outcomes on, until a backend fails on GIVE_UP films in a row: its error is raised, and none of these films
    counts as bad."""
    failed: list[Outcome[Film]] = []
    for outcome in outcomes:
        if isinstance(outcome.error, (BackendError, InternalError)):
            failed.append(outcome)
            if len(failed) == GIVE_UP:
                raise outcome.error
        else:
            yield from failed
            failed = []
            yield outcome
    yield from failed
