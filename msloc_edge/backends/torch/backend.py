"""PyTorch: the reference engine, from the bundle's safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file

from msloc_edge.backends.base import Backend, Outputs
from msloc_edge.backends.torch.cuda import CudaNetwork, Found, Search
from msloc_edge.backends.torch.fold import folded
from msloc_edge.backends.torch.precision import PRECISIONS, Predict, in_precision
from msloc_edge.backends.torch.window import CudaWindow
from msloc_edge.bundle import WEIGHTS, Bundle
from msloc_edge.errors import BackendError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.ops import fuse_cams
from msloc_edge.kernels.regions.table import rows
from msloc_edge.maps.fuse import Maps, Part
from msloc_edge.maps.regions import MIN_AREA, Located
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.types import Frame


@dataclass(frozen=True, slots=True, eq=False)
class TorchOutputs(Outputs):
    """Class maps that stay on the device; what is asked for of them is copied."""

    tensors: tuple[torch.Tensor, ...] = ()
    found: Found | None = None

    def located(self, image: int, classes: Sequence[int]) -> list[Located] | None:
        if self.found is None:
            return None
        found, some = self.found, list(classes)
        values, positions = found.values[image, some].tolist(), found.positions[image, some].tolist()
        (regions,) = rows(found.counts[image, some][None], found.table[image, some][None])
        if any(regions_of_map is None for regions_of_map in regions):
            return None
        return [
            Located(x + 0.5, y + 0.5, value, tuple(region for region in own or () if region.area >= MIN_AREA))
            for value, (y, x), own in zip(values, positions, regions, strict=True)
        ]

    def maps(self, image: int, relevance: NDArray[np.float32], size: tuple[int, int], classes: Sequence[int]) -> Maps:
        cams = [cam[image : image + 1] for cam in self.tensors]
        device = cams[0].device
        wanted = torch.tensor([list(classes)], dtype=torch.long, device=device)
        maps = fuse_cams(cams, torch.from_numpy(relevance).to(device), *size, wanted)[0]
        return Maps(np.asarray(maps.cpu().numpy(), np.float32))

    def stage_maps(self, image: int, k: int) -> tuple[NDArray[np.float32], ...]:
        return tuple(cam[image, k].cpu().numpy() for cam in self.tensors)


class TorchBackend(Backend):
    """device: cpu (default), cuda or cuda:N, and after a comma a precision of PRECISIONS, as in cuda,fp16.

    `threads` is torch's own number, and so that of the whole process.
    """

    name = "torch"

    def __init__(
        self, net: CamNet, device: torch.device, precision: str = "fp32", predict: Predict | None = None
    ) -> None:
        """predict  runs `net`, or what of it is wanted; None: all of it"""
        self._net, self._device, self._precision = net, device, precision
        self._predict = predict or in_precision(net, PRECISIONS[precision])
        on_cuda = device.type == "cuda"
        self._cuda = CudaNetwork(net.to(device), self._predict, device) if on_cuda else None
        self._window = CudaWindow(device) if on_cuda else None

    @classmethod
    def load(cls, bundle: Bundle, device: str | None = None, threads: int | None = None) -> TorchBackend:
        place, _, precision = (device or "cpu").partition(",")
        precision = precision or "fp32"
        known = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        if place.split(":")[0] not in known or precision not in PRECISIONS:
            raise BackendError(
                "backend_device",
                f"torch: expected a device of {', '.join(known)}, and perhaps a precision of {', '.join(PRECISIONS)}, "
                f"such as {known[-1]},bf16, got {device!r}",
            )
        if WEIGHTS not in bundle.manifest["files"]:
            raise BackendError("backend_failed", f"torch: {bundle.path} holds no {WEIGHTS}; use another backend")
        if threads:
            torch.set_num_threads(threads)
        net = build(ModelConfig.from_dict(bundle.manifest["architecture"]))
        net.load_state_dict(load_file(bundle.weights))
        net.backbone = folded(net.eval().backbone)  # type: ignore[assignment]
        return cls(net, torch.device(place), precision)

    def letterbox(self, frame: Frame, geometry: Geometry) -> ArrayLike:
        return self._window(frame, geometry) if self._window else super().letterbox(frame, geometry)

    def run_films(self, films: Sequence[ArrayLike], contents: Sequence[Part], thresholds: Sequence[float]) -> Outputs:
        if self._cuda is None:
            return super().run_films(films, contents, thresholds)
        return self._on_cuda(self._cuda, films, Search(contents, thresholds))

    @torch.inference_mode()
    def run(self, batch: NDArray[np.float32]) -> Outputs:
        if self._cuda:
            return self._on_cuda(self._cuda, list(batch[:, 0]))
        size = self._net.config.size
        try:
            if batch.shape[2:] != (size, size):  # torch would take it, and give maps of another grid
                raise RuntimeError(f"expected films of {size} x {size} pixels")
            prediction = self._predict(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
        except RuntimeError as error:
            raise BackendError("backend_failed", f"torch failed on a batch of shape {batch.shape}: {error}") from error
        cams = tuple(cam.numpy() for cam in prediction.cams)
        return TorchOutputs(prediction.logits.numpy(), cams, {}, prediction.cams)

    def _on_cuda(self, cuda: CudaNetwork, films: Sequence[ArrayLike], search: Search | None = None) -> Outputs:
        try:
            logits, cams, timing_ms, found = cuda.run(films, search)
        except (RuntimeError, ValueError) as error:
            raise BackendError("backend_failed", f"torch failed on {len(films)} films: {error}") from error
        return TorchOutputs(logits, (), timing_ms, cams, found)

    def describe(self) -> Mapping[str, str]:
        facts = {"engine": self.name, "version": torch.__version__, "device": str(self._device)}
        facts["precision"] = self._precision
        if self._cuda and self._cuda.eager_because:
            facts["eager_because"] = self._cuda.eager_because
        return facts
