"""Films decoded in processes of their own, which hand their pixels on over shared memory.

    program, one thread for each process          process
    line: a Film                              ->  read, window, letterbox
    line: what it is; memory: its pixels      <-  the model's input, or stored pixels where the backend windows

A film that crashes its process, or takes too long, fails alone: the next one gets a new process. Processes end with the
program, however that ends.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from queue import LifoQueue
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends import Backend
from msloc_edge.errors import InputError, MslocError
from msloc_edge.imaging.decoder import unnamed_file
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.imaging.reading import decode_frame, read_frame
from msloc_edge.pipeline import Localizer, guarded
from msloc_edge.score.archive import Film
from msloc_edge.types import Frame

PATIENCE_S = 120.0
"""Seconds after which a film that still decodes has failed."""

_Form = tuple[str, tuple[int, ...]]
"""Type and shape of an array in the memory."""


def read_film(input_size: tuple[int, int] | None, film: Film) -> Prepared | Frame:
    """Read a film where this runs. Raises InputError, and what reading it raises.

    input_size  (height, width) of the model's input, into which it is windowed and letterboxed: Prepared, whose frame
                has no pixels left; None: the stored film, a Frame
    """
    start = time.perf_counter()
    data = film.read()
    frame = read_frame(film.path) if data is None else decode_frame(data, film.input)
    if input_size is None:
        return frame
    decoded = time.perf_counter()
    height, width = frame.pixels.shape
    geometry = Geometry.fit((height, width), input_size)
    fitted = geometry.letterbox(frame.display())
    timing_ms = {"decode": 1e3 * (decoded - start), "preprocess": 1e3 * (time.perf_counter() - decoded)}
    return Prepared(_without_pixels(frame), fitted, geometry, timing_ms)


def _without_pixels(frame: Frame) -> Frame:
    return replace(frame, pixels=np.empty((0, 0), np.uint8), lut=np.empty(0, np.float32))


class _Read(NamedTuple):
    """What a process says of a film: itself without its arrays, and the form of each in the memory."""

    film: Prepared | Frame
    forms: tuple[_Form, ...]


class Feeder:
    """Prepares films for a localizer in `workers` processes: give `load` to `Localizer.stream`, with as many workers.

    Use it in a `with` statement; processes start with the first films.
    """

    def __init__(self, localizer: Localizer, workers: int) -> None:
        self._localizer = localizer
        fits_on_host = type(localizer.backend).preprocess is Backend.preprocess
        self._input_size = localizer.bundle.input_size if fits_on_host else None
        self._idle: LifoQueue[_Process | None] = LifoQueue()
        for _ in range(workers):
            self._idle.put(None)

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while not self._idle.empty():
            if process := self._idle.get():
                process.end()

    def load(self, film: Film) -> Prepared:
        """Prepare one film; waits for a process that is free. Raises InputError, and what reading it raises."""
        process = self._idle.get()
        try:
            if process and not process.runs:
                process.end()
                process = None
            process = process or _Process(self._input_size)
            read = process.ask(film)
        finally:
            self._idle.put(process)
        if isinstance(read, Prepared):
            return read
        return self._localizer.prepare(read)


class _Process:
    """The program's end of one process: the line to it, and the memory that both map."""

    def __init__(self, input_size: tuple[int, int] | None) -> None:
        self._file = unnamed_file()
        context = get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, input_size), daemon=True)
        self._process.start()
        theirs.close()
        send_handle(self._line, self._file, self._process.pid)
        self._memory: mmap.mmap | None = None

    @property
    def runs(self) -> bool:
        return not self._line.closed and self._process.is_alive()

    def ask(self, film: Film) -> Prepared | Frame:
        """Let the process read a film. Raises InputError, and what reading it raises."""
        try:
            self._line.send(film)
            if not self._line.poll(PATIENCE_S):
                self.end()
                raise _undecodable(film, f"it does not decode within {PATIENCE_S:.0f} s")
            answer = self._line.recv()
        except (EOFError, ConnectionError):
            self.end()
            raise _undecodable(film, "it crashes its decoder") from None
        if isinstance(answer, MslocError):
            raise answer
        found, arrays = answer.film, [array.copy() for array in self._arrays(answer.forms)]
        if isinstance(found, Prepared):
            return replace(found, input=arrays[0])
        return replace(found, pixels=arrays[0], lut=arrays[1])

    def _arrays(self, forms: Sequence[_Form]) -> Iterator[NDArray[Any]]:
        size = os.fstat(self._file).st_size
        if self._memory is None or len(self._memory) != size:
            self._memory = mmap.mmap(self._file, size)
        return _views(self._memory, forms)

    def end(self) -> None:
        if not self._line.closed:
            self._line.close()
            self._process.kill()
            self._process.join()
            os.close(self._file)


def _undecodable(film: Film, why: str) -> InputError:
    return InputError("corrupt", f"{film.input}: expected a film, but {why}; export it again.")


def _views(memory: mmap.mmap, forms: Sequence[_Form]) -> Iterator[NDArray[Any]]:
    """The arrays that lie in memory one behind the other, each from a multiple of 64 bytes on."""
    at = 0
    for dtype, shape in forms:
        yield np.frombuffer(memory, dtype, math.prod(shape), at).reshape(shape)
        at += _room(dtype, shape)


def _room(dtype: str, shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 64) * 64


# The process's side


def _serve(line: Connection, input_size: tuple[int, int] | None) -> None:
    """Read the films that come over a line, until it is cut; the first thing to come is the memory's file."""
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # there is a process for each core
    memory = _Memory(recv_handle(line))
    while True:
        try:
            film = line.recv()
        except EOFError:
            return
        found = guarded(partial(read_film, input_size))(film)
        line.send(found if isinstance(found, MslocError) else memory.take(found))


class _Memory:
    """The memory that a process writes arrays into; it grows with the largest film."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._map: mmap.mmap | None = None

    def take(self, film: Prepared | Frame) -> _Read:
        """Move a film's arrays into the memory."""
        if isinstance(film, Prepared):
            return _Read(replace(film, input=()), self._write([np.asarray(film.input)]))
        return _Read(_without_pixels(film), self._write([np.asarray(film.pixels), film.lut]))

    def _write(self, arrays: Sequence[NDArray[Any]]) -> tuple[_Form, ...]:
        forms = tuple((array.dtype.str, array.shape) for array in arrays)
        size = sum(_room(*form) for form in forms)
        if self._map is None or len(self._map) < size:
            os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        for place, array in zip(_views(self._map, forms), arrays, strict=True):
            place[...] = array
        return forms


def _end_with_parent() -> None:
    """End this process when the program has ended, whatever is being decoded."""
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(0)
