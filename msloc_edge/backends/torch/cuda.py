"""A network and the search for regions on a CUDA device: one CUDA graph for each batch size, pinned memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from msloc_edge.backends.base import Search
from msloc_edge.backends.found import MAX_REGIONS, Found
from msloc_edge.backends.lru import LRUCache
from msloc_edge.backends.torch.precision import Predict
from msloc_edge.backends.torch.window import DeviceFilm
from msloc_edge.bundle import Bundle
from msloc_edge.kernels.ops import fuse_cams_peaks, regions
from msloc_edge.kernels.regions.reference import COLUMNS

WARMUP = 3
"""Runs before a capture: cuDNN chooses its algorithms and libraries allocate what they need, which a graph may not."""

MAX_GRAPHS = 8
"""Batch sizes whose graphs are kept; a graph holds the memory of its activations."""

MAX_IMAGES = 8
"""Images whose maps are in memory at a time: 14 classes of 512 x 512 pixels are 15 MB."""


class Run(NamedTuple):
    """Logits [B, K] and what was found on the host, class maps on the device, milliseconds of STEPS."""

    logits: NDArray[np.float32]
    cams: tuple[Tensor, ...]
    timing_ms: dict[str, float]
    found: Found | None


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """Inputs of a batch size, in the host's pinned memory and on the device, and its run.

    films    [B, 1, H, W]
    content  [B, 4] int32: top, left, height, width
    replay   computes the class maps of all stages, one after the other, and the bits of logits and, where it is asked
             for, of what `Found` has, one after the other: int32. The next run may write where these are
    """

    host_films: Tensor
    films: Tensor
    host_content: Tensor
    content: Tensor
    replay: Callable[[], tuple[Tensor, Tensor]]


class CudaNetwork:
    """A network that is run. `eager_because` says why there is no graph; None: there is one, or nothing has run yet."""

    def __init__(self, bundle: Bundle, net: nn.Module, predict: Predict, device: torch.device) -> None:
        """predict  runs `net`, the bundle's network, which is on the device"""
        # Tensor cores read channels last; in float32 they take no part, and cuDNN's own order is the other one.
        halves = any(parameter.dtype != torch.float32 for parameter in net.parameters())
        net.to(memory_format=torch.channels_last if halves else torch.contiguous_format)  # type: ignore[call-overload]
        self._bundle, self._predict, self._device = bundle, predict, device
        self._slots = LRUCache(MAX_GRAPHS, self._make)
        self._thresholds = torch.full((len(bundle.classes),), torch.inf, device=device)
        self._known_thresholds: Sequence[float] = ()
        self.eager_because: str | None = None

    @torch.inference_mode()
    def run(self, films: Sequence[ArrayLike | DeviceFilm | Tensor], search: Search | None = None) -> Run:
        """Run the network over films [H, W] in [0, 1], each on the host or on the device, and search their maps."""
        with torch.cuda.device(self._device):
            slot = self._slots[len(films), search is not None]
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]
            marks[0].record()
            for place, film in enumerate(films):
                self._put(film, slot.host_films[place, 0], slot.films[place, 0])
            if search:
                self._set(search, slot)
            marks[1].record()
            cams, results = slot.replay()
            marks[2].record()
            on_host = torch.empty_like(results, device="cpu", pin_memory=True)
            on_host.copy_(results, non_blocking=True)
            cams = cams.clone()
            marks[3].record()
            marks[3].synchronize()
            times = [before.elapsed_time(after) for before, after in pairwise(marks)]
            logits, *found = self._parts(on_host.numpy(), len(films))
            return Run(
                logits,
                self._stages(cams, len(films)),
                dict(zip(("copy_in", "network", "copy_out"), times, strict=True)),
                Found(*found) if search else None,
            )

    @staticmethod
    def _put(film: ArrayLike | DeviceFilm | Tensor, host: Tensor, target: Tensor) -> None:
        if isinstance(film, DeviceFilm):
            film.copy_to(target)
        elif isinstance(film, Tensor):
            target.copy_(film)
        else:
            host.numpy()[:] = film
            target.copy_(host, non_blocking=True)

    def _set(self, search: Search, slot: _Slot) -> None:
        slot.host_content.numpy()[:] = [
            (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
            for rows, columns in search.contents
        ]
        slot.content.copy_(slot.host_content, non_blocking=True)
        if self._known_thresholds != search.thresholds:
            self._thresholds.copy_(torch.tensor(search.thresholds))
            self._known_thresholds = search.thresholds

    def _make(self, key: tuple[int, bool]) -> _Slot:
        (count, searching), size = key, self._bundle.input_size
        host_films = torch.zeros((count, 1, *size)).pin_memory()
        host_content = torch.tensor([[0, 0, *size]] * count, dtype=torch.int32).pin_memory()
        films, content = host_films.to(self._device), host_content.to(self._device)

        def work() -> tuple[Tensor, Tensor]:
            with _same_arithmetic():
                return self._work(films, content if searching else None)

        return _Slot(host_films, films, host_content, content, self._captured(work))

    def _captured(self, work: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], tuple[Tensor, Tensor]]:
        """Capture the work as a CUDA graph, where that can be had."""
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                work()
        torch.cuda.current_stream().wait_stream(side)
        try:
            graph = torch.cuda.CUDAGraph()
            # Other threads window films meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                results = work()
        except RuntimeError as error:
            self.eager_because = str(error).splitlines()[0]
            return work

        def replay() -> tuple[Tensor, Tensor]:
            graph.replay()
            return results

        return replay

    @cached_property
    def _pool(self) -> Any:
        """Memory that the graphs of all batch sizes share: one runs at a time, and what it gave is copied before."""
        return torch.cuda.graph_pool_handle()

    def _work(self, films: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
        """Do all that is done on the device; `content` is None where no regions are to be found."""
        prediction = self._predict(films)
        cams = torch.cat([cam.flatten() for cam in prediction.cams] or [films.new_empty(0)])
        results = [prediction.logits]
        if content is not None:
            stages = self._stages(cams, len(films))
            images = [slice(at, at + MAX_IMAGES) for at in range(0, len(films), MAX_IMAGES)]
            found = [self._search([stage[some] for stage in stages], content[some]) for some in images]
            results += [part for parts in zip(*found, strict=True) for part in parts]
        return cams, torch.cat([part.contiguous().view(torch.int32).flatten() for part in results])

    def _search(self, stages: list[Tensor], content: Tensor) -> tuple[Tensor, ...]:
        """Find what `Found` has, of some images."""
        maps, values, positions = fuse_cams_peaks(stages, self._relevance, *self._bundle.input_size, content)
        return values, positions, *regions(maps, self._thresholds, content, MAX_REGIONS)

    @cached_property
    def _relevance(self) -> Tensor:
        return torch.from_numpy(self._bundle.relevance).to(self._device)

    def _stages(self, cams: Tensor, count: int) -> tuple[Tensor, ...]:
        """Class maps [B, K, h, w] of each stage, from all that lie one after the other."""
        if not len(cams):
            return ()  # a bare classifier
        shapes = [(count, len(self._bundle.classes), s.height, s.width) for s in self._bundle.stages]
        parts = torch.split(cams, [prod(shape) for shape in shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))

    def _parts(self, results: NDArray[np.int32], count: int) -> list[NDArray[Any]]:
        """Logits, and what `Found` has if it is there."""
        classes = len(self._bundle.classes)
        shapes = [(), (), (2,), (), (MAX_REGIONS, COLUMNS)]
        ends = np.cumsum([count * classes * prod(shape) for shape in shapes]).tolist()
        parts = [results[start:end] for start, end in pairwise([0, *ends]) if end <= len(results)]
        floats = [part.view(np.float32) if at < 2 else part for at, part in enumerate(parts)]
        return [part.reshape(count, classes, *shape) for part, shape in zip(floats, shapes, strict=False)]


@contextmanager
def _same_arithmetic() -> Iterator[None]:
    """Compute fp32 as on the CPU: by default cuDNN would convolve in TF32, whose logits differ by about 1e-3.

    By the setting of convolutions alone where torch has one (2.9 and later): the older one for all of cuDNN fails where
    anybody has used the newer ones.
    """
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):
        with cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            yield
        return
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.benchmark, cudnn.conv.fp32_precision = True, "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before
