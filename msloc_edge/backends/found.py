"""Peaks and regions that a device found in the maps of a run, and outputs that answer with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends.base import Outputs, require_finite
from msloc_edge.kernels.regions.table import rows
from msloc_edge.maps.regions import Located

MAX_REGIONS = 64
"""Regions of a map that its table can hold; a map with more is fetched, and its regions are found on the host."""


class Found(NamedTuple):
    """Peaks and regions of the maps of all classes, in pixels of the model's input.

    values     [B, K] float32, the highest value of each map
    positions  [B, K, 2] int32, its (y, x)
    counts     [B, K] int32, regions, of which the table has at most MAX_REGIONS
    table      [B, K, MAX_REGIONS, 8] int32, see kernels.regions
    """

    values: NDArray[np.float32]
    positions: NDArray[np.int32]
    counts: NDArray[np.int32]
    table: NDArray[np.int32]

    def located(self, image: int, classes: list[int]) -> list[Located] | None:
        """Give what was found in the maps of some classes of one image; None: one has more regions than its table.

        Raises BackendError (backend_failed) where a map is not finite.
        """
        require_finite("maps", self.values[image, classes])
        values, positions = self.values[image, classes].tolist(), self.positions[image, classes].tolist()
        (regions,) = rows(self.counts[image, classes][None], self.table[image, classes][None])
        if any(of_map is None for of_map in regions):
            return None
        return [
            Located(x + 0.5, y + 0.5, value, tuple(of_map or ()))
            for value, (y, x), of_map in zip(values, positions, regions, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class FoundOutputs(Outputs):
    """Outputs of a device that finds peaks and regions in the same run, where it is asked to.

    found  None: it was not
    """

    found: Found | None = None

    def regions(
        self, image: int, classes: Sequence[int], lap: Callable[[str], object] = lambda step: None
    ) -> list[Located]:
        located = self.found.located(image, list(classes)) if self.found else None
        return Outputs.regions(self, image, classes, lap) if located is None else located
