"""Films on the device: stored pixels are windowed and fitted into the model's input there, and stay for the network."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from msloc_edge.backends.tensorrt.locate import launch
from msloc_edge.cuda.driver import Kernel
from msloc_edge.cuda.streams import Buffer, Stream, open_stream
from msloc_edge.errors import BackendError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.types import Frame

Array = NDArray[np.float32]

Form = tuple[int, bool]
"""Bytes of a stored pixel, and whether the film is enlarged."""


class DeviceFilm:
    """A film as model's input [H, W] on the device, and on its way to the host: the input gate looks at every film.

    address  of the film on the device; what reads it there waits for `ready`
    begun    marks before its pixels are copied, and after
    """

    def __init__(
        self,
        window: DeviceWindow,
        buffer: Buffer,
        shape: tuple[int, int],
        stream: Stream,
        frame: Frame,
        begun: tuple[Any, Any],
    ) -> None:
        """Put the copy to the host on the stream.

        stream  writes the film, and then its copy on the host
        frame   kept as long as this: its pixels may be on the device, and are read there
        """
        self._window, self.shape, self._frame, self.begun = window, shape, frame, begun
        self.buffer, self.stream, self.address, self.ready = buffer, stream, buffer.device, stream.mark()
        if not buffer.shared:
            stream.copy_out(buffer.host, buffer.device)
        self.copied = stream.mark()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return self._window.fetch(self).astype(dtype or np.float32, copy=False)

    def __del__(self) -> None:
        self._window.take_back(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """What a film needs on its way: a stream, and memory for its stored pixels and its table."""

    stream: Stream
    buffers: dict[str, Buffer] = field(default_factory=dict)


class DeviceWindow:
    """Window and letterbox on the device.

    Films that are loaded at a time have a lane each: the copies and the kernel of the next film run beside the network
    of this one.
    """

    def __init__(self, kernels: Mapping[Form, Kernel], ordinal: int, mapped: bool) -> None:
        self._kernels, self._ordinal, self._mapped = kernels, ordinal, mapped
        self._lock = threading.RLock()  # a film may end while its thread has it
        self._closed = False
        self._lanes: list[_Lane] = []
        self._free: list[_Lane] = []
        self._buffers: list[Buffer] = []  # of films that nobody has any more

    def __call__(self, frame: Frame, geometry: Geometry) -> DeviceFilm:
        """Put the work on a film on a stream, and wait for nothing but the film before on it."""
        shape = geometry.input_height, geometry.input_width
        with self._lane() as lane, lane.stream.current():
            lane.stream.synchronize()  # the pixels of the film before may still be read
            enlarges = geometry.width > geometry.image_width or geometry.height > geometry.image_height
            numbers = geometry.to_dict() | {"last": len(frame.lut) - 1}
            with self._borrowed(lane, frame) as there:
                buffer, begin = self._buffer(lane.stream, prod(shape)), lane.stream.mark()
                numbers["pixels"] = _filled(lane, "pixels", np.asarray(frame.pixels)) if there is None else there
                numbers |= {"table": _filled(lane, "table", frame.lut), "output": buffer.device}
                begun = begin, lane.stream.mark()
                launch(self._kernels[frame.pixels.itemsize, enlarges], numbers, lane.stream)
            return DeviceFilm(self, buffer, shape, lane.stream, frame, begun)

    def fetch(self, film: DeviceFilm) -> Array:
        """Give a film's copy on the host, when it is there. Raises BackendError (backend_closed)."""
        with self._lock:
            if self._closed:
                raise BackendError("backend_closed", "expected an open backend, got a film of one that was closed")
            with film.stream.current():
                film.stream.reach(film.copied)
            return film.buffer.host[: prod(film.shape)].reshape(film.shape).copy()

    def take_back(self, film: DeviceFilm) -> None:
        """Use the memory of a film again, which nobody has any more, when what is on its way has come."""
        with film.stream.current():
            film.stream.reach(film.copied)
            for mark in (*film.begun, film.ready, film.copied):
                film.stream.forget(mark)
        with self._lock:
            self._buffers.append(film.buffer)

    def close(self) -> None:
        """Free all memory; closing twice does nothing."""
        with self._lock:
            self._closed = True
            for lane in self._lanes:
                lane.stream.close()

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        """A lane that no other thread is on."""
        with self._lock:
            if not self._free:
                self._lanes.append(_Lane(open_stream(self._ordinal, self._mapped)))
                self._free.append(self._lanes[-1])
            lane = self._free.pop()
        try:
            yield lane
        finally:
            with self._lock:
                self._free.append(lane)

    @contextmanager
    def _borrowed(self, lane: _Lane, frame: Frame) -> Iterator[int | None]:
        """Address of a film's stored pixels where they are on the device already; None: they are on the host."""
        if isinstance(frame.pixels, np.ndarray):
            yield None
        else:
            with frame.pixels.borrow(lane.stream, self._ordinal) as found:
                yield found.address

    def _buffer(self, stream: Stream, size: int) -> Buffer:
        with self._lock:
            return self._buffers.pop() if self._buffers else stream.buffer(size)


def _filled(lane: _Lane, name: str, data: NDArray[Any]) -> int:
    """Copy an array to the lane's memory of that name, by way of page-locked memory; its address there."""
    count = -(-data.nbytes // 4)
    buffer = lane.buffers.get(name)
    if buffer is None or len(buffer.host) < count:
        buffer = lane.buffers[name] = lane.stream.buffer(1 << (count - 1).bit_length())
    buffer.host.view(data.dtype)[: data.size] = data.ravel()
    if not buffer.shared:
        lane.stream.copy_in(buffer.device, buffer.host[:count])
    return buffer.device
