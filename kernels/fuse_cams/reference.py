"""The plain form of fuse_cams, which every other implementation is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse_cams(
    cams: Sequence[Tensor], relevance: Tensor, size: tuple[int, int], classes: Tensor | None = None
) -> Tensor:
    """M_k = sum_s w_{k,s} up(A_{k,s}): the localization maps, in logit units.

    cams       S tensors [B, K, h_s, w_s], unweighted
    relevance  [K, S], rows sum to one
    size       (H, W) of the result
    classes    [B, J] integer class indices per image; None computes all K
    returns    [B, J or K, H, W] in the dtype of the maps

    up is bilinear with half-pixel centres, clamped at the edge (torch's align_corners=False, antialias off).
    Raises ValueError when the shapes do not fit together.
    """
    stages, (batch, count) = len(cams), cams[0].shape[:2]
    if relevance.shape != (count, stages):
        raise ValueError(f"expected relevance of shape {(count, stages)}, got {tuple(relevance.shape)}")
    if any(cam.shape[:2] != (batch, count) for cam in cams):
        raise ValueError(f"expected maps of shape [{batch}, {count}, h, w], got {[tuple(c.shape) for c in cams]}")
    if classes is None:
        classes = torch.arange(count, device=relevance.device).expand(batch, count)
    if classes.ndim != 2 or classes.shape[0] != batch:
        raise ValueError(f"expected classes of shape [{batch}, J], got {tuple(classes.shape)}")
    rows = torch.arange(batch, device=relevance.device)[:, None]
    total = cams[0].new_zeros((batch, classes.shape[1], *size))
    if not classes.numel():
        return total  # a normal film asks for no map, and torch upsamples no empty tensor
    for stage, cam in enumerate(cams):
        weight = relevance[classes, stage].to(cam.dtype)[:, :, None, None]
        total += F.interpolate(weight * cam[rows, classes], size, mode="bilinear", align_corners=False)
    return total
