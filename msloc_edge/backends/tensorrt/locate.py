"""Peaks and regions on the device, behind the network: kernels that were compiled ahead of time, in the same graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from msloc_edge.backends.base import Search
from msloc_edge.backends.found import MAX_REGIONS, Found
from msloc_edge.bundle import Bundle
from msloc_edge.cuda.driver import Kernel, grid_size
from msloc_edge.cuda.streams import Buffer, Stream

MAX_IMAGES = 2
"""Images whose maps are in memory at a time: with what their runs need, 14 classes of 512 x 512 pixels take 45 MB."""

COLUMNS = 8
"""Whole numbers of a region in its table."""

LANES, PAIR = 32, 2
"""Threads of a warp, which gives one key of a peak; columns of a thread."""


@dataclass(frozen=True, slots=True)
class LocateKernels:
    """maps: of all classes, with keys of their peaks; peaks: their last step; runs, regions: of what is above."""

    maps: Kernel
    peaks: Kernel
    runs: Kernel
    regions: Kernel


class Locator:
    """Finds peaks and regions in the class maps of a batch. Its memory is the stream's."""

    def __init__(self, bundle: Bundle, kernels: LocateKernels, stream: Stream, max_batch: int) -> None:
        self._kernels, self._stream = kernels, stream
        self._stages = [(stage.height, stage.width) for stage in bundle.stages]
        self._classes, (self._height, self._width) = len(bundle.classes), bundle.input_size
        size = self._classes * self._height * self._width
        self._maps = stream.allocate(MAX_IMAGES * size)
        self._keys = stream.allocate(2 * MAX_IMAGES * self._classes * self._parts(1))
        self._runs = stream.allocate(MAX_IMAGES * self._classes * (4 * -(-self._width // 2) + 1) * self._height)
        self._relevance = stream.buffer(bundle.relevance.size)
        self._relevance.host[:] = bundle.relevance.ravel()
        self._put(self._relevance, bundle.relevance.size)
        self._thresholds = stream.buffer(self._classes)
        self._content = stream.buffer(4 * max_batch)
        self._shapes = {"values": (), "positions": (2,), "counts": (), "table": (MAX_REGIONS, COLUMNS)}
        self._found = {
            name: stream.buffer(max_batch * self._classes * prod(shape)) for name, shape in self._shapes.items()
        }

    def put(self, search: Search) -> None:
        """Put on the stream where in each film of the batch is to be looked, and what counts as a region."""
        parts = [
            (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
            for rows, columns in search.contents
        ]
        self._content.host.view(np.int32)[: 4 * len(parts)] = np.array(parts, np.int32).ravel()
        self._thresholds.host[:] = search.thresholds
        self._put(self._content, 4 * len(parts))
        self._put(self._thresholds, self._classes)

    def enqueue(self, count: int, cams: list[int]) -> None:
        """Put the search of a batch on the stream.

        cams  addresses of the class maps [B, K, h_s, w_s] of each stage, float32
        """
        for first in range(0, count, MAX_IMAGES):
            self._enqueue(first, min(MAX_IMAGES, count - first), cams)

    def fetch(self, count: int) -> None:
        """Put the copies to the host on the stream; after it `found` reads them."""
        for name, buffer in self._found.items():
            if not buffer.shared:
                self._stream.copy_out(buffer.host[: self._size(name, count)], buffer.device)

    def found(self, count: int) -> Found:
        """Copy what was found."""
        arrays = {}
        for name, buffer in self._found.items():
            numbers = buffer.host[: self._size(name, count)].copy()
            kind = np.float32 if name == "values" else np.int32
            arrays[name] = numbers.view(kind).reshape(count, self._classes, *self._shapes[name])
        return Found(**arrays)

    def _size(self, name: str, count: int) -> int:
        return count * self._classes * prod(self._shapes[name])

    def _put(self, buffer: Buffer, size: int) -> None:
        if not buffer.shared:
            self._stream.copy_in(buffer.device, buffer.host[:size])

    def _enqueue(self, first: int, count: int, cams: list[int]) -> None:
        size = (self._height, self._width)
        numbers = {"B": count, "J": self._classes, "K": self._classes, "H": size[0], "W": size[1]}
        numbers |= {"parts": self._parts(count), "max_regions": MAX_REGIONS, "tile_h": self._tile_h(count)}
        image = 4 * self._classes  # bytes of a number for each map
        addresses = {
            **{f"cams_{s}": cam + first * image * prod(self._stages[s - 1]) for s, cam in enumerate(cams, 1)},
            **{name: buffer.device + 4 * self._size(name, first) for name, buffer in self._found.items()},
            **{"content": self._content.device + 16 * first, "relevance": self._relevance.device},
            **{"thresholds": self._thresholds.device, "maps": self._maps, "peaks": self._keys, "runs": self._runs},
        }
        for kernel in (self._kernels.maps, self._kernels.peaks, self._kernels.runs, self._kernels.regions):
            launch(kernel, numbers | addresses, self._stream)

    def _tile_h(self, count: int) -> int:
        kernel = self._kernels.maps.facts
        assert kernel.tile
        return int(kernel.tile.tile_h(count * self._classes, (self._height, self._width), PAIR * kernel.block))

    def _parts(self, count: int) -> int:
        """Keys of a map."""
        kernel = self._kernels.maps.facts
        columns = PAIR * kernel.block
        tiles = -(-self._height // self._tile_h(count)) * -(-self._width // columns)
        return tiles * (kernel.block // LANES)


def launch(kernel: Kernel, values: Mapping[str, int], stream: Stream) -> None:
    """Put a launch on a stream. `values` has every argument by name, and B and J where the grid needs them."""
    arguments = [values[argument.name] for argument in kernel.facts.arguments]
    kernel.launch(grid_size(kernel.facts.grid, values), arguments, stream.handle)
