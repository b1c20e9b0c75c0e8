"""TensorRT 10.3 to 11.x and TensorRT-RTX: an engine of this machine's own, from the engine cache or built into it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends.base import Backend, Outputs
from msloc_edge.backends.onnxruntime import OnnxRuntimeBackend
from msloc_edge.backends.tensorrt.builder import Settings, build
from msloc_edge.backends.tensorrt.building import BuildingBackend
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, Flavour
from msloc_edge.backends.tensorrt.plan import Plan
from msloc_edge.backends.tensorrt.progress import LOG, Lines
from msloc_edge.backends.tensorrt.session import Lease, Session
from msloc_edge.bundle import Bundle
from msloc_edge.cuda.on_device import OnDevice, on_device
from msloc_edge.cuda.providers import open_provider
from msloc_edge.cuda.streams import open_stream
from msloc_edge.errors import BackendError
from msloc_edge.maps.fuse import Maps

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True, eq=False)
class HeatmapOutputs(Outputs):
    """Maps that the engine itself fused; those of the wanted classes are copied. They live until it is closed."""

    heatmaps: Lease | None = None

    def maps(self, image: int, relevance: NDArray[np.float32], size: tuple[int, int], classes: Sequence[int]) -> Maps:
        assert self.heatmaps
        maps = [self.heatmaps.fetch(image, k) for k in classes]
        return Maps(np.stack(maps) if maps else np.empty((0, *size), np.float32))


class TensorRtBackend(Backend):
    """device: cuda (default), cuda:N, and after a comma a precision, as in cuda:0,fp16.

    fp32 is built on first use, while onnxruntime serves; fp16 and int8 need films for their gate, and are exported:
    `msloc-edge export MODEL OUT --target tensorrt --precision fp16` puts its engine into the cache, too.
    """

    flavour: ClassVar[Flavour] = TENSORRT
    name = TENSORRT.name

    def __init__(self, session: Session, ordinal: int, facts: Mapping[str, str]) -> None:
        self._session, self._ordinal, self._facts = session, ordinal, facts

    @classmethod
    def load(cls, bundle: Bundle, device: str | None = None, threads: int | None = None) -> Backend:
        ordinal, precision = _parse(cls.name, device or "cuda")
        version = cls.flavour.version()
        provider = open_provider(ordinal)
        sm = cls.flavour.built_for(provider.sm)
        cache, key = Cache(), Key(bundle.sha256, cls.name, version, sm, precision, "network", Batch())
        if plan := cache.find_any(key):
            try:
                return cls._of(plan, ordinal)
            except BackendError as error:
                if error.reason != "build_failed":
                    raise
                LOG.warning("%s", error)
                cache.refuse(plan.key, "deserialise")
        if precision != "fp32":
            target = cls.name.replace("_", "-")
            raise BackendError(
                "plan_missing",
                f"{cls.name}: no {precision} engine of {bundle.name} for this machine; make it: "
                f"msloc-edge export {bundle.path} OUT --target {target} --precision {precision}",
            )
        what = f"{cls.flavour.title} {version}, {bundle.name}"

        def make(cancelled: threading.Event) -> Backend:
            def build_plan() -> Plan:
                LOG.warning("%s: building the engine; onnxruntime serves until it is ready", what)
                model, timing = bundle.onnx.read_bytes(), cache.timing(cls.flavour, version, sm)
                settings, watch = Settings(key.batch), Lines(what)
                with provider.current():  # the library builds for the device of the context
                    built = build(cls.flavour, model, bundle.input_size, settings, watch, timing, cancelled)
                LOG.warning("%s: the engine is ready after %.0f s", what, built.seconds)
                return built.plan(key)

            return cls._of(cache.get(key, build_plan, cancelled), ordinal)

        return BuildingBackend(OnnxRuntimeBackend.load(bundle, None, threads), what, make)

    @classmethod
    def _of(cls, plan: Plan, ordinal: int) -> TensorRtBackend:
        stream = open_stream(ordinal)
        try:
            session = Session(cls.flavour, plan, stream)
        except BackendError:
            stream.close()
            raise
        facts = {
            "engine": cls.name,
            "version": plan.key.version,
            "device": f"cuda:{ordinal}",
            "precision": plan.key.precision,
            "graph": plan.key.graph,
            "driver": stream.provider,
        }
        return cls(session, ordinal, facts)

    def run(self, batch: NDArray[np.float32]) -> Outputs:
        return self._run(batch)

    def run_device(self, films: Any) -> Outputs:
        """As `run`, for films on the device: contiguous float32 [B, 1, H, W] in any object with DLPack (torch, CuPy) or
        the CUDA array interface (numba).
        """
        with on_device(films, self._session.stream, self._ordinal) as found:
            return self._run(found)

    def _run(self, batch: NDArray[np.float32] | OnDevice) -> Outputs:
        session = self._session
        if batch.shape[1:] != session.shape or batch.shape[0] not in session.batches:
            least, most = session.batches.start, session.batches.stop - 1
            raise BackendError(
                "backend_failed",
                f"{self.name} failed on a batch of shape {batch.shape}: expected {least} to {most} films of "
                f"{session.shape}; for larger batches export with --batch",
            )
        arrays, lease, timing_ms = session.run(batch)
        cams = tuple(arrays[name] for name in sorted(arrays) if name.startswith("cams_"))
        if lease:
            return HeatmapOutputs(arrays["logits"], cams, timing_ms, lease)
        return Outputs(arrays["logits"], cams, timing_ms)

    def describe(self) -> Mapping[str, str]:
        facts = dict(self._facts)
        if self._session.eager_because:
            facts["eager_because"] = self._session.eager_because
        return facts

    def close(self) -> None:
        self._session.close()


class TensorRtRtxBackend(TensorRtBackend):
    """As TensorRtBackend; its engines are built without a GPU, and compiled for this one when they are loaded."""

    flavour = TENSORRT_RTX
    name = TENSORRT_RTX.name


def _parse(backend: str, device: str) -> tuple[int, str]:
    """Ordinal and precision. Raises BackendError (backend_device)."""
    place, _, precision = device.partition(",")
    kind, _, ordinal = place.partition(":")
    if kind != "cuda" or not (ordinal or "0").isdecimal() or (precision or "fp32") not in PRECISIONS:
        raise BackendError(
            "backend_device", f"{backend}: expected a device such as cuda:0 or cuda:0,fp16, got {device!r}"
        )
    return int(ordinal or 0), precision or "fp32"
