"""The network with its convolutions in 16 bits, where a device is faster in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msloc_edge.model import CamNet
from msloc_edge.model.network import Prediction

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Predict = Callable[[Tensor], Prediction]


def in_precision(net: CamNet, dtype: torch.dtype) -> Predict:
    """The network, which is changed: backbone and neck convolve in `dtype`, class maps and logits stay in float32.

    A class map is a sum over channels and a logit one over a map: there 16 bits would be lost, and little time won.
    """
    if dtype == torch.float32:
        return net
    for part in (net.backbone, net.neck):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)

    def predict(films: Tensor) -> Prediction:
        with torch.autocast(films.device.type, dtype):
            features = net.features(films)
        return Prediction(*net.head([feature.float() for feature in features]))

    return predict
