"""What the host reads of the regions that a device found: needs neither torch nor triton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps.regions import Region

PEAK = 6
"""The column of a table that holds the bits of a float32; the ones before it are numbers, in the order of `Region`."""


def rows(counts: NDArray[np.int32], table: NDArray[np.int32]) -> list[list[list[Region] | None]]:
    """The regions of each map, [B][J], strongest first, of equal ones the first in reading order.

    counts   [B, J]
    table    [B, J, most, 8]; what lies past the counts is not looked at
    returns  None for a map with more regions than its table holds: they are to be found in the map itself
    """
    most = table.shape[2]
    return [
        [_sorted(table[b, j, :count]) if count <= most else None for j, count in enumerate(of_film)]
        for b, of_film in enumerate(counts.tolist())
    ]


def _sorted(table: NDArray[np.int32]) -> list[Region]:
    if not len(table):
        return []  # as of most maps
    numbers, peaks = table[:, :PEAK].tolist(), table[:, PEAK].copy().view(np.float32).tolist()
    found = [Region._make([*row, peak]) for row, peak in zip(numbers, peaks, strict=True)]
    return sorted(found, key=lambda region: (-region.peak, region.first))
