"""The edge backbone: a slim residual network (He et al. 2016, arXiv 1512.03385) of plain 3x3 convolutions.

Plain convolutions run near peak on every engine (oneDNN, OpenVINO, TensorRT) and quantise well; depthwise ones do
neither (measured: docs/method.md). Most of the depth sits in the two coarse stages, where it is cheap and where the
receptive field (387 px) must cover a heart. State-dict names are torchvision's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from msloc_edge.model.densenet import IMAGENET_RGB

WIDTHS = (32, 64, 128, 160)
BLOCKS = (1, 1, 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x), inplace=True)


class EdgeNet(nn.Module):
    """[B, 1, H, W] -> the four stages' normalised, rectified features.

    F_1 [B, 32, H/4, W/4], F_2 [B, 64, H/8, W/8], F_3 [B, 128, H/16, W/16], F_4 [B, 160, H/32, W/32]
    """

    channels = WIDTHS
    strides = (4, 8, 16, 32)
    stem = ("conv1.weight", "bn1.running_mean")
    rgb = IMAGENET_RGB
    own_names = ("norms.",)  # the stages' normalisation is ours: no published checkpoint holds it

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs, layers = WIDTHS[0], []
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(BasicBlock(inputs, width, stride=2 if stage and not block else 1))
                inputs = width
            layers.append(layer)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        # A residual sum has no fixed scale: normalised here, so that the stages' class maps share one.
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        stages = []
        for layer, norm in zip((self.layer1, self.layer2, self.layer3, self.layer4), self.norms, strict=True):
            x = layer(x)
            stages.append(F.relu(norm(x)))
        return tuple(stages)
