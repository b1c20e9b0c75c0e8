"""DenseNet-121 (Huang et al. 2017, arXiv 1608.06993) with torchvision's state-dict names, giving its four stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROWTH = 32
BOTTLENECK = 4
LAYERS = (6, 12, 24, 16)

IMAGENET_RGB = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Channel means and deviations that torchvision's weights expect their input to be normalised with."""


class DenseLayer(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3: GROWTH new channels from all channels before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * GROWTH)
        self.conv2 = nn.Conv2d(BOTTLENECK * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.norm1(x), inplace=True))
        new: Tensor = self.conv2(F.relu(self.norm2(x), inplace=True))
        return new


class DenseBlock(nn.Module):
    """Each layer sees the concatenation of the block's input and of all layers before it."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * GROWTH))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Transition(nn.Module):
    """Halves channels and grid. Its norm and ReLU are also the block's normalised features F_s, at no extra cost."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normed = F.relu(self.norm(x))
        return normed, F.avg_pool2d(self.conv(normed), 2)


class DenseNet121(nn.Module):
    """[B, 1, H, W] -> the four stages' normalised, rectified features.

    F_1 [B, 256, H/4, W/4], F_2 [B, 512, H/8, W/8], F_3 [B, 1024, H/16, W/16], F_4 [B, 1024, H/32, W/32]
    """

    channels = (256, 512, 1024, 1024)
    strides = (4, 8, 16, 32)
    stem = ("features.conv0.weight", "features.norm0.running_mean")
    rgb = IMAGENET_RGB
    own_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {"conv0": nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False), "norm0": nn.BatchNorm2d(64)}
        )
        channels = 64
        for stage, layers in enumerate(LAYERS, start=1):
            self.features[f"denseblock{stage}"] = DenseBlock(channels, layers)
            channels += layers * GROWTH
            if stage < len(LAYERS):
                self.features[f"transition{stage}"] = Transition(channels)
                channels //= 2
        self.features["norm5"] = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.features["norm0"](self.features["conv0"](x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        stages = []
        for stage in (1, 2, 3):
            x = self.features[f"denseblock{stage}"](x)
            normed, x = self.features[f"transition{stage}"](x)
            stages.append(normed)
        stages.append(F.relu(self.features["norm5"](self.features["denseblock4"](x))))
        return tuple(stages)
