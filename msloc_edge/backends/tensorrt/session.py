"""Runs of a deserialised engine on a stream: buffers on both sides, and a CUDA graph for each batch size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends.base import Search
from msloc_edge.backends.found import Found
from msloc_edge.backends.lru import LRUCache
from msloc_edge.backends.tensorrt.builder import cannot_start, load_plugins, logger
from msloc_edge.backends.tensorrt.cache import SideFile
from msloc_edge.backends.tensorrt.library import TENSORRT_RTX, TensorRTLibrary
from msloc_edge.backends.tensorrt.locate import LocateKernels, Locator
from msloc_edge.backends.tensorrt.plan import Plan
from msloc_edge.backends.tensorrt.window import DeviceFilm
from msloc_edge.bundle import Bundle
from msloc_edge.cuda.on_device import OnDevice
from msloc_edge.cuda.streams import Buffer, Graph, Stream
from msloc_edge.errors import BackendError

Array = NDArray[np.float32]

MAX_GRAPHS = 4
"""Batch sizes that are kept ready. Each has a context of its own: a graph holds what its context was set to."""

MAX_LINES = 100
"""Lines that are kept of what the library says while it runs, which may be something on every run."""

IMAGE, HEATMAP = "image", "heatmap"


class Lease:
    """A copy of the heatmaps [B, K, H, W] of one run on the device; its memory is used again once nobody has it."""

    def __init__(self, session: Session, shape: tuple[int, ...], address: int) -> None:
        self._session, self._shape, self._address = session, shape, address

    def fetch(self, image: int, k: int) -> Array:
        """Copy the map [H, W] of one class of one image. Raises BackendError (backend_closed)."""
        found = np.empty(self._shape[2:], np.float32)
        self._session.fetch(found, self._address + found.nbytes * (image * self._shape[1] + k))
        return found

    def __del__(self) -> None:
        self._session.pool.append(self._address)


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """Context of a batch size with every address set, the shapes of its tensors, its run, and the search behind it."""

    context: Any
    shapes: dict[str, tuple[int, ...]]
    graph: Graph
    search: Graph | None

    def free(self) -> None:
        for graph in filter(None, (self.graph, self.search)):
            graph.free()


class Run(NamedTuple):
    """Small outputs by name, what was found where it was asked for, heatmaps on the device if any, milliseconds of
    steps."""

    arrays: dict[str, Array]
    found: Found | None
    heatmaps: Lease | None
    timing_ms: dict[str, float]


class _Compiled:
    """Kernels that TensorRT-RTX compiled for this device: its runtime cache, begun with what a file has."""

    def __init__(self, config: Any, file: SideFile) -> None:
        """config  for all contexts of the engine; it gets the cache, which needs the context of the device"""
        self._file, self._data = file, file.read()
        self._cache = config.create_runtime_cache()
        if self._data:
            self._cache.deserialize(self._data)  # it refuses what is not of this device and driver, and begins anew
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the file, if something was compiled."""
        data = bytes(self._cache.serialize())
        if data != self._data:
            self._file.write(data)
            self._data = data


