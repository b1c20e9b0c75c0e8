"""Films decoded in other processes are the films that this process decodes, and a process that dies costs one film."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from msloc_edge.backends import Backend, Outputs
from msloc_edge.backends.base import Films, Search
from msloc_edge.errors import InputError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.pipeline import Localizer
from msloc_edge.score import feeder
from msloc_edge.score.archive import Film, list_films
from msloc_edge.score.feeder import Feeder
from msloc_edge.types import Frame


class OwnWindow(Backend):
    """A backend that windows by itself, as one with a device does; it keeps the films that it was given."""

    def __init__(self, inner: Backend) -> None:
        self.inner, self.name, self.frames = inner, inner.name, list[Frame]()

    def preprocess(self, frame: Frame, geometry: Geometry) -> np.ndarray:
        self.frames.append(frame)
        return geometry.letterbox(frame.display())

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        return self.inner.run(films, search)

    def describe(self) -> Mapping[str, str]:
        return self.inner.describe()


def films_of(folder: Path, *names: str) -> list[Film]:
    return [Film(str(folder / name), str(folder / name)) for name in names]


def test_films_are_those_that_this_process_reads(model: Path, made: Path, shard: Path) -> None:
    films = [*films_of(made, "00.png", "11.dcm"), *list(list_films([str(shard)]))[:2]]
    with Localizer(model) as localizer, Feeder(localizer, 1) as processes:
        for film in films:
            here, there = localizer.prepare(film.read() or film.path), processes.load(film)
            np.testing.assert_array_equal(there.input, here.input)
            assert there.geometry == here.geometry
            assert there.frame.sha256 == here.frame.sha256
            assert (there.frame.name, there.frame.uids) == (film.input, here.frame.uids)
            assert set(there.timing_ms) == {"decode", "preprocess"}


def test_a_backend_that_windows_gets_the_stored_film(model: Path, made: Path) -> None:
    with Localizer(model) as plain:
        backend = OwnWindow(plain.backend)
        with Localizer(model, backend) as localizer, Feeder(localizer, 1) as processes:
            for film in films_of(made, "00.png", "11.dcm"):
                expected = plain.prepare(film.path)
                np.testing.assert_array_equal(processes.load(film).input, expected.input)
                np.testing.assert_array_equal(backend.frames[-1].pixels, expected.frame.pixels)
                np.testing.assert_array_equal(backend.frames[-1].lut, expected.frame.lut)
                assert backend.frames[-1].uids == expected.frame.uids


def test_a_stream_keeps_order_and_names_bad_films(model: Path, made: Path) -> None:
    films = films_of(made, "00.png", "bad.png", "01.png", "nowhere.png", "11.dcm")
    with Localizer(model) as localizer, Feeder(localizer, 2) as processes:
        outcomes = list(localizer.stream(films, processes.load, workers=2))
    assert [outcome.film for outcome in outcomes] == films
    reasons = [outcome.error.reason if outcome.error else None for outcome in outcomes]
    assert reasons == [None, "not_an_image", None, "missing", None]


def test_a_process_that_dies_costs_its_film_alone(model: Path, made: Path) -> None:
    first, second = films_of(made, "00.png", "01.png")
    with Localizer(model) as localizer, Feeder(localizer, 1) as processes:
        processes.load(first)
        (process,) = active_children()
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)  # as if it decoded
        killer = threading.Timer(0.2, process.kill)
        killer.start()
        with pytest.raises(InputError, match="crashes its decoder") as caught:
            processes.load(first)
        assert caught.value.reason == "corrupt"
        assert processes.load(second).frame.name == second.input
        (process,) = active_children()
        process.kill()  # while it waits: nobody's fault
        process.join()
        assert processes.load(second).frame.name == second.input
    assert active_children() == []


def test_a_film_that_does_not_end_costs_itself_alone(model: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (film,) = films_of(made, "00.png")
    with Localizer(model) as localizer, Feeder(localizer, 1) as processes:
        processes.load(film)
        (process,) = active_children()
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(feeder, "PATIENCE_S", 0.2)
        with pytest.raises(InputError, match="does not decode within"):
            processes.load(film)
        monkeypatch.undo()
        assert processes.load(film).frame.name == film.input
