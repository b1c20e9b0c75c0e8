"""The bare classifier in PyTorch; `classifier.bare_classifier` loads it where torch is installed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msloc_edge.backends import Backend
from msloc_edge.backends.torch import TorchBackend
from msloc_edge.bench.classifier import linear_weights
from msloc_edge.model.network import BACKBONES


class PooledLinear(nn.Module):
    """Takes a RelevanceHead's place: the deepest stage's features, averaged and multiplied -> logits, no class maps."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(linear_weights(classes, channels)))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return features[-1].mean(dim=(2, 3)) @ self.weight.T, ()


def without_maps(backend: Backend) -> Backend:
    """A loaded torch backend, with the neck and the head of its network replaced."""
    assert isinstance(backend, TorchBackend)
    net = backend._net
    net.neck = nn.Identity()
    channels = BACKBONES[net.config.backbone].channels[-1]
    net.head = PooledLinear(len(net.config.classes), channels).to(backend._device)  # type: ignore[assignment]
    return backend
