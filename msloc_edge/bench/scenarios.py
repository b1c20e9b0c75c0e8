"""Arrival of films: one after the other, from several clients, all at once, at a fixed rate.

    single-stream  the next film is begun when the last one is done: latency
    multi-stream   N clients at the same time, each with an engine of its own and its share of the cores
    offline        all films are there at once: throughput
    fixed-rate     films arrive at fixed times whether or not the last one is done: latency since *arrival*, deadlines
                   missed. A film that waits because the one before was slow counts as slow ("coordinated omission"
                   would hide it)

The names are MLPerf Inference's (https://arxiv.org/abs/1911.02549), whose server scenario has random arrivals; those of
an X-ray device are regular.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Barrier, BrokenBarrierError

import numpy as np
from numpy.typing import NDArray

Target = Callable[[int], Mapping[str, float]]
"""Does the work for the film of that number (they repeat), and returns stage -> milliseconds."""


class Clock:
    """The machine's monotonic clock; in tests one that stands still until it is told to go on."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.perf_counter()

    def sleep(self, until: float) -> None:
        """Return at `until`, or at once when that has passed. The last half millisecond is waited for awake: a sleep
        alone returns up to some tenths of a millisecond late, which would count as latency."""
        while (rest := until - self.now()) > 0:
            if rest > 1e-3:
                time.sleep(rest - 5e-4)


@dataclass(frozen=True, slots=True)
class Effort:
    """Length of a measurement: `films` or `seconds`, what ends first; the first `warmup` films do not count."""

    films: int
    seconds: float
    warmup: int

    def __post_init__(self) -> None:
        if self.films < 1 or self.warmup < 0 or self.seconds <= 0:
            raise ValueError(f"expected at least one film, some time, and no negative warm-up, got {self}")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Figures of a measurement: latencies [N] in milliseconds, in order; each stage's [N], NaN where it said nothing.

    begin and end are the clock's seconds; `missed` counts latencies above the deadline.
    """

    latency_ms: NDArray[np.float64]
    begin: float
    end: float
    films: int
    stages_ms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    missed: int | None = None

    @property
    def films_per_s(self) -> float:
        return self.films / (self.end - self.begin)


def single_stream(target: Target, effort: Effort, clock: Clock) -> Run:
    """Measure the latency of one film at a time."""
    for at in range(effort.warmup):
        target(at)
    log = _Log()
    begin = now = clock.now()
    while len(log.latency_ms) < effort.films and now - begin < effort.seconds:
        before = clock.now()
        stages = target(effort.warmup + len(log.latency_ms))
        now = clock.now()
        log.add((now - before) * 1e3, stages)
    return log.run(begin, now)


def alternating(targets: Sequence[Target], effort: Effort, clock: Clock) -> list[Run]:
    """Run single streams of several targets in turns, film by film, each time in another order: fit to be compared."""
    for at in range(effort.warmup):
        for target in targets:
            target(at)
    latency: list[list[float]] = [[] for _ in targets]
    draw = np.random.default_rng(0)
    begin = now = clock.now()
    while len(latency[0]) < effort.films and now - begin < effort.seconds:
        at = effort.warmup + len(latency[0])
        for number in draw.permutation(len(targets)):
            before = clock.now()
            targets[number](at)
            now = clock.now()
            latency[number].append((now - before) * 1e3)
    return [Run(np.array(own), begin, now, len(own)) for own in latency]


def multi_stream(targets: Sequence[Target], effort: Effort, clock: Clock) -> Run:
    """Measure one client for each target, all at the same time. Their latencies are put together."""
    ready = Barrier(len(targets))
    share = Effort(-(-effort.films // len(targets)), effort.seconds, 0)

    def client(target: Target) -> Run:
        try:
            for at in range(effort.warmup):
                target(at)
        except BaseException:
            ready.abort()  # the others would wait for this one without an end
            raise
        ready.wait()
        return single_stream(target, share, clock)

    with ThreadPoolExecutor(len(targets)) as pool:
        clients = [pool.submit(client, target) for target in targets]
    failed = sorted(filter(None, (one.exception() for one in clients)), key=lambda e: isinstance(e, BrokenBarrierError))
    if failed:
        raise failed[0]
    runs = [one.result() for one in clients]
    names = {name for run in runs for name in run.stages_ms}
    return Run(
        np.concatenate([run.latency_ms for run in runs]),
        min(run.begin for run in runs),
        max(run.end for run in runs),
        sum(run.films for run in runs),
        {name: np.concatenate([run.stages_ms[name] for run in runs if name in run.stages_ms]) for name in names},
    )


def fixed_rate(target: Target, rate: float, deadline_ms: float, effort: Effort, clock: Clock) -> Run:
    """Measure films that arrive `rate` times a second: latency since arrival, missed if above `deadline_ms`."""
    for at in range(effort.warmup):
        target(at)
    log = _Log()
    begin = now = clock.now()
    for number in range(min(effort.films, int(effort.seconds * rate) + 1)):
        arrival = begin + number / rate
        clock.sleep(arrival)
        stages = target(effort.warmup + number)
        now = clock.now()
        log.add((now - arrival) * 1e3, stages)
    end = max(now, begin + len(log.latency_ms) / rate)  # the last film's interval counts too, or the rate seems higher
    run = log.run(begin, end)
    return replace(run, missed=int(np.count_nonzero(run.latency_ms > deadline_ms)))


def offline(work: Generator[int, None, None], effort: Effort, clock: Clock) -> Run:
    """Measure the throughput of endless work that yields, whenever some films are done, how many.

    Its latencies are the times between two yields; `work` is closed at the end.
    """
    latency, films, warming = [], 0, 0
    begin = before = clock.now()
    with closing(work):
        for done in work:
            now = clock.now()
            if warming < effort.warmup:
                warming += done
                begin = before = now
                continue
            films += done
            latency.append((now - before) * 1e3)
            before = now
            if films >= effort.films or now - begin >= effort.seconds:
                break
    return Run(np.array(latency), begin, before, films)


class _Log:
    """Latencies and stages, eight bytes each: what the harness keeps must not look like a leak of what it measures."""

    def __init__(self) -> None:
        self.latency_ms = array("d")
        self._stages: dict[str, array[float]] = {}

    def add(self, latency_ms: float, stages: Mapping[str, float]) -> None:
        for name, ms in stages.items():
            column = self._stages.setdefault(name, array("d"))
            column.extend([math.nan] * (len(self.latency_ms) - len(column)))
            column.append(ms)
        self.latency_ms.append(latency_ms)

    def run(self, begin: float, end: float) -> Run:
        count = len(self.latency_ms)
        for column in self._stages.values():
            column.extend([math.nan] * (count - len(column)))
        stages = {name: np.array(column) for name, column in self._stages.items()}
        return Run(np.array(self.latency_ms), begin, end, count, stages)
