"""A benchmark: measurements as one JSON object (schema "msloc-edge/bench/1")."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends.base import STEPS as DEVICE_STEPS
from msloc_edge.bench import SCOPES, scopes
from msloc_edge.bench.classifier import bare_classifier
from msloc_edge.bench.cold import STEPS, cold_start
from msloc_edge.bench.meters import find_meters
from msloc_edge.bench.scenarios import (
    Clock,
    Effort,
    Run,
    Target,
    alternating,
    fixed_rate,
    multi_stream,
    offline,
    single_stream,
)
from msloc_edge.bench.statistics import paired_ratio, summarize
from msloc_edge.bench.telemetry import Telemetry
from msloc_edge.doctor.machine import environment
from msloc_edge.errors import InputError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.pipeline import Localizer

SCHEMA = "msloc-edge/bench/1"
MAX_PREPARED = 32
"""Films that are held ready for the kernel and the network; from files, all are read."""

STAGES = ("decode", "preprocess", *DEVICE_STEPS, "fuse", "localize", "write")
"""Stages of a film in order; those of a device exist where the backend has one of its own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a benchmark: which scenarios follows from streams, batches and rate.

    scopes       what is timed, of SCOPES; () takes all that the backend has
    streams      clients at the same time, each number a measurement; 1 is single-stream
    batches      offline: films of a batch, each number a measurement
    rate         fixed-rate: films a second, deadline_ms since arrival; None: not measured
    cold         fresh processes for the cold start
    """

    model: str
    backend: str
    device: str | None
    precision: str
    threads: int | None
    profile: str | None
    all_classes: bool
    scopes: tuple[str, ...]
    effort: Effort
    batches: tuple[int, ...]
    streams: tuple[int, ...]
    workers: int
    rate: float | None
    deadline_ms: float | None
    compare_classifier: bool
    cold: int


def bench(plan: Plan, files: Sequence[Path], films: str, command: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure a plan on film files. `films` and `command` say in the result what they were, `say` what is going on.

    Raises what Localizer raises, BackendError of the bare classifier, and InputError (option_invalid) for a scope that
    the backend does not have.
    """
    clock = Clock()
    begun = datetime.now(timezone.utc)
    found, absent = find_meters()
    with ExitStack() as stack:
        localizer = stack.enter_context(_open(plan, plan.threads))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lines = stack.enter_context(FileIO(folder / "lines.jsonl", "w"))
        telemetry = stack.enter_context(Telemetry(found, clock))
        machine = environment()
        workbench = _Workbench(plan, localizer, files, lines, telemetry, clock, machine["cores"])
        result: dict[str, Any] = {
            "schema": SCHEMA,
            "time": begun.isoformat(timespec="seconds"),
            "command": command,
            "environment": machine,
            "model": asdict(localizer.bundle.id),
            "backend": dict(localizer.backend.describe()),
            "films": {"what": films, "files": len(files)},
            "settings": {**asdict(workbench.plan), "model": localizer.bundle.name},
            "meters_absent": absent,
            "harness_overhead_ms": harness_overhead_ms(clock),
            "cold_start_ms": _cold(plan, localizer.bundle.path, files[0], say),
            "first_image_ms": workbench.first_image_ms,
        }
        rows = []
        for what, measure in workbench.measurements():
            say(what)
            rows.append(measure())
        result["measurements"] = rows
        if plan.compare_classifier:
            say("compared with the bare classifier")
            result["classifier"] = workbench.compared(
                bare_classifier(localizer.bundle, plan.backend, plan.device, folder, plan.threads, plan.precision)
            )
            result["localization_overhead_ratio"] = result["classifier"]["network"]["ratio"]["value"]
    return result


def harness_overhead_ms(clock: Clock) -> float:
    """Measure what measuring itself adds to a film: the median latency of a target that does nothing."""
    idle = single_stream(lambda at: {}, Effort(2000, 5.0, 100), clock)
    return round(float(np.median(idle.latency_ms)), 6)


def _open(plan: Plan, threads: int | None) -> Localizer:
    localizer = Localizer(
        plan.model, plan.backend, plan.device, plan.profile, plan.all_classes, threads, plan.precision
    )
    localizer.backend.wait()
    return localizer


def _with_scopes(plan: Plan, localizer: Localizer, film: Prepared) -> Plan:
    """Choose all scopes that the backend has where none was asked for, and refuse one that it does not have."""
    if plan.scopes and "device" not in plan.scopes:
        return plan
    if scopes.has_device(localizer, film):
        return replace(plan, scopes=plan.scopes or SCOPES)
    if plan.scopes:
        because = localizer.backend.describe().get("host_because")
        raise InputError(
            "option_invalid",
            f"--scope device: expected a backend that windows films on a device, got {localizer.backend.name}"
            f"{f' ({because})' if because else ''}; use --backend tensorrt, or torch with --device cuda",
        )
    return replace(plan, scopes=tuple(scope for scope in SCOPES if scope != "device"))


