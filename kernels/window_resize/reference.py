"""The plain form of window_resize, which the kernel is tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from msloc_edge.imaging.geometry import Geometry


def enlarges(geometry: Geometry) -> bool:
    """True where the film is smaller than its place in the input: bilinear then, area averages otherwise.

    Raises ValueError when it is smaller along one axis and larger along the other, which `Geometry.fit` never makes.
    """
    smaller = geometry.image_width < geometry.width, geometry.image_height < geometry.height
    larger = geometry.image_width > geometry.width, geometry.image_height > geometry.height
    if any(smaller) and any(larger):
        raise ValueError(f"expected a film that shrinks or grows along both axes, got {geometry}")
    return any(smaller)


def axis_weights(image_size: int, size: int, enlarge: bool) -> Tensor:
    """[size, image_size] float64: the part of each source pixel in each output pixel along one axis; rows sum to one.

    area      overlap of [i, i + 1) and [j s, (j + 1) s), over s = image_size / size
    bilinear  1 - |c - i|, at least 0, where c = (j + 0.5) s - 0.5 is clamped to [0, image_size - 1]
    """
    scale = image_size / size
    i = torch.arange(image_size, dtype=torch.float64)
    j = torch.arange(size, dtype=torch.float64)[:, None]
    if enlarge:
        centre = ((j + 0.5) * scale - 0.5).clamp(0, image_size - 1)
        return (1 - (centre - i).abs()).clamp(min=0)
    overlap = torch.minimum(i + 1, (j + 1) * scale) - torch.maximum(i, j * scale)
    return overlap.clamp(min=0) / scale


def window_resize(pixels: Tensor, table: Tensor, geometry: Geometry, dtype: torch.dtype = torch.float32) -> Tensor:
    """input(y, x) = sum_{i, j} v_{y,i} w_{x,j} table[pixels(i, j)] inside the film's place, 0 outside; float64 within.

    pixels   [H, W] uint8, uint16, or int16 with the bits of uint16
    table    [2**bits]: displayed brightness of each bit pattern
    returns  [1, 1, h, w]: the model's input, equal to `geometry.letterbox(frame.display())`

    v and w are the `axis_weights` of rows and columns. Raises ValueError for a geometry that `enlarges` refuses.
    """
    g, enlarge = geometry, enlarges(geometry)
    film = table.double()[pixels.to(torch.int64) & len(table) - 1]
    rows = axis_weights(g.image_height, g.height, enlarge).to(film.device)
    columns = axis_weights(g.image_width, g.width, enlarge).to(film.device)
    output = film.new_zeros((1, 1, g.input_height, g.input_width))
    output[0, 0, g.top : g.top + g.height, g.left : g.left + g.width] = rows @ film @ columns.T
    return output.to(dtype)
