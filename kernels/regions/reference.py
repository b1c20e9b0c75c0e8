"""The plain form of regions on a device: the table that the kernels write, from `msloc_edge.maps.reference`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msloc_edge.kernels.regions.table import PEAK
from msloc_edge.maps import reference

COLUMNS = 8
"""Numbers of a region in a table: first, left, top, right, bottom, area, peak, 0."""


def regions(
    maps: Tensor, thresholds: Tensor, content: Tensor | None = None, max_regions: int = 64
) -> tuple[Tensor, Tensor]:
    """Find the 8-connected regions where a map exceeds its threshold: `maps.regions` of many maps.

    maps        [B, J, H, W] float32 or float16; NaN exceeds nothing
    thresholds  [J] float32
    content     [B, 4] int32, the film's top, left, height and width in the map: pixels outside are in no region
    max_regions R, rows of a table; more regions than that are counted, not written
    returns     counts [B, J] int32, of all regions, and table [B, J, R, 8] int32, of which the first `counts` rows
                are regions: first (y W + x of the first pixel in reading order), left, top, right, bottom (exclusive
                ends), area in pixels, peak (the bits of the highest value as float32; -0.0 counts as 0.0), 0.
                Here the rows are in reading order and the others 0, on a device neither is so

    Raises ValueError when the shapes or dtypes do not fit together.
    """
    B, J = check_shapes(maps, thresholds, content, max_regions)
    counts = torch.zeros((B, J), dtype=torch.int32)
    table = torch.zeros((B, J, max_regions, COLUMNS), dtype=torch.int32)
    for b, j in np.ndindex(B, J):
        values = maps[b, j].float().numpy()
        if content is not None:
            values = _within(values, content[b].tolist())
        found = sorted(reference.regions(values, float(thresholds[j])))
        rows = np.zeros((len(found), COLUMNS), np.int32)
        rows[:, :PEAK] = np.array([region[:PEAK] for region in found], np.int32).reshape(-1, PEAK)
        rows[:, PEAK] = np.array([region.peak + 0.0 for region in found], np.float32).view(np.int32)
        counts[b, j] = len(found)
        table[b, j, : len(found)] = torch.from_numpy(rows[:max_regions])
    return counts, table


def _within(values: NDArray[np.float32], content: list[int]) -> NDArray[np.float32]:
    """A map [H, W] that exceeds no threshold outside its content."""
    top, left, height, width = content
    rows = slice(max(top, 0), max(top + height, 0))
    columns = slice(max(left, 0), max(left + width, 0))
    inside = np.full_like(values, -np.inf)
    inside[rows, columns] = values[rows, columns]
    return inside


def check_shapes(maps: Tensor, thresholds: Tensor, content: Tensor | None, max_regions: int) -> tuple[int, int]:
    """Return B and J. Raises ValueError when the shapes or dtypes do not fit together."""
    if maps.ndim != 4 or maps.dtype not in (torch.float32, torch.float16) or 0 in maps.shape[2:]:
        raise ValueError(f"expected float32 or float16 maps of shape [B, J, H, W], got {_said(maps)}")
    B, J = maps.shape[:2]
    if thresholds.shape != (J,) or thresholds.dtype != torch.float32:
        raise ValueError(f"expected float32 thresholds of shape {(J,)}, got {_said(thresholds)}")
    if content is not None and (content.shape != (B, 4) or content.dtype != torch.int32):
        raise ValueError(f"expected int32 content of shape {(B, 4)}, got {_said(content)}")
    if max_regions < 1:
        raise ValueError(f"expected a table of at least one row, got {max_regions}")
    return B, J


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
