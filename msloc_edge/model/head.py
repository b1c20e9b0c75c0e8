"""Class maps per stage, and the layer relevance weights that combine them (Sedai et al. 2018, arXiv 1808.08280).

    A_{k,s} = <c_{k,s}, F_s>                       class maps: a 1x1 convolution without bias
    w_k     = softmax(theta_k)                     layer relevance weights: one convex combination per class
    z_k     = b_k + sum_s w_{k,s} pool(A_{k,s})    logit

With average pooling the map M_k = sum_s w_{k,s} up(A_{k,s}) is an additive account of the logit:
mean(M_k) = z_k - b_k, because bilinear upsampling by whole numbers keeps the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msloc_edge.model.config import SHARPNESS

# Each pools maps [B, K, h, w] to [B, K], over all cells or over those where `cells` [K, h, w] is 1 and not 0. Where a
# class has no such cell, the result is 0.
_NONE = -1e4


def pool_avg(maps: Tensor, cells: Tensor | None = None) -> Tensor:
    """Average maps [B, K, h, w] -> [B, K].  pool_avg([[1, 3]]) -> 2"""
    if cells is None:
        return maps.mean(dim=(2, 3))
    return (maps * cells).sum(dim=(2, 3)) / cells.sum(dim=(1, 2)).clamp(min=1)


def pool_lse(maps: Tensor, cells: Tensor | None = None, sharpness: float = SHARPNESS) -> Tensor:
    """Pool by log-sum-exp, a smooth maximum (Pinheiro and Collobert 2015, arXiv 1411.6228, eq. 6).

    sharpness: r of that formula; 0 is the average, infinity the maximum.
    """
    flat = sharpness * maps.flatten(2)
    if cells is None:
        return (torch.logsumexp(flat, dim=2) - math.log(flat.shape[2])) / sharpness
    counted = cells.flatten(1)
    count = counted.sum(dim=1)
    pooled = (torch.logsumexp(flat + _NONE * (1 - counted), dim=2) - count.clamp(min=1).log()) / sharpness
    return pooled * (count > 0)


def pool_max(maps: Tensor, cells: Tensor | None = None) -> Tensor:
    """Take the maximum of maps [B, K, h, w] -> [B, K].  pool_max([[1, 3]]) -> 3"""
    if cells is None:
        return maps.amax(dim=(2, 3))
    return (maps + _NONE * (1 - cells)).amax(dim=(2, 3)) * (cells.sum(dim=(1, 2)) > 0)


def pool_pcam(maps: Tensor, cells: Tensor | None = None) -> Tensor:
    """Probabilistic-CAM pooling: every cell counts by its own probability (Ye et al. 2020, arXiv 2005.14480, eq. 4).

    Only ratios of probabilities count, so they are scaled to have 1 as their largest: where a class is absent all are
    tiny, and engines differ in tiny sigmoids (onnxruntime's is constant below -18).
    """
    log_attention = -F.softplus(-maps)  # not logsigmoid: the exporter writes that as Log(Sigmoid(x))
    attention = (log_attention - log_attention.amax(dim=(2, 3), keepdim=True)).exp()
    if cells is None:
        return (attention * maps).sum(dim=(2, 3)) / attention.sum(dim=(2, 3))
    attention = attention * cells
    return (attention * maps).sum(dim=(2, 3)) / attention.sum(dim=(2, 3)).clamp(min=torch.finfo(maps.dtype).tiny)


POOLING: dict[str, Callable[..., Tensor]] = {"avg": pool_avg, "lse": pool_lse, "max": pool_max, "pcam": pool_pcam}


class RelevanceHead(nn.Module):
    """Stage features F_s [B, C_s, h_s, w_s] -> logits [B, K] and the unweighted class maps A_s [B, K, h_s, w_s]."""

    def __init__(self, channels: Sequence[int], classes: int, pool: str, sharpness: float = SHARPNESS) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(nn.Conv2d(c, classes, 1, bias=False) for c in channels)
        self.theta = nn.Parameter(torch.zeros(classes, len(channels)))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.pool = partial(pool_lse, sharpness=sharpness) if pool == "lse" else POOLING[pool]

    @property
    def relevance(self) -> Tensor:
        """Layer relevance weights w [K, S]: each row is non-negative and sums to one."""
        return self.theta.softmax(dim=1)

    def pooled(self, cams: Sequence[Tensor], cells: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """pool(A_{k,s}): S tensors [B, K], over all cells or over `cells` (S tensors [K, h_s, w_s] of 0 and 1)."""
        return [self.pool(cam, own) for cam, own in zip(cams, cells or [None] * len(cams), strict=True)]

    def logits(self, pooled: Sequence[Tensor], bias: Tensor) -> Tensor:
        """z_k from what `pooled` gives, and b_k: [B, K]."""
        # Added one by one, not stacked and summed: OpenVINO 2026.4 on a CPU adds a bias that follows a ReduceSum along
        # the wrong axis, so that the logits of every batch of more than one film were wrong.
        logits = bias
        for weight, stage in zip(self.relevance.unbind(dim=1), pooled, strict=True):
            logits = logits + weight * stage
        return logits

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        cams = tuple(classify(f) for classify, f in zip(self.classifiers, features, strict=True))
        return self.logits(self.pooled(cams), self.bias), cams
