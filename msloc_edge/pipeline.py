"""One film from file to boxes, and many films with the backend always busy.

    decode -> preprocess -> network -> fuse -> localize
    file      window, letterbox     wanted classes   threshold, boxes, peak, back to image pixels

Everything but the backend is the same for all backends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from msloc_edge._ordered import OVERTAKE_S, Ahead, map_ahead
from msloc_edge.backends import DEFAULT_BACKEND, Backend, Outputs, Search, load_backend
from msloc_edge.bundle import DEFAULT_MODEL, Bundle
from msloc_edge.cuda.on_device import DeviceArray, is_on_device
from msloc_edge.cuda.pixels import frame_on_device
from msloc_edge.errors import BackendError, InputError, InternalError, MslocError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.preprocess import Prepared, looks_inverted
from msloc_edge.imaging.reading import decode_frame, frame_from_array, read_frame
from msloc_edge.maps.boxes import to_boxes, to_peak
from msloc_edge.maps.regions import Located
from msloc_edge.result import LazyMapping, Result
from msloc_edge.types import FilmGate, Finding, Frame, OperatingPoint

AnyFilm = Union[str, Path, bytes, NDArray[Any], DeviceArray, Frame]  # noqa: UP007 - Python 3.10 cannot join them all
"""A film file, its content, an array of stored pixels on the host or on a CUDA device, or a Frame."""

Film = TypeVar("Film")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome(Generic[Film]):
    """Outcome of one film of many: the prepared film and its result, or the error."""

    film: Film
    prepared: Prepared | None = None
    result: Result | None = None
    error: MslocError | None = None


class Localizer:
    """A model in a backend. Films in, Results out.

    model        a bundle folder or the name of a model
    backend      name of a backend; or a Backend with the model in it, for which device, precision and threads are void
    device       as the backend names it; None takes its default
    profile      name of the thresholds that decide; None takes the bundle's default
    all_classes  localize every class, not only the positive ones
    input_gate   ask the bundle's input gate, and refuse what it and the profile do not let through; False localizes
                 every picture, as is right for films that were looked at before
    threads      at most so many for the network on a CPU; None lets the backend choose
    precision    arithmetic of the network: fp32, or another that the backend has
    lanes        batches that run beside each other, where the backend can (`Backend.concurrent`): as many as there are
                 cores, of one thread each, give a stream of films its highest rate, and each film a longer wait

    One Localizer may be shared between threads: they decode and find boxes beside each other, and take turns at the
    backend. Use it in a `with` statement, or close it; results can be looked at afterwards.

    Raises BundleError, BackendError and DependencyError when it cannot be set up.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        backend: str | Backend = DEFAULT_BACKEND,
        device: str | None = None,
        profile: str | None = None,
        all_classes: bool = False,
        threads: int | None = None,
        precision: str = "fp32",
        input_gate: bool = True,
        lanes: int = 1,
    ) -> None:
        self.bundle = Bundle.open(model)
        self.input_gate = self.bundle.input_gate if input_gate else None
        self.profile = self.bundle.profile(profile)
        self.operating_point = OperatingPoint(
            profile or self.bundle.default_profile, self.profile.normals_flagged, self.profile.rates
        )
        self.all_classes = all_classes
        if isinstance(backend, Backend):
            self.backend = backend
        else:
            self.backend = load_backend(backend, self.bundle, device, precision, threads)
        self._lanes = lanes if self.backend.concurrent else 1
        self._turns = threading.Semaphore(self._lanes)
        self._closed = False

    def __enter__(self) -> Localizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the backend, when what runs in it has ended; closing twice does nothing."""
        with ExitStack() as turns:
            for _ in range(self._lanes):
                turns.enter_context(self._turns)
            if not self._closed:
                self._closed = True
                self.backend.close()

    def localize(self, film: AnyFilm) -> Result:
        """Localize one film: a file, its bytes, an array of stored pixels, or a Frame.

        Raises InputError for a bad film, BackendError (backend_failed, backend_closed).
        """
        return self.run([self.prepare(film)])[0]

    def localize_batch(self, films: Iterable[AnyFilm]) -> list[Result]:
        """Localize films as one batch: one run of the backend. Raises as `localize` does, for the first bad film.

        Many films, of which some may be bad, go through `stream`.
        """
        return self.run([self.prepare(film) for film in films])

    def prepare(self, film: AnyFilm, frame: int | None = None) -> Prepared:
        """Read, window and letterbox one film; `frame` chooses one of several in a file, from 1."""
        clock = _Clock()
        if isinstance(film, Frame):
            read = film
        elif isinstance(film, bytes):
            read = decode_frame(film, "-", frame=frame)
        elif isinstance(film, (str, Path)):
            read = read_frame(film, frame=frame)
        elif is_on_device(film):
            read = frame_on_device(film)
        elif hasattr(type(film), "__array__") or hasattr(type(film), "__array_interface__"):  # arrays, PIL images
            read = frame_from_array(film)
        else:
            raise InputError("not_an_image", f"expected a path, bytes, an array or a Frame, got {type(film).__name__}")
        clock.lap("decode")
        height, width = read.pixels.shape
        geometry = Geometry.fit((height, width), self.bundle.input_size)
        fitted = self.backend.preprocess(read, geometry)
        clock.lap("preprocess")
        return Prepared(read, fitted, geometry, clock.laps)

    def run(self, films: Sequence[Prepared]) -> list[Result]:
        """Run the backend over prepared films as one batch, and localize each."""
        if not films:
            return []
        outputs, timing_ms = self._infer(films)
        return [self._result(film, outputs, at, timing_ms) for at, film in enumerate(films)]

    def _infer(self, films: Sequence[Prepared]) -> tuple[Outputs, Mapping[str, float]]:
        """Outputs of a batch, and the backend's milliseconds per film, by stage."""
        inputs = [film.input for film in films]
        search = Search([film.geometry.content for film in films], self.profile.map)
        with self._turns:
            if self._closed:
                raise BackendError(
                    "backend_closed", "expected an open Localizer, got one that was closed; make a new one"
                )
            clock = _Clock()
            outputs = self.backend.run(inputs, search)
            clock.lap("network")
        if not np.isfinite(outputs.logits).all():  # they would compare as below every threshold: a normal film
            raise BackendError(
                "backend_failed",
                f"{self.backend.name}: expected finite logits, got infinity or nan; use precision fp32",
            )
        stages = outputs.timing_ms or clock.laps
        return outputs, {stage: ms / len(films) for stage, ms in stages.items()}

    def _result(self, film: Prepared, outputs: Outputs, at: int, timing_ms: Mapping[str, float]) -> Result:
        warnings = self._warnings(film)
        refused = self.profile.refusal(warnings) if self.input_gate else None
        result = Result(
            input=film.frame.name,
            sha256=film.frame.sha256,
            model=self.bundle.id,
            backend=self.backend.name,
            geometry=film.geometry,
            findings=(),
            warnings=warnings,
            timing_ms={**film.timing_ms, **timing_ms},
            map_thresholds=self.map_thresholds,
            film=film.frame,
            operating_point=self.operating_point,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            uids=film.frame.uids,
            refused=refused,
        )
        return result if refused else self._localized(result, outputs, at)

    def _warnings(self, film: Prepared) -> tuple[str, ...]:
        """Reason codes of a film: those of its header, then what its pixels say."""
        shown = np.asarray(film.input)[film.geometry.content]
        if self.input_gate:
            seen = self.input_gate.judge(shown, min(film.geometry.scale))
        else:
            seen = ("polarity_suspect",) if looks_inverted(shown) else ()
        return tuple(dict.fromkeys(film.frame.warnings + seen))

    def _localized(self, result: Result, outputs: Outputs, at: int) -> Result:
        """Add the findings to the result of a film, number `at` of the batch."""
        clock, bundle, geometry = _Clock(), self.bundle, result.geometry
        scores = bundle.probabilities(outputs.logits[at])
        gate = self._gate(outputs.logits[at])
        passes = gate is None or gate.positive
        candidates = passes & self.profile.reached(scores)
        wanted = list(range(len(scores))) if self.all_classes else np.flatnonzero(candidates).tolist()
        labels, content = [bundle.classes[k] for k in wanted], geometry.content
        found = dict(zip(wanted, outputs.regions(at, wanted, clock.lap), strict=True))
        findings = tuple(
            self._finding(k, score, found.get(k), geometry, passes) for k, score in enumerate(scores.tolist())
        )
        clock.lap("localize")
        return replace(
            result,
            findings=findings,
            timing_ms={**result.timing_ms, **clock.laps},
            maps=LazyMapping(labels, lambda j: outputs.map(at, wanted[j])[content]),
            stage_maps=LazyMapping(labels, lambda j: outputs.stage_maps(at, wanted[j])),
            gate=gate,
        )

    def _gate(self, logits: NDArray[np.float32]) -> FilmGate | None:
        abnormal = self.bundle.abnormal_probability(logits)
        return None if abnormal is None else FilmGate(float(abnormal), self.profile.film)

    def _finding(self, k: int, score: float, located: Located | None, geometry: Geometry, passes: bool) -> Finding:
        """A finding of a film that `passes` the gate or not; one that was not localized is not positive."""
        label, threshold, rule = self.bundle.classes[k], self.profile.score[k], self.bundle.regions
        finding = Finding(label, score, threshold, False, tuple(self.bundle.relevance[k].tolist()))
        if located is None:
            return finding
        boxes = to_boxes(
            located.regions,
            self.profile.map[k],
            score,
            geometry,
            label,
            min_area=rule.min_area,
            min_share=rule.min_share,
        )
        positive = passes and score >= threshold and bool(boxes)
        return replace(finding, positive=positive, peak=to_peak(located, geometry), boxes=boxes)

    def stream(
        self,
        films: Iterable[Film],
        load: Callable[[Film], Prepared] | None = None,
        batch: int = 1,
        workers: int = 2,
    ) -> Generator[Outcome[Film], None, None]:
        """Localize many films in order: while the backend runs batches of `batch`, `workers` threads load ahead and one
        finds the boxes of a batch before.

        `load` makes a Prepared of what `films` holds; without it they are what `localize` takes. A film that cannot be
        localized has its error in its Outcome. An outcome comes out as soon as it is there, and a film that takes
        seconds to load is overtaken by those after it. At most (lanes + 4) * batch + workers films are in memory,
        however many there are. When it is closed early, the films that were not begun are not loaded.
        """
        ready: list[tuple[Film, Prepared | MslocError]] = []
        localizing: deque[Future[list[Outcome[Film]]]] = deque()
        late = False  # nothing came for a while: a batch that is not full goes, too
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="load") as loaders,
            ThreadPoolExecutor(self._lanes + 1, thread_name_prefix="localize") as localizers,
            closing(Ahead(loaders, guarded(load or self._prepare), films)) as loading,
        ):
            while True:
                loading.fill(batch + workers - len(ready))
                ready += loading.take()
                full = len(localizing) > self._lanes + 1
                if localizing and localizing[0].done():
                    yield from localizing.popleft().result()
                elif not full and (len(ready) >= batch or (ready and (late or not loading.running))):
                    localizing.append(localizers.submit(self._localize_group, ready[:batch]))
                    del ready[:batch]
                    late = False
                elif loading.running or localizing:
                    next_done: list[Future[Any]] = [*islice(localizing, 1), *([] if full else loading.running)]
                    late = not wait(next_done, OVERTAKE_S, FIRST_COMPLETED).done
                    del next_done  # they hold films
                else:
                    return

    def _localize_group(self, films: list[tuple[Film, Prepared | MslocError]]) -> list[Outcome[Film]]:
        """Run the backend once over those of some films that are prepared, and localize each."""
        good = [item for _, item in films if isinstance(item, Prepared)]
        found = guarded(self._infer)(good) if good else None
        outcomes: list[Outcome[Film]] = []
        at = count()
        for film, item in films:
            if isinstance(item, MslocError):
                outcomes.append(Outcome(film, error=item))
            elif isinstance(found, tuple):
                outputs, timing_ms = found
                outcomes.append(Outcome(film, item, self._result(item, outputs, next(at), timing_ms)))
            else:
                outcomes.append(Outcome(film, error=found))
        return outcomes

    def _prepare(self, film: Film) -> Prepared:
        return self.prepare(film)  # type: ignore[arg-type] # what is no film at all, prepare refuses

    @property
    def map_thresholds(self) -> dict[str, float]:
        """The profile's absolute map threshold of each class, logit units."""
        return dict(zip(self.bundle.classes, self.profile.map, strict=True))


class _Clock:
    """Milliseconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> float:
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now
        return self.laps[name]


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Film], Item], films: Iterable[Film], ahead: int
) -> Generator[tuple[Film, Item | MslocError], None, None]:
    """Run `work` over films in a pool, at most `ahead` at a time, and yield (film, result or error) in their order."""
    return map_ahead(pool, guarded(work), films, ahead)


def guarded(work: Callable[[Film], Item]) -> Callable[[Film], Item | MslocError]:
    """Make `work` return its errors, so that one film cannot stop the others: an expected one as it is, any other as a
    named one, whatever a foreign library raises. KeyboardInterrupt and SystemExit go through."""

    def guard(film: Film) -> Item | MslocError:
        try:
            return work(film)
        except MslocError as error:
            return error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except MemoryError:
            return InputError(
                "too_large", "expected a film that fits into the memory that is free; free some, or use a smaller batch"
            )
        except BaseException as error:  # a panic of a library in Rust is no Exception
            return InternalError(
                "internal_error", f"unexpected {type(error).__name__}: {error}; please report this film"
            )

    return guard
