"""The operations as torch custom operators, which torch.compile and torch.export pass through as one node.

Importing this module registers torch.ops.msloc; triton is imported when an operator first meets a CUDA tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from msloc_edge.kernels.fuse_cams import reference


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
    batch, _, wanted = reference.checked(cams, relevance, classes)
    return cams[0].new_empty((batch, wanted, height, width))