def _cold(plan: Plan, model: Path, film: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Time the steps of fresh processes: step -> median, min and max milliseconds."""
    if not plan.cold:
        return None
    runs = []
    for number in range(plan.cold):
        say(f"cold start {number + 1} of {plan.cold}")
        runs.append(cold_start(model, plan.backend, plan.device, plan.precision, film))
    return {
        step: dict(zip(("median", "min", "max"), _spread([run[step] for run in runs]), strict=True))
        for step in (*STEPS, "total")
    }


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(of(values)), 3) for of in (np.median, min, max))


class _Workbench:
    """A localizer with films, and the measurements that the plan asks of them."""

    def __init__(
        self,
        plan: Plan,
        localizer: Localizer,
        files: Sequence[Path],
        lines: FileIO,
        telemetry: Telemetry,
        clock: Clock,
        cores: int,
    ) -> None:
        self._localizer, self._files, self._lines = localizer, files, lines
        self._telemetry, self._clock, self._cores = telemetry, clock, cores
        first = single_stream(scopes.end_to_end(localizer, files, lines, clock), Effort(1, 60.0, 0), clock)
        self.first_image_ms = round(float(first.latency_ms[0]), 3)
        self._films: list[Prepared] = [localizer.prepare(file) for file in files[:MAX_PREPARED]]
        self.plan = _with_scopes(plan, localizer, self._films[0])

    def measurements(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Name each measurement, and give the function that does it."""
        plan = self.plan
        for scope in plan.scopes if 1 in plan.streams else ():
            yield f"single-stream, {scope}", partial(self._single_stream, scope)
        for streams in plan.streams:
            for scope in plan.scopes if streams > 1 else ():
                yield f"multi-stream, {scope}, {streams} streams", partial(self._multi_stream, scope, streams)
        for scope in plan.scopes:
            for batch in plan.batches if scope != "kernel" else ():
                yield f"offline, {scope}, batch {batch}", partial(self._offline, scope, batch)
        for scope in plan.scopes if plan.rate else ():
            yield f"fixed-rate, {scope}", partial(self._fixed_rate, scope)

    def compared(self, classifier: Any) -> dict[str, Any]:
        """Time localization and the bare classifier, film by film in turns: from model input, and from the file."""
        localizer, films, files, lines, clock = self._localizer, self._films, self._files, self._lines, self._clock
        pairs: dict[str, tuple[Target, Target]] = {
            "network": (scopes.from_input(localizer, films), scopes.network(classifier, films)),
            "end-to-end": (
                scopes.end_to_end(localizer, files, lines, clock),
                scopes.classify(localizer, classifier, files, lines, clock),
            ),
        }
        rows = {}
        for scope, targets in pairs.items():
            ours, theirs = alternating(targets, self.plan.effort, clock)
            rows[scope] = {
                "localizer_ms": summarize(ours.latency_ms),
                "classifier_ms": summarize(theirs.latency_ms),
                "ratio": paired_ratio(ours.latency_ms, theirs.latency_ms),
            }
        return rows

    def _target(self, localizer: Localizer, scope: str) -> Target:
        if scope == "kernel":
            return scopes.kernel(localizer, self._films)
        if scope == "network":
            return scopes.network(localizer.backend, self._films)
        if scope == "device":
            return scopes.device(localizer, self._films)
        return scopes.end_to_end(localizer, self._files, self._lines, self._clock)

    def _single_stream(self, scope: str) -> dict[str, Any]:
        run = single_stream(self._target(self._localizer, scope), self.plan.effort, self._clock)
        return self._row("single-stream", scope, run)

    def _multi_stream(self, scope: str, streams: int) -> dict[str, Any]:
        threads = self.plan.threads or max(1, self._cores // streams)
        with ExitStack() as stack:
            own = [stack.enter_context(_open(self.plan, threads)) for _ in range(streams)]
            run = multi_stream([self._target(one, scope) for one in own], self.plan.effort, self._clock)
            return self._row("multi-stream", scope, run, streams=streams, threads_each=threads)

    def _fixed_rate(self, scope: str) -> dict[str, Any]:
        rate = self.plan.rate
        assert rate
        deadline = self.plan.deadline_ms or 1e3 / rate
        run = fixed_rate(self._target(self._localizer, scope), rate, deadline, self.plan.effort, self._clock)
        return self._row("fixed-rate", scope, run, rate=rate, deadline_ms=deadline, missed=run.missed)

    def _offline(self, scope: str, batch: int) -> dict[str, Any]:
        run = offline(self._batches(scope, batch), self.plan.effort, self._clock)
        row = self._row("offline", scope, run, batch=batch)
        if scope == "end-to-end":  # films leave the stream a batch at a time: the times between them say little
            row["latency_ms"] = row["samples_ms"] = None
        return row

    def _batches(self, scope: str, batch: int) -> Generator[int, None, None]:
        localizer = self._localizer
        if scope == "network":
            return scopes.network_batches(localizer.backend, self._films, batch)
        if scope == "device":
            return scopes.device_batches(localizer, self._films, batch)
        return scopes.streamed(localizer, self._files, self._lines, batch, self.plan.workers)

    def _row(self, scenario: str, scope: str, run: Run, **facts: Any) -> dict[str, Any]:
        return {
            "scenario": scenario,
            "scope": scope,
            **facts,
            "films": run.films,
            "seconds": round(run.end - run.begin, 4),
            "films_per_s": round(run.films_per_s, 4),
            "latency_ms": summarize(run.latency_ms),
            "stages_ms": {
                name: summarize(run.stages_ms[name][~np.isnan(run.stages_ms[name])])
                for name in STAGES
                if name in run.stages_ms
            },
            "telemetry": self._telemetry.during(run),
            "samples_ms": _rounded(run.latency_ms),
        }


def _rounded(samples: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.round(samples, 4)]
