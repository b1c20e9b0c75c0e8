"""A CUDA device: films windowed on it, the network as a CUDA graph for each batch size, pinned memory at both ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msloc_edge.backends.base import STEPS
from msloc_edge.backends.recent import Recent
from msloc_edge.backends.torch_precision import Predict
from msloc_edge.geometry import Geometry
from msloc_edge.kernels.ops import window_resize
from msloc_edge.model import CamNet
from msloc_edge.types import Frame

WARMUP = 3
"""Runs before a capture: cuDNN chooses its algorithms and libraries allocate what they need, which a graph may not."""

MOST_GRAPHS = 8
"""Batch sizes whose graphs are kept; a graph holds the memory of its activations."""


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """All that a batch size needs: where its films and logits lie on both sides, and how the network is run on them."""

    host_films: Tensor
    films: Tensor
    host_logits: Tensor
    logits: Tensor
    cams: tuple[Tensor, ...]
    replay: Callable[[], None]


class CudaNetwork:
    """Runs a network on films from the host. `eager_because` says why there is no graph; None: there is one."""

    def __init__(self, net: CamNet, predict: Predict, device: torch.device) -> None:
        """predict  runs `net`, which is on the device"""
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._size, self._predict, self._device = net.config.size, predict, device
        self._slots = Recent(MOST_GRAPHS, self._make)
        self.eager_because: str | None = None

    @torch.inference_mode()
    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[Tensor, ...], dict[str, float]]:
        """Films [B, 1, H, W] -> logits [B, K] on the host, class maps on the device, milliseconds of STEPS."""
        with torch.cuda.device(self._device):
            slot = self._slots[len(batch)]
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]
            slot.host_films.numpy()[:] = batch
            marks[0].record()
            slot.films.copy_(slot.host_films, non_blocking=True)
            marks[1].record()
            slot.replay()
            marks[2].record()
            slot.host_logits.copy_(slot.logits, non_blocking=True)
            cams = tuple(cam.clone() for cam in slot.cams)  # the next run writes where these are
            marks[3].record()
            marks[3].synchronize()
            times = [before.elapsed_time(after) for before, after in pairwise(marks)]
            return slot.host_logits.numpy().copy(), cams, dict(zip(STEPS, times, strict=True))

    def _make(self, count: int) -> _Slot:
        size = self._size
        host_films = torch.empty((count, 1, size, size), pin_memory=True)
        films = torch.zeros((count, 1, size, size), device=self._device).contiguous(memory_format=torch.channels_last)
        with _same_arithmetic():
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARMUP):
                    logits, cams = self._predict(films)
            torch.cuda.current_stream().wait_stream(side)
            replay: Callable[[], None]
            try:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    logits, cams = self._predict(films)
                replay = graph.replay
            except RuntimeError as error:
                self.eager_because = str(error).splitlines()[0]
                replay = self._eagerly(films, logits, cams)
        return _Slot(host_films, films, torch.empty(logits.shape, pin_memory=True), logits, tuple(cams), replay)

    def _eagerly(self, films: Tensor, logits: Tensor, cams: tuple[Tensor, ...]) -> Callable[[], None]:
        """The network's run without a graph, into the same tensors."""

        def replay() -> None:
            with _same_arithmetic():
                prediction = self._predict(films)
            for target, value in zip((logits, *cams), (prediction.logits, *prediction.cams), strict=True):
                target.copy_(value)

        return replay


class CudaWindow:
    """Windows films and fits them into the model's input on a device. Threads have a stream each, so that the copies
    and the kernel of the next film run beside the network of this one."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._own = device, threading.local()

    @torch.inference_mode()
    def __call__(self, frame: Frame, geometry: Geometry) -> NDArray[np.float32]:
        """The model's input [h, w], on the host."""
        pixels = frame.pixels if frame.pixels.itemsize == 1 else frame.pixels.view(np.int16)
        size = geometry.input_height, geometry.input_width
        place = geometry.left, geometry.top, geometry.width, geometry.height
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream()):
            staged = torch.from_numpy(np.ascontiguousarray(pixels)).pin_memory()
            table = torch.from_numpy(frame.lut).to(self._device)
            fitted = window_resize(staged.to(self._device, non_blocking=True), table, size, place)
            return np.asarray(fitted[0, 0].cpu().numpy(), np.float32)  # waits, so `staged` may go

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._own.stream
        return stream


def _same_arithmetic() -> AbstractContextManager[None]:
    """fp32 as on the CPU: by default cuDNN would convolve in TF32, whose logits differ by about 1e-3."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
