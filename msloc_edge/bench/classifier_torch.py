"""The bare classifier in PyTorch; `classifier.bare_classifier` loads it where torch is installed."""

from __future__ import annotations

import torch
from torch import Tensor

from msloc_edge.backends import Backend
from msloc_edge.backends.torch.backend import TorchBackend
from msloc_edge.backends.torch.precision import DTYPES
from msloc_edge.bench.classifier import linear_weights
from msloc_edge.model.network import BACKBONES, Prediction


def without_maps(backend: Backend) -> Backend:
    """A loaded torch backend's network without neck and head: its deepest features, averaged, multiplied -> logits."""
    assert isinstance(backend, TorchBackend)
    net, device, precision = backend._net, backend._device, backend._precision
    channels = BACKBONES[net.config.backbone].channels[-1]
    weight = torch.from_numpy(linear_weights(len(net.config.classes), channels)).to(device)
    net.neck = torch.nn.Identity()

    def classify(films: Tensor) -> Prediction:
        with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            deepest = net.features(films)[-1]
        return Prediction(deepest.float().mean(dim=(2, 3)) @ weight.T, ())

    return TorchBackend(backend._bundle, net, device, precision, classify)
