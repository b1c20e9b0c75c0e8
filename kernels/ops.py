"""The operations as torch custom operators, which torch.compile and torch.export pass through as one node.

Importing this module registers torch.ops.msloc; triton is imported when an operator first meets a CUDA tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.fuse_cams import reference
from msloc_edge.kernels.regions import reference as regions_reference
from msloc_edge.kernels.window_resize import reference as window_reference


@torch.library.custom_op("msloc::fuse_cams", mutates_args=(), device_types="cpu")
def fuse_cams(
    cams: Sequence[Tensor],
    relevance: Tensor,
    height: int,
    width: int,
    classes: Optional[Tensor] = None,  # noqa: UP045  (torch 2.6 reads no X | None here)
) -> Tensor:
    """M_k = sum_s w_{k,s} up(A_{k,s}): [B, J or K, H, W] in the dtype of the maps; see kernels.fuse_cams.reference."""
    return reference.fuse_cams(cams, relevance, (height, width), classes)


@fuse_cams.register_kernel("cuda")
def _(cams: Sequence[Tensor], relevance: Tensor, height: int, width: int, classes: Tensor | None = None) -> Tensor:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams as launch

    maps = launch(cams, relevance, (height, width), classes).maps
    assert maps is not None
    return maps


@fuse_cams.register_fake
def _(cams: Sequence[Tensor], relevance: Tensor, height: int, width: int, classes: Tensor | None = None) -> Tensor:
    B, _, J = reference.check_shapes(cams, relevance, classes)
    return cams[0].new_empty((B, J, height, width))


@torch.library.custom_op("msloc::fuse_cams_peaks", mutates_args=(), device_types="cpu")
def fuse_cams_peaks(
    cams: Sequence[Tensor],
    relevance: Tensor,
    height: int,
    width: int,
    content: Optional[Tensor] = None,  # noqa: UP045
) -> tuple[Tensor, Tensor, Tensor]:
    """The maps of all classes [B, K, H, W] in float32, and of each its highest value [B, K] and its (y, x) [B, K, 2].

    content  [B, 4], the film's top, left, height and width in the map, where a peak may be; None: anywhere
    """
    maps = reference.fuse_cams([cam.float() for cam in cams], relevance, (height, width))
    return maps, *reference.peaks(maps, content)


@fuse_cams_peaks.register_kernel("cuda")
def _(
    cams: Sequence[Tensor], relevance: Tensor, height: int, width: int, content: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams as launch

    found = launch(cams, relevance, (height, width), content=content, dtype=torch.float32, peaks=True)
    assert found.maps is not None
    assert found.values is not None
    assert found.positions is not None
    return found.maps, found.values, found.positions


@fuse_cams_peaks.register_fake
def _(
    cams: Sequence[Tensor], relevance: Tensor, height: int, width: int, content: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    B, K, _ = reference.check_shapes(cams, relevance, None)
    maps = cams[0].new_empty((B, K, height, width), dtype=torch.float32)
    return maps, maps.new_empty((B, K)), maps.new_empty((B, K, 2), dtype=torch.int32)


@torch.library.custom_op("msloc::window_resize", mutates_args=(), device_types="cpu")
def window_resize(pixels: Tensor, table: Tensor, input_size: Sequence[int], place: Sequence[int]) -> Tensor:
    """Stored pixels [H, W] through a table [2**bits] into the model's input [1, 1, h, w]: float32, in one pass.

    input_size  h, w
    place       left, top, width, height of the film within the input; see kernels.window_resize.reference
    """
    return window_reference.window_resize(pixels, table, _geometry(pixels, input_size, place))


@window_resize.register_kernel("cuda")
def _(pixels: Tensor, table: Tensor, input_size: Sequence[int], place: Sequence[int]) -> Tensor:
    from msloc_edge.kernels.window_resize.launch import window_resize as launch

    return launch(pixels, table, _geometry(pixels, input_size, place))


@window_resize.register_fake
def _(pixels: Tensor, table: Tensor, input_size: Sequence[int], place: Sequence[int]) -> Tensor:
    return table.new_empty((1, 1, *input_size))


@torch.library.custom_op("msloc::regions", mutates_args=(), device_types="cpu")
def regions(
    maps: Tensor,
    thresholds: Tensor,
    content: Optional[Tensor] = None,  # noqa: UP045
    max_regions: int = 64,
) -> tuple[Tensor, Tensor]:
    """The 8-connected regions where maps [B, J, H, W] exceed thresholds [J]: counts [B, J] and table [B, J, R, 8].

    content  [B, 4], the film's top, left, height and width in the map; see kernels.regions.reference
    """
    return regions_reference.regions(maps, thresholds, content, max_regions)


@regions.register_kernel("cuda")
def _(maps: Tensor, thresholds: Tensor, content: Tensor | None = None, max_regions: int = 64) -> tuple[Tensor, Tensor]:
    from msloc_edge.kernels.regions.launch import regions as launch

    found = launch(maps, thresholds, content, max_regions)
    return found.counts, found.table


@regions.register_fake
def _(maps: Tensor, thresholds: Tensor, content: Tensor | None = None, max_regions: int = 64) -> tuple[Tensor, Tensor]:
    B, J = regions_reference.check_shapes(maps, thresholds, content, max_regions)
    counts = maps.new_empty((B, J), dtype=torch.int32)
    return counts, maps.new_empty((B, J, max_regions, regions_reference.COLUMNS), dtype=torch.int32)


def _geometry(pixels: Tensor, input_size: Sequence[int], place: Sequence[int]) -> Geometry:
    (image_height, image_width), (height, width) = pixels.shape, input_size
    return Geometry(image_width, image_height, width, height, *place)
