"""TensorRT 10.3 to 11.x and TensorRT-RTX: an engine of this machine's own, from the engine cache or built into it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msloc_edge.backends import onnxruntime
from msloc_edge.backends.base import Backend, Films, Outputs, Search, host_batch
from msloc_edge.backends.found import FoundOutputs
from msloc_edge.backends.tensorrt.builder import Settings, build
from msloc_edge.backends.tensorrt.building import BuildingBackend
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.kernels import find_kernels
from msloc_edge.backends.tensorrt.key import DLA, Batch, Key, graph_of
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, TensorRTLibrary
from msloc_edge.backends.tensorrt.memory import choose_mapped
from msloc_edge.backends.tensorrt.plan import Plan
from msloc_edge.backends.tensorrt.progress import LOG, Lines
from msloc_edge.backends.tensorrt.session import Lease, Session
from msloc_edge.backends.tensorrt.window import DeviceFilm, DeviceWindow
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.cuda.on_device import OnDevice, is_on_device, on_device
from msloc_edge.cuda.providers import Provider, open_provider
from msloc_edge.cuda.streams import open_stream
from msloc_edge.errors import BackendError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.fuse import Maps
from msloc_edge.types import Frame


@dataclass(frozen=True, slots=True, eq=False)
class HeatmapOutputs(FoundOutputs):
    """Outputs of an engine that fuses the maps itself; those of the wanted classes are copied."""

    heatmaps: Lease | None = None

    def fuse(self, image: int, classes: Sequence[int]) -> Maps:
        assert self.heatmaps
        maps = [self.heatmaps.fetch(image, k) for k in classes]
        return Maps(np.stack(maps) if maps else np.empty((0, *self.bundle.input_size), np.float32))


class TensorRTBackend(Backend):
    """A bundle's engine on a CUDA device."""

    def __init__(
        self, bundle: Bundle, library: TensorRTLibrary, plan: Plan, ordinal: int, cache: Cache, mapped: bool = False
    ) -> None:
        """Open the engine of a plan.

        cache   keeps what is compiled of the plan
        mapped  host and device share memory; else films and results are copied

        Raises BackendError as `Session` and `open_stream` do.
        """
        self.name = library.name
        self._bundle, self._key, self._ordinal = bundle, plan.key, ordinal
        self._window: DeviceWindow | None = None
        stream = open_stream(ordinal, mapped)
        try:
            self._session = Session(library, plan, stream, cache.kernels(plan.key, stream.sm))
        except BackendError:
            stream.close()
            raise
        self._host_because = self._use_kernels()

    def _use_kernels(self) -> str | None:
        """Window films and locate findings on the device, where its kernels are; else say why the host does."""
        try:
            kernels = find_kernels(self._bundle, self._ordinal)
        except BackendError as error:
            return str(error)
        self._window = DeviceWindow(kernels.window, self._ordinal, self._session.stream.mapped)
        self._session.locate(self._bundle, kernels.locate)
        return None

    def preprocess(self, frame: Frame, geometry: Geometry) -> ArrayLike:
        return self._window(frame, geometry) if self._window else super().preprocess(frame, geometry)

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        if isinstance(films, (list, tuple)) and films and all(isinstance(film, DeviceFilm) for film in films):
            return self._run(films, search)
        if not is_on_device(films):
            return self._run(host_batch(films), search)
        with on_device(films, self._session.stream, self._ordinal) as batch:
            return self._run(batch, search)

    def _run(self, batch: NDArray[np.float32] | OnDevice | Sequence[DeviceFilm], search: Search | None) -> FoundOutputs:
        session = self._session
        shape = batch.shape if isinstance(batch, (np.ndarray, OnDevice)) else (len(batch), 1, *batch[0].shape)
        if shape[1:] != session.shape or shape[0] not in session.batches:
            min_batch, max_batch = session.batches.start, session.batches.stop - 1
            raise BackendError(
                "backend_failed",
                f"{self.name} failed on a batch of shape {shape}: expected {min_batch} to {max_batch} films of "
                f"{session.shape}; for larger batches export with --batch",
            )
        arrays, found, heatmaps, timing_ms = session.run(batch, search)
        cams = tuple(arrays[name] for name in sorted(arrays) if name.startswith("cams_"))
        if heatmaps:
            return HeatmapOutputs(self._bundle, arrays["logits"], cams, search, timing_ms, found, heatmaps)
        return FoundOutputs(self._bundle, arrays["logits"], cams, search, timing_ms, found)

    def describe(self) -> Mapping[str, str]:
        key = self._key
        facts = {
            "engine": self.name,
            "version": key.version,
            "device": f"cuda:{self._ordinal}" if key.dla is None else f"{DLA}:{key.dla}",
            "precision": key.precision,
            "graph": key.graph,
            "driver": self._session.stream.provider,
            "memory": "mapped" if self._session.stream.mapped else "copied",
        }
        if self._session.eager_because:
            facts["eager_because"] = self._session.eager_because
        if self._host_because:
            facts["host_because"] = self._host_because
        return facts

    def close(self) -> None:
        if self._window:
            self._window.close()
        self._session.close()