class Session:
    """A plan that is run. `eager_because` says why there is no graph; None: there is one, or nothing has run yet.

    pool  addresses on the device of heatmaps that nobody has any more

    Raises BackendError: build_failed when the library does not take the plan, backend_failed when it is no such
    network, or when the fault is not the plan's: of the driver, or for want of memory.
    """

    def __init__(self, library: TensorRTLibrary, plan: Plan, stream: Stream, kernels: SideFile) -> None:
        """kernels  file of what TensorRT-RTX compiles; TensorRT compiles nothing when it runs"""
        self._trt, self._library, self.stream = library.load(), library, stream
        self.eager_because: str | None = None
        self._locator: Locator | None = None
        self._slots = LRUCache(MAX_GRAPHS, self._make, _Slot.free)
        self._log = logger(self._trt, MAX_LINES)
        with stream.current():
            self._engine = self._deserialise(plan)
            self._scratch, self._scratch_size = stream.allocate(1), 0
            self._config = self._runtime_config() if library is TENSORRT_RTX else None
            self._compiled = _Compiled(self._config, kernels) if self._config else None
            self.names = [self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)]
            if any(self._engine.get_tensor_dtype(name) != self._trt.DataType.FLOAT for name in self.names):
                raise BackendError("backend_failed", f"{plan.key.file}: expected float32 at both ends of the engine")
            smallest, _, largest = self._engine.get_tensor_profile_shape(IMAGE, 0)
            self.batches, self.shape = range(smallest[0], largest[0] + 1), tuple(largest)[1:]
            sizes = {name: prod(shape) for name, shape in self._shapes(largest[0]).items()}
            self._heatmap = stream.allocate(sizes.pop(HEATMAP)) if HEATMAP in sizes else None
            self._buffers: dict[str, Buffer] = {name: stream.buffer(size) for name, size in sizes.items()}
        self.pool: list[int] = []
        self._lock, self._closed = threading.Lock(), False

    def locate(self, bundle: Bundle, kernels: LocateKernels) -> None:
        """From now on find peaks and regions of a run on the device, where it is asked for."""
        with self.stream.current():
            self._locator = Locator(bundle, kernels, self.stream, self.batches.stop - 1)

    def run(self, films: Array | OnDevice | Sequence[DeviceFilm], search: Search | None = None) -> Run:
        """Run films [B, 1, H, W], or B films on the device.

        search  where the device is to look, if it can
        """
        stream, locator = self.stream, self._locator if search else None
        count = films.shape[0] if isinstance(films, (np.ndarray, OnDevice)) else len(films)
        with stream.current():
            slot = self._slots[count, locator is not None]
            on_device = [film for film in films if isinstance(film, DeviceFilm)]
            for film in on_device:
                stream.wait(film.ready)
            marks = {"": stream.mark()}
            self._put(films)
            if locator and search:
                locator.put(search)
            marks["copy_in"] = stream.mark()
            slot.graph.launch()
            marks["network"] = stream.mark()
            if slot.search:
                slot.search.launch()
                marks["locate"] = stream.mark()
            found = {
                name: self._buffers[name].host[: prod(slot.shapes[name])] for name in self._buffers if name != IMAGE
            }
            for name, host in found.items():
                if not self._buffers[name].shared:
                    stream.copy_out(host, self._buffers[name].device)
            if locator:
                locator.fetch(count)
            lease = self._lease(slot.shapes[HEATMAP]) if self._heatmap else None
            marks["copy_out"] = stream.mark()
            stream.synchronize()
            timing_ms = self._times(marks, on_device)
        arrays = {name: host.reshape(slot.shapes[name]).copy() for name, host in found.items()}
        return Run(arrays, locator.found(count) if locator else None, lease, timing_ms)

    def _times(self, marks: dict[str, Any], films: list[DeviceFilm]) -> dict[str, float]:
        """Milliseconds of each step, by the mark behind it; films on the device were copied and windowed before."""
        times = self.stream.times([*marks.values()])
        for mark in marks.values():
            self.stream.forget(mark)
        if not times:
            return {}
        timing_ms = dict(zip([*marks][1:], times, strict=True))
        before = [self.stream.times([*film.begun, film.ready]) for film in films]
        if before:
            copies, windows = (sum(step) for step in zip(*before, strict=True))
            timing_ms = {"copy_in": timing_ms.pop("copy_in") + copies, "window": windows, **timing_ms}
        return timing_ms

    def _put(self, films: Array | OnDevice | Sequence[DeviceFilm]) -> None:
        """Put the copies of a batch to the engine's image on the stream."""
        stream, image = self.stream, self._buffers[IMAGE]
        if isinstance(films, OnDevice):
            stream.copy(image.device, films.address, prod(films.shape))
        elif isinstance(films, np.ndarray):
            image.host[: films.size] = films.ravel()
            if not image.shared:
                stream.copy_in(image.device, image.host[: films.size])
        else:
            size = prod(self.shape)
            for place, film in enumerate(films):
                stream.copy(image.device + 4 * size * place, film.address, size)

    def fetch(self, host: Array, device: int) -> None:
        """Copy to the host, beside the stream, in any thread. Raises BackendError (backend_closed)."""
        with self._lock:
            if self._closed:
                raise BackendError(
                    "backend_closed", "expected an open backend, got maps of one that was closed; ask for them before"
                )
            with self.stream.current():
                self.stream.fetch(host, device)

    def close(self) -> None:
        """Free all that is on the device; closing twice does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with self.stream.current():
                self._slots.clear()
                del self._compiled, self._config, self._engine, self._runtime  # they free memory of this device
            self.stream.close()

    def _deserialise(self, plan: Plan) -> Any:
        try:
            self._runtime = self._trt.Runtime(self._log)
        except Exception as error:  # pybind11 calls a constructor that gives nothing a TypeError
            raise BackendError("backend_failed", cannot_start(self._library, self._trt, self._log)) from error
        if plan.facts.get("version_compatible"):
            self._runtime.engine_host_code_allowed = True  # such a plan brings its runtime; it is of our own cache
        if plan.key.dla is not None:
            self._runtime.DLA_core = plan.key.dla  # else it runs on core 0, whatever it was built for
        if plugins := plan.facts.get("plugin_library"):
            load_plugins(self._runtime.get_plugin_registry(), plugins)
        engine = self._runtime.deserialize_cuda_engine(plan.data)
        if engine is None:
            words = self._log.last_error()
            if "memory" in words.lower():
                raise BackendError("backend_failed", f"{plan.key.file}: no room on the device ({words}); free some")
            raise BackendError(
                "build_failed", f"{self._library.title} {plan.key.version} does not take {plan.key.file}: {words}"
            )
        return engine

    def _lease(self, shape: tuple[int, ...]) -> Lease:
        """Copy the heatmaps to memory of their own: the next run writes where they are."""
        whole = prod(shape) // shape[0] * (self.batches.stop - 1)
        address = self.pool.pop() if self.pool else self.stream.allocate(whole)
        self.stream.copy(address, self._heatmap, prod(shape))  # type: ignore[arg-type] # asked before
        return Lease(self, shape, address)

    def _make(self, key: tuple[int, bool]) -> _Slot:
        """Make what runs a batch size, with the search for regions or without."""
        count, searching = key
        context, shapes = self._context(count), self._shapes(count)
        cams = [self._buffers[name].device for name in sorted(self._buffers) if name.startswith("cams_")]
        for name in self.names:
            address = self._heatmap if name == HEATMAP else self._buffers[name].device
            if not context.set_tensor_address(name, address):
                raise BackendError("backend_failed", f"set_tensor_address failed for {name}: {self._log.last_error()}")

        def enqueue() -> None:
            if not context.execute_async_v3(self.stream.handle):
                raise BackendError("backend_failed", f"execute_async_v3 failed: {self._log.last_error()}")

        enqueue()  # once before a capture: what the library allocates at first, a graph may not
        self.stream.synchronize()
        if self._compiled:
            self._compiled.keep()
        locator = self._locator if searching else None
        search = self._captured(partial(locator.enqueue, count, cams)) if locator else None
        return _Slot(context, shapes, self._captured(enqueue), search)

    def _captured(self, work: Callable[[], None]) -> Graph:
        """Work in a graph of its own, so that the host can have events between two; put on the stream if it must."""
        try:
            return self.stream.capture(work)
        except BackendError as error:
            self.eager_because = str(error)
            return Graph(work, lambda: None)

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors for so many films: their first side is the batch, and the others are fixed."""
        return {name: (count, *tuple(self._engine.get_tensor_shape(name))[1:]) for name in self.names}

    def _context(self, count: int) -> Any:
        how = self._config or self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(how)
        if context is None or not context.set_input_shape(IMAGE, (count, *self.shape)):
            raise BackendError("backend_failed", f"no context for {count} films: {self._log.last_error()}")
        self._give_scratch(context)
        return context

    def _give_scratch(self, context: Any) -> None:
        """Give a context the memory for its layers: one for all contexts, as only one runs at a time, and no larger
        than the largest batch that came needs."""
        size = context.update_device_memory_size_for_shapes() or self._engine.device_memory_size_v2
        if size > self._scratch_size:
            self._slots.clear()  # their graphs have the address of the smaller one
            self.stream.free(self._scratch)
            self._scratch, self._scratch_size = self.stream.allocate(-(-size // 4)), size
        context.set_device_memory(self._scratch, self._scratch_size)

    def _runtime_config(self) -> Any:
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # Compiled at once: a graph would keep the slower kernels that serve until those of its shape are there.
        eager = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        return config
