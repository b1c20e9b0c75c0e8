"""What the scenarios report, on a clock that stands still: planted delays must come out as they were planted."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msloc_edge import Localizer
from msloc_edge.backends import Backend, Outputs, Search
from msloc_edge.backends.base import Films
from msloc_edge.bench import scopes
from msloc_edge.bench.run import harness_overhead_ms
from msloc_edge.bench.scenarios import Clock, Effort, alternating, fixed_rate, multi_stream, offline, single_stream
from msloc_edge.bench.statistics import summarize
from msloc_edge.train.phantom import generate

FOREVER = 1e9


class Planted(Backend):
    """An engine of another's outputs that takes, on the test's clock, as long as it is told."""

    name = "planted"

    def __init__(self, other: Backend, clock: Any, delays_ms: NDArray[np.float64]) -> None:
        self._other, self._clock, self._delays = other, clock, iter(delays_ms)

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        self._clock.work(next(self._delays))
        return self._other.run(films, search)

    def describe(self) -> Mapping[str, str]:
        return {"engine": self.name, "version": "0", "device": "none"}


def test_planted_delays_are_reported_within_their_interval(tiny_bundle: Path, clock: Any) -> None:
    """Through a real Localizer: gamma-distributed delays of the engine, whose quantiles are known."""
    delays = 20 + np.random.default_rng(1).gamma(3.0, 4.0, 440)
    truth = np.quantile(20 + np.random.default_rng(6).gamma(3.0, 4.0, 1_000_000), [0.5, 0.9])
    with Localizer(tiny_bundle, threads=1) as usual:
        planted = Localizer(tiny_bundle, Planted(usual.backend, clock, delays))
        film = planted.prepare(generate(1, 64).stored)
        run = single_stream(scopes.from_input(planted, [film]), Effort(400, FOREVER, 40), clock)
    assert run.latency_ms == pytest.approx(delays[40:], abs=1e-6), "the first 40 are warm-up"
    found = summarize(run.latency_ms)
    for name, value in zip(("p50", "p90"), truth, strict=True):
        assert found[name]["low"] <= value <= found[name]["high"], name
    assert run.films_per_s == pytest.approx(400 / delays[40:].sum() * 1e3)
    assert {"network", "fuse", "localize"} <= set(run.stages_ms)


def test_the_harness_adds_less_than_a_tenth_of_a_millisecond() -> None:
    assert min(harness_overhead_ms(Clock()) for _ in range(3)) < 0.1


def working(clock: Any, *delays_ms: float) -> Any:
    """A target that takes one delay after the other, and says so."""
    left = iter(delays_ms)

    def run(at: int) -> Mapping[str, float]:
        ms = next(left)
        clock.work(ms)
        return {"network": ms / 2}

    return run


def test_single_stream_ends_by_films_or_by_time(clock: Any) -> None:
    run = single_stream(working(clock, 7, 1, 2, 3), Effort(3, FOREVER, 1), clock)
    assert run.latency_ms == pytest.approx([1, 2, 3])
    assert run.stages_ms["network"] == pytest.approx([0.5, 1, 1.5])
    assert (run.films, run.end - run.begin) == (3, pytest.approx(0.006))
    run = single_stream(working(clock, 400, 400, 400, 400), Effort(100, 1.0, 0), clock)
    assert run.films == 3  # the third began before the second was over, and is finished


def test_a_late_film_makes_those_behind_it_late(clock: Any) -> None:
    """10 a second; the second takes 250 ms: the third and fourth, of 20 ms, arrive while it runs and wait."""
    run = fixed_rate(working(clock, 20, 250, 20, 20, 20, 20), 10, 100, Effort(6, FOREVER, 0), clock)
    assert run.latency_ms == pytest.approx([20, 250, 170, 90, 20, 20])
    assert run.missed == 2
    assert run.films_per_s == pytest.approx(10)


def test_a_device_that_is_too_slow_falls_behind(clock: Any) -> None:
    run = fixed_rate(working(clock, *[200.0] * 10), 10, 150, Effort(10, FOREVER, 0), clock)
    assert run.latency_ms == pytest.approx([200 + 100 * n for n in range(10)])
    assert (run.missed, run.films_per_s) == (10, pytest.approx(5))


def test_fixed_rate_ends_by_time(clock: Any) -> None:
    assert fixed_rate(working(clock, *[1.0] * 100), 10, 5, Effort(100, 2.0, 0), clock).films == 21


def test_alternating_gives_each_its_own_and_the_same_films(clock: Any) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    order: list[str] = []

    def target(name: str, ms: float) -> Any:
        def run(at: int) -> Mapping[str, float]:
            seen[name].append(at)
            order.append(name)
            clock.work(ms)
            return {}

        return run

    ours, theirs = alternating([target("a", 3), target("b", 2)], Effort(40, FOREVER, 2), clock)
    assert ours.latency_ms == pytest.approx([3] * 40)
    assert theirs.latency_ms == pytest.approx([2] * 40)
    assert seen["a"] == seen["b"] == list(range(42))
    firsts = order[4::2]
    assert {"a", "b"} == set(firsts), "neither is always the first"


def test_multi_stream_puts_its_clients_together() -> None:
    def client(ms: float) -> Any:
        return lambda at: {"network": ms}

    run = multi_stream([client(1), client(2), client(3)], Effort(30, FOREVER, 1), Clock())
    assert run.films == len(run.latency_ms) == 30
    assert sorted(run.stages_ms["network"]) == [1] * 10 + [2] * 10 + [3] * 10


def test_an_error_in_one_client_ends_all() -> None:
    def broken(at: int) -> Mapping[str, float]:
        raise ValueError("this engine is broken")

    with pytest.raises(ValueError, match="broken"):
        multi_stream([broken, broken], Effort(10, FOREVER, 0), Clock())


def test_an_error_while_warming_up_leaves_no_client_waiting() -> None:
    def broken(at: int) -> Mapping[str, float]:
        raise ValueError("this engine is broken")

    with pytest.raises(ValueError, match="broken"):
        multi_stream([broken, lambda at: {}], Effort(10, 5.0, 1), Clock())


def test_offline_counts_films_and_closes_the_work(clock: Any) -> None:
    closed = False

    def work() -> Generator[int, None, None]:
        nonlocal closed
        try:
            while True:
                clock.work(50)
                yield 4
        finally:
            closed = True

    run = offline(work(), Effort(40, FOREVER, 6), clock)
    assert closed
    assert (run.films, run.films_per_s) == (40, pytest.approx(80))
    assert run.latency_ms == pytest.approx([50] * 10)


def test_effort_refuses_nonsense() -> None:
    for films, seconds, warmup in ((0, 1.0, 0), (1, 0.0, 0), (1, 1.0, -1)):
        with pytest.raises(ValueError, match="expected"):
            Effort(films, seconds, warmup)


def test_the_real_clock_sleeps_until_it_is_time() -> None:
    clock = Clock()
    until = clock.now() + 0.02
    clock.sleep(until)
    assert clock.now() >= until
    clock.sleep(until - 10)  # long past: at once
