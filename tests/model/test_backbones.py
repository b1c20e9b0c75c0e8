"""The backbones, against their published architectures: names, shapes, counts, and the forward pass by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from msloc_edge.model import ModelConfig, build
from msloc_edge.model.densenet import DenseNet121
from msloc_edge.model.edge import EdgeNet

Shapes = dict[str, tuple[int, ...]]
State = dict[str, torch.Tensor]
ByHand = Callable[[State, torch.Tensor], list[torch.Tensor]]


def norm_shapes(name: str, channels: int) -> Shapes:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in per_channel} | {f"{name}.num_batches_tracked": ()}


def densenet121_shapes() -> Shapes:
    """torchvision's densenet121 without its classifier, from the paper's table 1; the stem takes one channel."""
    shapes: Shapes = {"features.conv0.weight": (64, 1, 7, 7)} | norm_shapes("features.norm0", 64)
    channels = 64
    for block, layers in ((1, 6), (2, 12), (3, 24), (4, 16)):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            shapes |= norm_shapes(f"{name}.norm1", channels) | {f"{name}.conv1.weight": (128, channels, 1, 1)}
            shapes |= norm_shapes(f"{name}.norm2", 128) | {f"{name}.conv2.weight": (32, 128, 3, 3)}
            channels += 32
        if block < 4:
            name = f"features.transition{block}"
            shapes |= norm_shapes(f"{name}.norm", channels)
            shapes |= {f"{name}.conv.weight": (channels // 2, channels, 1, 1)}
            channels //= 2
    return shapes | norm_shapes("features.norm5", channels)


def edge_shapes() -> Shapes:
    """torchvision's names of a basic-block ResNet of widths 32, 64, 128, 160 and 1, 1, 2, 2 blocks, and our norms."""
    shapes: Shapes = {"conv1.weight": (32, 1, 7, 7)} | norm_shapes("bn1", 32)
    inputs = 32
    for layer, (width, blocks) in enumerate(((32, 1), (64, 1), (128, 2), (160, 2)), start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, inputs, 3, 3)} | norm_shapes(f"{name}.bn1", width)
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3)} | norm_shapes(f"{name}.bn2", width)
            if inputs != width:
                shapes |= {f"{name}.downsample.0.weight": (width, inputs, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", width)
            inputs = width
        shapes |= norm_shapes(f"norms.{layer - 1}", width)
    return shapes


@pytest.mark.parametrize(("backbone", "expected"), [(DenseNet121, densenet121_shapes()), (EdgeNet, edge_shapes())])
def test_names_and_shapes(backbone: type[torch.nn.Module], expected: Shapes) -> None:
    assert {name: tuple(t.shape) for name, t in backbone().state_dict().items()} == expected


def test_densenet_counts() -> None:
    net = DenseNet121()
    # torchvision: 7,978,856 parameters, of which 1,025,000 in the classifier; ours has one input channel, not three.
    assert sum(p.numel() for p in net.parameters()) == 7_978_856 - 1_025_000 - 2 * 64 * 7 * 7
    assert len(net.state_dict()) == 727 - 2


def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """The network with random batch statistics, so that none of its steps is the identity."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    return net.double().eval()


def norm(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    parts = (state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias"))
    mean, var, weight, bias = parts
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def densenet_by_hand(state: State, x: torch.Tensor) -> list[torch.Tensor]:
    x = F.conv2d(x, state["features.conv0.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, state, "features.norm0")), 3, 2, 1)
    stages = []
    for block, layers in ((1, 6), (2, 12), (3, 24), (4, 16)):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = F.conv2d(F.relu(norm(x, state, f"{name}.norm1")), state[f"{name}.conv1.weight"])
            new = F.conv2d(F.relu(norm(new, state, f"{name}.norm2")), state[f"{name}.conv2.weight"], padding=1)
            x = torch.cat([x, new], dim=1)
        name = f"features.transition{block}"
        x = F.relu(norm(x, state, f"{name}.norm" if block < 4 else "features.norm5"))
        stages.append(x)
        if block < 4:
            x = F.avg_pool2d(F.conv2d(x, state[f"{name}.conv.weight"]), 2, 2)
    return stages


def edge_by_hand(state: State, x: torch.Tensor) -> list[torch.Tensor]:
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, state, "bn1")), 3, 2, 1)
    stages = []
    for layer, blocks in ((1, 1), (2, 1), (3, 2), (4, 2)):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            out = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(F.relu(norm(out, state, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
            out = norm(out, state, f"{name}.bn2")
            if stride == 2:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
                x = norm(x, state, f"{name}.downsample.1")
            x = F.relu(out + x)
        stages.append(F.relu(norm(x, state, f"norms.{layer - 1}")))
    return stages


@pytest.mark.parametrize(
    ("backbone", "by_hand", "channels"),
    [(DenseNet121, densenet_by_hand, (256, 512, 1024, 1024)), (EdgeNet, edge_by_hand, (32, 64, 128, 160))],
)
def test_stages_by_hand(backbone: type[torch.nn.Module], by_hand: ByHand, channels: tuple[int, ...]) -> None:
    net = shaken(backbone())
    image = torch.randn(2, 1, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        stages, expected = net(image), by_hand(net.state_dict(), image)
    assert net.channels == channels
    shapes = [(2, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(stage.shape) for stage in stages] == shapes
    for ours, theirs in zip(stages, expected, strict=True):
        assert ours.min() >= 0
        assert ours.max() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_network_normalises_grey_itself() -> None:
    net = build(ModelConfig(("a",), size=64)).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(image).logits, net.head(net.backbone((image - 0.449) / 0.226))[0])


def test_fresh_logits_are_near_the_bias() -> None:
    torch.manual_seed(0)
    net = build(ModelConfig(("a", "b"), size=64))
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([-2.0, 1.0]))
        logits = net(torch.rand(2, 1, 64, 64)).logits
    assert (logits - net.head.bias).abs().max() < 0.5


def test_config_survives_json() -> None:
    config = ModelConfig(("a", "b"), "densenet121", 320, "pcam", "last")
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "vgg"}, "backbone to be one of edge, efficientnet_lite0, densenet121, got 'vgg'"),
        ({"pool": "median"}, "pool to be one of avg, lse, max, pcam"),
        ({"stages": "first"}, "stages to be one of all, last"),
        ({"size": 100}, "a multiple of 32, got 100"),
        ({"size": 32}, "at least 64"),
        ({"sharpness": 0.0}, "sharpness to be above 0 and at most 100, got 0.0"),
        ({"sharpness": math.inf}, "sharpness to be finite"),
        ({"classes": ()}, "at least one"),
        ({"classes": ("a", "a")}, "classes to be distinct names"),
    ],
)
def test_config_refuses(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"classes": ("a",), **values})