def load(
    library: TensorRTLibrary,
    bundle: Bundle,
    device: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
) -> Backend:
    """Load a bundle on cuda (default) or cuda:N, or on dla:CORE of an Orin; see `load_backend`.

    fp32 is built on first use, while onnxruntime serves with `threads`; fp16 and int8 need films for their gate, and
    are exported: `msloc-edge export target MODEL OUT --target tensorrt --precision fp16` puts its engine into the
    cache, too. So are engines of the accelerator (--dla CORE). An engine of TensorRT-RTX is built without a GPU, and
    compiled for this one when it is loaded.
    """
    ordinal, dla = _device(library, device or "cuda")
    if dla is not None and precision == "fp32":
        raise BackendError(
            "backend_device", f"{library.name}: expected a precision of fp16, int8 for {device}, got {precision!r}"
        )
    version, provider = library.version(), open_provider(ordinal)
    sm = library.built_for(provider.sm)
    cache, key = Cache(), Key(bundle.sha256, library.name, version, sm, precision, graph_of(dla), Batch())
    if ready := _from_cache(library, bundle, cache, key, ordinal, provider):
        return ready
    if precision != "fp32":
        target = library.name.replace("_", "-")
        extra = "" if dla is None else f" --dla {dla} --batch 1:1:1"
        raise BackendError(
            "plan_missing",
            f"{library.name}: no {precision} engine of {bundle.name} for {device or 'this machine'}; make it: "
            f"msloc-edge export target {bundle.path} OUT --target {target} --precision {precision}{extra}",
        )
    what = f"{library.title} {version}, {bundle.name}"

    def make(cancelled: threading.Event) -> Backend:
        build_plan = partial(_build, library, bundle, cache, key, provider, what, cancelled)
        return _open(library, bundle, cache, cache.get(key, build_plan, cancelled), ordinal, provider)

    def serve(while_building: bool) -> Backend:
        # More threads would disturb the times of kernels by which the builder chooses.
        return onnxruntime.load(bundle, threads=1 if while_building else threads)

    return BuildingBackend(serve, what, make)


load_tensorrt = partial(load, TENSORRT)
load_tensorrt_rtx = partial(load, TENSORRT_RTX)


def _from_cache(
    library: TensorRTLibrary, bundle: Bundle, cache: Cache, key: Key, ordinal: int, provider: Provider
) -> Backend | None:
    """The backend of a plan that is there; one of this machine that the library does not take is moved aside."""
    if not (plan := cache.find_any(key)):
        return None
    try:
        return _open(library, bundle, cache, plan, ordinal, provider)
    except BackendError as error:
        if error.reason != "build_failed":
            raise
        LOG.warning("%s", error)
        if plan.key.machine == key.machine:  # another one's, compatible in name, may be of use there
            cache.refuse(plan.key, "deserialise")
        return None


def _open(
    library: TensorRTLibrary, bundle: Bundle, cache: Cache, plan: Plan, ordinal: int, provider: Provider
) -> Backend:
    """Open a plan; on an integrated GPU with the memory that is faster there, which the first start measures."""

    def make(mapped: bool) -> Backend:
        return TensorRTBackend(bundle, library, plan, ordinal, cache, mapped)

    if not provider.integrated:
        return make(False)
    return make(choose_mapped(make, bundle, cache.memory(plan.key, provider.sm)))


def _build(
    library: TensorRTLibrary,
    bundle: Bundle,
    cache: Cache,
    key: Key,
    provider: Provider,
    what: str,
    cancelled: threading.Event,
) -> Plan:
    LOG.warning("%s: building the engine; onnxruntime serves until it is ready", what)
    model, timing = bundle.read(ONNX), cache.timing(library, key.version, key.sm)
    with provider.current():  # the library builds for the device of the context
        built = build(library, model, bundle.input_size, Settings(key.batch), Lines(what), timing, cancelled)
    LOG.warning("%s: the engine is ready after %.0f s", what, built.seconds)
    return built.plan(key)


def _device(library: TensorRTLibrary, device: str) -> tuple[int, int | None]:
    """The N of cuda:N, or device 0 and the core of dla:CORE. Raises BackendError (backend_device)."""
    kind, _, number = device.partition(":")
    kinds = ("cuda", DLA) if library is TENSORRT else ("cuda",)
    if kind not in kinds or not (number or "0").isdecimal():
        examples = " or ".join(f"{one}:0" for one in kinds)
        raise BackendError("backend_device", f"{library.name}: expected a device such as {examples}, got {device!r}")
    return (0, int(number or 0)) if kind == DLA else (int(number or 0), None)
