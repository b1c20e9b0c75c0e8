"""Classifiers of other people, small: with torchvision's structure and names, and plain ones. Factories of tests."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 2


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu1 = self.relu2 = nn.ReLU(inplace=True)

    def forward(self, parts: list[Tensor]) -> Tensor:
        found: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(torch.cat(parts, 1)))))))
        return found


class _DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, channels: int, growth: int) -> None:
        super().__init__({f"denselayer{n + 1}": _DenseLayer(channels + n * growth, growth) for n in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for layer in self.values():
            parts.append(layer(parts))
        return torch.cat(parts, 1)


class DenseNet(nn.Module):
    """torchvision's DenseNet: its names, with the pool as a function in `forward`."""

    def __init__(self, growth: int = 8, blocks: tuple[int, ...] = (2, 2, 3, 2)) -> None:
        super().__init__()
        channels = 2 * growth
        self.features = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv0=nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(channels),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        for number, layers in enumerate(blocks, 1):
            self.features.add_module(f"denseblock{number}", _DenseBlock(layers, channels, growth))
            channels += layers * growth
            if number < len(blocks):
                parts = OrderedDict[str, nn.Module](
                    norm=nn.BatchNorm2d(channels),
                    relu=nn.ReLU(inplace=True),
                    conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                    pool=nn.AvgPool2d(2, stride=2),
                )
                self.features.add_module(f"transition{number}", nn.Sequential(parts))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.features(x), inplace=True)
        logits: Tensor = self.classifier(torch.flatten(F.adaptive_avg_pool2d(features, (1, 1)), 1))
        return logits


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        found: Tensor = self.relu(out + self.downsample(x))
        return found


class ResNet(nn.Module):
    """torchvision's ResNet of bottlenecks, its names."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = width
        for number in range(1, 5):
            inner = width * 2 ** (number - 1)
            self.add_module(f"layer{number}", nn.Sequential(_Bottleneck(inputs, inner, 2 if number > 1 else 1)))
            inputs = 4 * inner
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def densenet() -> nn.Module:
    return _lively(DenseNet())


def resnet() -> nn.Module:
    return _lively(ResNet())


def chexnet() -> nn.Module:
    """A DenseNet whose classifier ends in a sigmoid, as CheXNet's published code has it."""
    net = DenseNet()
    net.classifier = nn.Sequential(nn.Linear(net.classifier.in_features, CLASSES), nn.Sigmoid())  # type: ignore[assignment]
    return _lively(net)


def plain() -> nn.Module:
    """A network of one channel whose last convolution is the classifier."""
    layers = [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Hardswish(), nn.Conv2d(8, CLASSES, 1)]
    return _lively(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def two_linear_layers() -> nn.Module:
    """Pooling and a small perceptron: there is no exact class map."""
    layers = [nn.Conv2d(1, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, CLASSES))


def maximum() -> nn.Module:
    """Pooling by the maximum."""
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))


def no_network() -> int:
    return 1


def broken() -> nn.Module:
    raise RuntimeError("no weights here")


def _lively(net: nn.Module) -> nn.Module:
    """Random weights and statistics, the same every time, with which logits differ from film to film."""
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.3, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return net.eval()
