"""Reading the regions that a device found: on a host that needs neither torch nor triton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps.regions import Region, strongest_first

PEAK = 6
"""Column of a table that holds the bits of a float32; the ones before it are numbers, in the order of `Region`."""


def rows(counts: NDArray[np.int32], table: NDArray[np.int32]) -> list[list[list[Region] | None]]:
    """Read the regions of each map, [B][J], the strongest first, of equal ones the first in reading order.

    counts   [B, J]
    table    [B, J, R, 8]; what lies past the counts is not looked at
    returns  None for a map with more regions than its table holds: they are to be found in the map itself
    """
    max_regions = table.shape[2]
    return [
        [_sorted(table[b, j, :count]) if count <= max_regions else None for j, count in enumerate(of_film)]
        for b, of_film in enumerate(counts.tolist())
    ]


def _sorted(table: NDArray[np.int32]) -> list[Region]:
    if not len(table):
        return []  # as of most maps
    numbers, peaks = table[:, :PEAK].tolist(), table[:, PEAK].copy().view(np.float32).tolist()
    return strongest_first(Region._make([*row, peak]) for row, peak in zip(numbers, peaks, strict=True))
