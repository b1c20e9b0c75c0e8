"""Backbone and head as one network, from a film in [0, 1] to logits and class maps."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msloc_edge.errors import TrainError
from msloc_edge.model.config import ModelConfig
from msloc_edge.model.densenet import DenseNet121
from msloc_edge.model.edge import EdgeNet
from msloc_edge.model.efficientnet import EfficientNetLite0
from msloc_edge.model.foreign import ForeignBackbone, StageNorms
from msloc_edge.model.head import RelevanceHead
from msloc_edge.model.neck import WIDTH, TopDownNeck

Own = DenseNet121 | EdgeNet | EfficientNetLite0
Backbone = Own | ForeignBackbone
BACKBONES: dict[str, type[Own]] = {"densenet121": DenseNet121, "edge": EdgeNet, "efficientnet_lite0": EfficientNetLite0}

GREY_MEAN, GREY_STD = 0.449, 0.226
"""ImageNet's channel means and deviations, averaged: what single-channel input is normalised with."""


class Prediction(NamedTuple):
    """logits [B, K]; cams: S tensors [B, K, h_s, w_s], unweighted, shallow stage first."""

    logits: Tensor
    cams: tuple[Tensor, ...]


class CamNet(nn.Module):
    """[B, 1, H, W] float in [0, 1] -> Prediction. H and W are multiples of 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config)
        self.first_stage = 0 if config.stages == "all" else len(self.backbone.channels) - 1
        channels = self.backbone.channels[self.first_stage :]
        self.neck: nn.Module = StageNorms(channels) if config.is_foreign else nn.Identity()
        if config.neck != "none":
            if any(2 * fine != coarse for fine, coarse in pairwise(self.strides)):
                raise TrainError(
                    "option_invalid", f"expected stages whose grids halve for the neck, got strides of {self.strides}"
                )
            self.neck = TopDownNeck(channels, refine=config.neck == "pyramid")
            channels = (WIDTH,) * len(channels)
        self.head = RelevanceHead(channels, len(config.classes), config.pool, config.sharpness)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell of each stage in use."""
        return self.backbone.strides[self.first_stage :]

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the features that the head reads: S tensors [B, C_s, h_s, w_s]."""
        features: tuple[Tensor, ...] = self.neck(self.backbone((image - GREY_MEAN) / GREY_STD)[self.first_stage :])
        return features

    def forward(self, image: Tensor) -> Prediction:
        return Prediction(*self.head(self.features(image)))


def make_backbone(config: ModelConfig) -> Backbone:
    """Make the backbone of a configuration; one of somebody else's code with the weights that its factory gives it."""
    if config.is_foreign:
        return ForeignBackbone(config.backbone, config.stages_at, config.size, (GREY_MEAN, GREY_STD))
    return BACKBONES[config.backbone]()


def build(config: ModelConfig) -> CamNet:
    """Build a network with fresh weights: He initialisation for convolutions (He et al. 2015, arXiv 1502.01852).

    A backbone of somebody else's code keeps those that its factory gives it.
    """
    net = CamNet(config)
    fresh = [] if config.is_foreign else [*net.backbone.modules()]
    for module in [*fresh, *net.neck.modules()]:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for classifier in net.head.classifiers:
        # Small maps at the start: the first logits are near their bias, whatever the number of channels.
        assert isinstance(classifier, nn.Conv2d)
        nn.init.normal_(classifier.weight, std=0.01)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
