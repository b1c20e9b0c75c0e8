"""One film from file to boxes, and many films with the engine always busy.

    read -> window -> letterbox -> engine -> fuse the wanted classes -> threshold, boxes, peak -> back to image pixels

Everything but the engine is the same for all backends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends import DEFAULT_BACKEND, Outputs, load_backend
from msloc_edge.bundle import DEFAULT_MODEL, Bundle
from msloc_edge.errors import InputError, MslocError
from msloc_edge.geometry import Geometry
from msloc_edge.localize import find_boxes, find_peak
from msloc_edge.preprocess import Prepared, looks_inverted
from msloc_edge.reading import decode_frame, frame_from_array, read_frame
from msloc_edge.types import Finding, Frame, Result

Film = TypeVar("Film")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome(Generic[Film]):
    """What became of one film of many: the prepared film and its result, or the error."""

    film: Film
    prepared: Prepared | None = None
    result: Result | None = None
    error: MslocError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Group(Generic[Film]):
    """The films of one engine run, each prepared or failed, and what the engine gave for the prepared ones."""

    films: list[tuple[Film, Prepared | MslocError]]
    outputs: Outputs | MslocError | None
    engine_ms: float = 0.0


class Localizer:
    """A model in an engine. Films in, Results out.

    model        a bundle folder or the name of a shipped model
    backend      onnxruntime, openvino or torch; device as the backend names it
    profile      which thresholds decide; None takes the bundle's default
    all_classes  localize every class, not only the positive ones

    Raises BundleError and BackendError when it cannot be set up.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        backend: str = DEFAULT_BACKEND,
        device: str | None = None,
        profile: str | None = None,
        all_classes: bool = False,
    ) -> None:
        self.bundle = Bundle.open(model)
        self.profile = self.bundle.profile(profile)
        self.all_classes = all_classes
        self._backend = load_backend(backend, self.bundle, device)

    def __enter__(self) -> Localizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine."""
        self._backend.close()

    def localize(self, film: str | Path | NDArray[np.uint8] | NDArray[np.uint16] | Frame) -> Result:
        """Localize one film: a file, an array of stored pixels, or a Frame. Raises InputError for a bad film."""
        prepared = self.prepare(film)
        return self.run([prepared])[0]

    def prepare(
        self, film: str | Path | bytes | NDArray[np.uint8] | NDArray[np.uint16] | Frame, frame: int | None = None
    ) -> Prepared:
        """Read, window and letterbox one film; bytes are the content of a file. Safe in any thread."""
        clock = _Clock()
        if isinstance(film, Frame):
            read = film
        elif isinstance(film, np.ndarray):
            read = frame_from_array(film)
        elif isinstance(film, bytes):
            read = decode_frame(film, "-", frame=frame)
        else:
            read = read_frame(film, frame=frame)
        clock.lap("read")
        display = read.display()
        clock.lap("window")
        height, width = display.shape
        geometry = Geometry.fit((height, width), self.bundle.input_size)
        fitted = geometry.letterbox(display)
        clock.lap("letterbox")
        suspect = ("polarity_suspect",) if looks_inverted(fitted[geometry.content]) else ()
        return Prepared(read, display, fitted, geometry, read.warnings + suspect, clock.laps)

    def run(self, films: Sequence[Prepared]) -> list[Result]:
        """Run the engine over prepared films as one batch, and localize each."""
        outputs, engine_ms = self._infer(films)
        return [self._result(film, outputs, at, engine_ms) for at, film in enumerate(films)]

    def _infer(self, films: Sequence[Prepared]) -> tuple[Outputs, float]:
        """Outputs of a batch, and the engine's milliseconds per film."""
        clock = _Clock()
        outputs = self._backend.run(np.stack([film.input for film in films])[:, None])
        return outputs, clock.lap("engine") / len(films)

    def _result(self, film: Prepared, outputs: Outputs, at: int, engine_ms: float) -> Result:
        clock, bundle = _Clock(), self.bundle
        scores = bundle.probabilities(outputs.logits[at])
        positive = scores >= np.array(self.profile.score)
        wanted = [k for k in range(len(bundle.classes)) if self.all_classes or positive[k]]
        content = film.geometry.content
        fused = outputs.fuse(at, bundle.relevance, bundle.input_size, wanted)[:, content[0], content[1]]
        clock.lap("fuse")
        maps = dict(zip(wanted, fused, strict=True))
        findings = tuple(
            Finding(
                label=label,
                score=float(scores[k]),
                threshold=self.profile.score[k],
                positive=bool(positive[k]),
                relevance=tuple(float(w) for w in bundle.relevance[k]),
                peak=find_peak(maps[k], film.geometry) if k in maps else None,
                boxes=find_boxes(maps[k], self.profile.map[k], float(scores[k]), film.geometry) if k in maps else (),
            )
            for k, label in enumerate(bundle.classes)
        )
        clock.lap("localize")
        return Result(
            input=film.frame.name,
            sha256=film.frame.sha256,
            model=bundle.id,
            backend=self._backend.name,
            geometry=film.geometry,
            findings=findings,
            warnings=film.warnings,
            timing_ms={**film.timing_ms, "engine": engine_ms, **clock.laps},
            maps={bundle.classes[k]: localization_map for k, localization_map in maps.items()},
            stage_maps={bundle.classes[k]: tuple(cam[at, k] for cam in outputs.cams) for k in wanted},
        )

    def stream(
        self, films: Iterable[Film], load: Callable[[Film], Prepared], batch: int = 1, workers: int = 2
    ) -> Generator[Outcome[Film], None, None]:
        """Localize many films in order: while the engine runs batches of `batch`, `workers` threads load ahead and one
        finds the boxes of the batch before.

        A film that cannot be localized has its error in its Outcome. At most 5 * batch + workers films are in memory,
        however many there are. When it is closed early, the films that were not begun are not loaded.
        """
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="load") as loaders,
            ThreadPoolExecutor(1, thread_name_prefix="localize") as localizers,
            closing(in_order(loaders, load, films, ahead=batch + workers)) as loaded,
            closing(self._run_groups(loaded, batch)) as groups,
            closing(in_order(localizers, self._outcomes, groups, ahead=2)) as localized,
        ):
            for group, outcomes in localized:
                if isinstance(outcomes, MslocError):
                    yield from (Outcome(film, error=outcomes) for film, _ in group.films)
                else:
                    yield from outcomes

    def _run_groups(
        self, loaded: Iterator[tuple[Film, Prepared | MslocError]], batch: int
    ) -> Generator[_Group[Film], None, None]:
        while films := list(islice(loaded, batch)):
            good = [item for _, item in films if isinstance(item, Prepared)]
            try:
                yield _Group(films, *(self._infer(good) if good else (None, 0.0)))
            except MslocError as error:
                yield _Group(films, error)
            except Exception as error:
                yield _Group(films, _unexpected(error))
            films, good = [], []  # they go before the next are waited for

    def _outcomes(self, group: _Group[Film]) -> list[Outcome[Film]]:
        outcomes: list[Outcome[Film]] = []
        at = count()
        for film, item in group.films:
            if isinstance(item, MslocError):
                outcomes.append(Outcome(film, error=item))
            elif isinstance(group.outputs, Outputs):
                outcomes.append(Outcome(film, item, self._result(item, group.outputs, next(at), group.engine_ms)))
            else:
                outcomes.append(Outcome(film, error=group.outputs))
        return outcomes

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
    """Run `work` over films in a pool, at most `ahead` at a time, and yield (film, result or error) in their order.

    An error that nobody expected becomes a named one, so that one film cannot stop the others.
    """

    def guarded(film: Film) -> Item | MslocError:
        try:
            return work(film)
        except MslocError as error:
            return error
        except Exception as error:
            return _unexpected(error)

    waiting: deque[tuple[Film, Future[Item | MslocError]]] = deque()
    source = iter(films)
    try:
        waiting.extend((film, pool.submit(guarded, film)) for film in islice(source, ahead))
        while waiting:
            film, future = waiting.popleft()
            done = future.result()
            waiting.extend((film, pool.submit(guarded, film)) for film in islice(source, 1))
            yield film, done
    finally:
        for _, future in waiting:
            future.cancel()


def _unexpected(error: Exception) -> InputError:
    return InputError("internal_error", f"unexpected {type(error).__name__}: {error}; please report this film")
