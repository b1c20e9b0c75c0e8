"""The plain form of fuse_cams, which every other implementation is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse_cams(
    cams: Sequence[Tensor], relevance: Tensor, size: tuple[int, int], classes: Tensor | None = None
) -> Tensor:
    """Compute the localization maps M_k = sum_s w_{k,s} up(A_{k,s}), in logit units.

    cams       S tensors [B, K, h_s, w_s], unweighted
    relevance  [K, S], rows sum to one
    size       (H, W) of the result
    classes    [B, J] integer class indices per image; None computes all K
    returns    [B, J or K, H, W] in the dtype of the maps

    up is bilinear with half-pixel centres, clamped at the edge (torch's align_corners=False, antialias off).
    Raises ValueError when the shapes do not fit together.
    """
    B, K, J = check_shapes(cams, relevance, classes)
    if classes is None:
        classes = torch.arange(K, device=relevance.device).expand(B, K)
    rows = torch.arange(B, device=relevance.device)[:, None]
    total = cams[0].new_zeros((B, J, *size))
    if not classes.numel():
        return total  # a normal film asks for no map, and torch upsamples no empty tensor
    for stage, cam in enumerate(cams):
        weight = relevance[classes, stage].to(cam.dtype)[:, :, None, None]
        total += F.interpolate(weight * cam[rows, classes], size, mode="bilinear", align_corners=False)
    return total


def check_shapes(cams: Sequence[Tensor], relevance: Tensor, classes: Tensor | None) -> tuple[int, int, int]:
    """Return B, K and J. Raises ValueError when the shapes do not fit together."""
    S, (B, K) = len(cams), cams[0].shape[:2]
    if relevance.shape != (K, S):
        raise ValueError(f"expected relevance of shape {(K, S)}, got {tuple(relevance.shape)}")
    if any(cam.shape[:2] != (B, K) for cam in cams):
        raise ValueError(f"expected maps of shape [{B}, {K}, h, w], got {[tuple(c.shape) for c in cams]}")
    if classes is None:
        return B, K, K
    if classes.ndim != 2 or classes.shape[0] != B:
        raise ValueError(f"expected classes of shape [{B}, J], got {tuple(classes.shape)}")
    return B, K, classes.shape[1]


def peaks(maps: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the highest value [B, J] of each map and its (y, x) [B, J, 2], int32: the first of several in reading order.

    content  [B, 4] integers: top, left, height, width of where it may be, at least one pixel; None: anywhere
    """
    height, width = maps.shape[2:]
    if content is not None:
        top, left, down, across = (side[:, None] for side in content.to(maps.device).unbind(dim=1))
        y, x = torch.arange(height, device=maps.device), torch.arange(width, device=maps.device)
        rows, columns = (y >= top) & (y < top + down), (x >= left) & (x < left + across)
        maps = maps.masked_fill(~(rows[:, None, :, None] & columns[:, None, None, :]), -torch.inf)
    flat = maps.flatten(2)
    places = flat.argmax(dim=2)
    values = flat.gather(2, places[:, :, None])[:, :, 0]
    return values, torch.stack([places // width, places % width], dim=2).int()


def mask(maps: Tensor, thresholds: Tensor) -> Tensor:
    """M >= t as bits: [B, J, ceil(H / 8), W] uint8, bit r of byte (i, x) for pixel (8 i + r, x).

    thresholds  [B, J]. Back to pixels: np.unpackbits(mask, axis=2, count=H, bitorder="little")
    """
    B, J, H, W = maps.shape
    over = F.pad(maps >= thresholds[:, :, None, None], (0, 0, 0, -H % 8))
    places = torch.arange(8, device=maps.device, dtype=torch.uint8)[:, None]
    groups = over.reshape(B, J, -(-H // 8), 8, W).byte()
    return (groups << places).sum(dim=3, dtype=torch.uint8)


def color_index(maps: Tensor, thresholds: Tensor) -> Tensor:
    """floor(128 M / t) held in 0..255, uint8; floor(128 (1 + M - t)) for t <= 0; NaN and thresholds not finite: 0.

    thresholds  [B, J]. The formula of msloc_edge.render.heatmap.color_index, which says why
    """
    limit = thresholds.double()[:, :, None, None]
    ratio = torch.where(limit > 0, maps.double() / limit, 1 + (maps.double() - limit))
    level = torch.where(limit.isfinite(), (128 * ratio).floor().clamp(0, 255), 0)
    return level.nan_to_num(0).byte()
