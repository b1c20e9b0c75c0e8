"""A stream of a CUDA device, with the memory and the graphs that an engine needs to run on it.

All that belongs to a stream is called inside `provider.current()`.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msloc_edge.cuda.providers import CudaBindings, MissingFunctionError, PyCuda, open_provider
from msloc_edge.errors import BackendError

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """float32 numbers on both sides: in page-locked memory of the host, and at an address on the device.

    shared  there is one memory only, which both sides see: nothing is to be copied
    """

    host: Array
    device: int
    shared: bool


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Work that was captured: `launch` puts all of it on its stream at once, `free` ends it."""

    launch: Callable[[], None]
    free: Callable[[], None]


class Stream(Protocol):
    """A stream of its own beside the default one, and all memory that was asked for through it, until it is closed.

    handle  of the stream, as other libraries take it
    mapped  its buffers are shared: the device reads and writes the host's memory, which a device without memory of its
            own does as fast as its own
    """

    handle: int
    mapped: bool
    sm: int
    provider: str

    def current(self) -> AbstractContextManager[None]:
        """The device's primary context for this thread."""

    def buffer(self, count: int) -> Buffer: ...
    def allocate(self, count: int) -> int: ...
    def free(self, address: int) -> None:
        """Free what was allocated, when what is on the stream is done."""

    def copy_in(self, device: int, host: Array) -> None: ...
    def copy_out(self, host: Array, device: int) -> None: ...
    def copy(self, target: int, source: int, count: int) -> None:
        """Copy on the device. This and the other copies are put on the stream, and not waited for."""

    def fetch(self, host: Array, device: int) -> None:
        """Copy to the host, and wait; beside the stream, from any thread."""

    def mark(self) -> Any:
        """Mark what is on the stream so far; `forget` frees it."""

    def wait(self, mark: Any) -> None:
        """Let what comes wait until another stream has reached its mark; the host does not wait."""

    def reach(self, mark: Any) -> None:
        """Let the host wait until a mark is reached."""

    def forget(self, mark: Any) -> None: ...
    def times(self, marks: Sequence[Any]) -> list[float]:
        """Give the milliseconds between marks that were reached, of any stream; [] where the driver cannot tell."""

    def synchronize(self) -> None: ...
    def wait_for(self, other: int) -> None:
        """Let what comes wait for what another library has put on its stream, by its handle."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """Capture what `work` puts on the stream. Raises BackendError when it cannot be captured."""

    def close(self) -> None:
        """Free its memory, when what is on the stream is done; closing twice does nothing.

        It enters the context itself.
        """


class BindingsStream:
    """A stream by cuda-bindings."""

    def __init__(self, provider: CudaBindings, mapped: bool) -> None:
        self.mapped = mapped
        self.sm, self.provider, self.current = provider.sm, provider.name, provider.current
        self._call, self._driver = provider.call, provider.driver
        self._stream = self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.handle = int(self._stream)
        self._free: list[tuple[str, Any]] = [("cuStreamDestroy", self._stream)]

    def buffer(self, count: int) -> Buffer:
        flags = self._driver.CU_MEMHOSTALLOC_DEVICEMAP if self.mapped else 0
        address = self._call("cuMemHostAlloc", 4 * count, flags)
        self._free.append(("cuMemFreeHost", address))
        host = np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(address)))
        if self.mapped:
            return Buffer(host, int(self._call("cuMemHostGetDevicePointer", address, 0)), True)
        return Buffer(host, self.allocate(count), False)

    def allocate(self, count: int) -> int:
        address = int(self._call("cuMemAlloc", 4 * count))
        self._free.append(("cuMemFree", address))
        return address

    def free(self, address: int) -> None:
        self.synchronize()
        self._free.remove(("cuMemFree", address))
        self._call("cuMemFree", address)

    def copy_in(self, device: int, host: Array) -> None:
        self._call("cuMemcpyHtoDAsync", device, host.ctypes.data, host.nbytes, self._stream)

    def copy_out(self, host: Array, device: int) -> None:
        self._call("cuMemcpyDtoHAsync", host.ctypes.data, device, host.nbytes, self._stream)

    def copy(self, target: int, source: int, count: int) -> None:
        self._call("cuMemcpyDtoDAsync", target, source, 4 * count, self._stream)

    def fetch(self, host: Array, device: int) -> None:
        self._call("cuMemcpyDtoH", host.ctypes.data, device, host.nbytes)

    def mark(self) -> Any:
        event = self._call("cuEventCreate", self._driver.CUevent_flags.CU_EVENT_DEFAULT)
        self._call("cuEventRecord", event, self._stream)
        return event

    def wait(self, mark: Any) -> None:
        self._call("cuStreamWaitEvent", self._stream, mark, 0)

    def reach(self, mark: Any) -> None:
        self._call("cuEventSynchronize", mark)

    def forget(self, mark: Any) -> None:
        self._call("cuEventDestroy", mark)

    def times(self, marks: Sequence[Any]) -> list[float]:
        try:
            return [float(self._call("cuEventElapsedTime", *pair)) for pair in pairwise(marks)]
        except MissingFunctionError:  # cuda-bindings 13 wants that of CUDA 12.8, and JetPack 6 has 12.6
            return []

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def wait_for(self, other: int) -> None:
        event = self._call("cuEventCreate", self._driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        self._call("cuEventRecord", event, other)
        self.wait(event)
        self.forget(event)

    def capture(self, work: Callable[[], None]) -> Graph:
        # Of this thread alone: another may copy a map of the film before meanwhile.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            with contextlib.suppress(BackendError):
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", self._stream))
            raise
        recorded = self._call("cuStreamEndCapture", self._stream)
        try:
            whole = self._call("cuGraphInstantiate", recorded, 0)
        finally:
            self._call("cuGraphDestroy", recorded)
        return Graph(
            lambda: self._call("cuGraphLaunch", whole, self._stream), lambda: self._call("cuGraphExecDestroy", whole)
        )

    def close(self) -> None:
        if not self._free:
            return
        with self.current():
            self.synchronize()
            while self._free:
                self._call(*self._free.pop())


class PyCudaStream:
    """A stream by pycuda, whose objects free themselves. It has no CUDA graphs."""

    def __init__(self, provider: PyCuda, mapped: bool) -> None:
        self.mapped = mapped
        self.sm, self.provider, self.current = provider.sm, provider.name, provider.current
        self._driver = provider.driver
        self._stream = self._driver.Stream()
        self.handle = int(self._stream.handle)
        self._kept: dict[int, Any] = {}

    def buffer(self, count: int) -> Buffer:
        flags = self._driver.host_alloc_flags.DEVICEMAP if self.mapped else 0
        host = self._driver.pagelocked_empty(count, np.float32, mem_flags=flags)
        if self.mapped:
            return Buffer(host, int(host.base.get_device_pointer()), True)
        return Buffer(host, self.allocate(count), False)

    def allocate(self, count: int) -> int:
        memory = self._driver.mem_alloc(4 * count)
        self._kept[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self.synchronize()
        self._kept.pop(address).free()

    def copy_in(self, device: int, host: Array) -> None:
        self._driver.memcpy_htod_async(device, host, self._stream)

    def copy_out(self, host: Array, device: int) -> None:
        self._driver.memcpy_dtoh_async(host, device, self._stream)

    def copy(self, target: int, source: int, count: int) -> None:
        self._driver.memcpy_dtod_async(target, source, 4 * count, self._stream)

    def fetch(self, host: Array, device: int) -> None:
        self._driver.memcpy_dtoh(host, device)

    def mark(self) -> Any:
        return self._driver.Event().record(self._stream)

    def wait(self, mark: Any) -> None:
        self._stream.wait_for_event(mark)

    def reach(self, mark: Any) -> None:
        mark.synchronize()

    def forget(self, mark: Any) -> None:
        """Events of pycuda free themselves."""

    def times(self, marks: Sequence[Any]) -> list[float]:
        return [float(after.time_since(before)) for before, after in pairwise(marks)]

    def synchronize(self) -> None:
        self._stream.synchronize()

    def wait_for(self, other: int) -> None:
        self._driver.Context.synchronize()  # it cannot wrap a stream that is not its own

    def capture(self, work: Callable[[], None]) -> Graph:
        raise BackendError("backend_failed", "pycuda has no CUDA graphs")

    def close(self) -> None:
        with self.current():
            self.synchronize()
            while self._kept:
                self._kept.popitem()[1].free()


STREAMS: Mapping[str, Callable[[Any, bool], Stream]] = {CudaBindings.name: BindingsStream, PyCuda.name: PyCudaStream}
"""Provider -> its stream."""


def open_stream(ordinal: int = 0, mapped: bool = False) -> Stream:
    """Open a stream by cuda-bindings or pycuda, with `mapped` buffers or not. Raises as `open_provider` does."""
    provider = open_provider(ordinal)
    with provider.current():
        return STREAMS[provider.name](provider, mapped)
