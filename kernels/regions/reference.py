"""The plain form of regions, which every other implementation is tested against."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COLUMNS = 8
"""Of a table: first, left, top, right, bottom, area, peak, 0."""


def regions(maps: Tensor, thresholds: Tensor, content: Tensor | None = None, most: int = 64) -> tuple[Tensor, Tensor]:
    """The 8-connected regions where a map exceeds its threshold.

    maps        [B, J, H, W] float32 or float16; NaN exceeds nothing
    thresholds  [J] float32
    content     [B, 4] int32, the film's top, left, height and width in the map: pixels outside are in no region
    most        rows of a table
    returns     counts [B, J] int32, of all regions, and table [B, J, most, 8] int32, of which the first `counts` rows
                are regions: first (y W + x of the first pixel in reading order), left, top, right, bottom (exclusive
                ends), area in pixels, peak (the bits of the highest value as float32; -0.0 counts as 0.0), 0.
                Here the rows are in reading order and the others 0, on a device neither is so

    Raises ValueError when the shapes or dtypes do not fit together.
    """
    batch, wanted = checked(maps, thresholds, content, most)
    counts = torch.zeros((batch, wanted), dtype=torch.int32)
    table = torch.zeros((batch, wanted, most, COLUMNS), dtype=torch.int32)
    for b, j in np.ndindex(batch, wanted):
        values = maps[b, j].float().numpy()
        over = np.greater(values, thresholds[j].numpy())
        if content is not None:
            top, left, height, width = content[b].tolist()
            inside = np.zeros_like(over)
            inside[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
            over &= inside
        found = _rows(values, over)
        counts[b, j] = len(found)
        table[b, j, : len(found)] = torch.from_numpy(found[:most])
    return counts, table


def _rows(values: NDArray[np.float32], over: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The table of one map [H, W], in reading order."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(over.astype(np.uint8), connectivity=8)
    places = np.flatnonzero(over)
    owners = labels.ravel()[places].astype(np.intp)
    firsts = np.full(number, over.size, np.int32)
    np.minimum.at(firsts, owners, places.astype(np.int32))
    peaks = np.full(number, -np.inf, np.float32)
    np.maximum.at(peaks, owners, values.ravel()[places] + np.float32(0))
    left, top, width, height, area = stats.T
    columns = [firsts, left, top, left + width, top + height, area, peaks.view(np.int32), np.zeros_like(area)]
    found = np.stack(columns, axis=1)[1:]  # the first component is the background
    return found[found[:, 0].argsort()]


def checked(maps: Tensor, thresholds: Tensor, content: Tensor | None, most: int) -> tuple[int, int]:
    """B and J; ValueError when the shapes or dtypes do not fit together."""
    if maps.ndim != 4 or maps.dtype not in (torch.float32, torch.float16) or 0 in maps.shape[2:]:
        raise ValueError(f"expected float32 or float16 maps of shape [B, J, H, W], got {_said(maps)}")
    batch, wanted = maps.shape[:2]
    if thresholds.shape != (wanted,) or thresholds.dtype != torch.float32:
        raise ValueError(f"expected float32 thresholds of shape {(wanted,)}, got {_said(thresholds)}")
    if content is not None and (content.shape != (batch, 4) or content.dtype != torch.int32):
        raise ValueError(f"expected int32 content of shape {(batch, 4)}, got {_said(content)}")
    if most < 1:
        raise ValueError(f"expected a table of at least one row, got {most}")
    return batch, wanted


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
