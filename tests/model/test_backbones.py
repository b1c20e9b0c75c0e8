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
from msloc_edge.model.efficientnet import DROP_PATH, EfficientNetLite0, MBConv, SameConv, drop_path

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


LITE0 = (  # the paper's table 1 less squeeze-excitation: repeats, kernel, first stride, expansion, output channels
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
LITE0_BLOCKS = [  # input channels, output channels, kernel, stride, expansion
    (outputs if repeat else before, outputs, kernel, 1 if repeat else stride, expansion)
    for (repeats, kernel, stride, expansion, outputs), before in zip(LITE0, (32, 16, 24, 40, 80, 112, 192), strict=True)
    for repeat in range(repeats)
]


def lite0_shapes() -> Shapes:
    """Names of the published EfficientNet-Lite0 less their leading underscores and its classifier, and our norms."""
    shapes: Shapes = {"conv_stem.weight": (32, 1, 3, 3)} | norm_shapes("bn0", 32)
    for block, (inputs, outputs, kernel, _, expansion) in enumerate(LITE0_BLOCKS):
        name, inner = f"blocks.{block}", inputs * expansion
        if expansion > 1:
            shapes |= {f"{name}.expand_conv.weight": (inner, inputs, 1, 1)} | norm_shapes(f"{name}.bn0", inner)
        shapes |= {f"{name}.depthwise_conv.weight": (inner, 1, kernel, kernel)} | norm_shapes(f"{name}.bn1", inner)
        shapes |= {f"{name}.project_conv.weight": (outputs, inner, 1, 1)} | norm_shapes(f"{name}.bn2", outputs)
    for stage, channels in enumerate((24, 40, 112, 320)):
        shapes |= norm_shapes(f"norms.{stage}", channels)
    return shapes


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [(DenseNet121, densenet121_shapes()), (EdgeNet, edge_shapes()), (EfficientNetLite0, lite0_shapes())],
)
def test_names_and_shapes(backbone: type[torch.nn.Module], expected: Shapes) -> None:
    assert {name: tuple(t.shape) for name, t in backbone().state_dict().items()} == expected


def test_densenet_counts() -> None:
    net = DenseNet121()
    # torchvision: 7,978,856 parameters, of which 1,025,000 in the classifier; ours has one input channel, not three.
    assert sum(p.numel() for p in net.parameters()) == 7_978_856 - 1_025_000 - 2 * 64 * 7 * 7
    assert len(net.state_dict()) == 727 - 2


def test_efficientnet_counts() -> None:
    net = EfficientNetLite0()
    published = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("norms."))
    # The wheel's file: 4,652,008 parameters, of which 320 x 1280 and 2 x 1280 in the last convolution and its norm and
    # 1281 x 1000 in the classifier; ours has one input channel, not three.
    assert published == 4_652_008 - 322 * 1280 - 1281 * 1000 - 2 * 32 * 3 * 3


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


def norm(x: torch.Tensor, state: State, name: str, epsilon: float = 1e-5) -> torch.Tensor:
    parts = (state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias"))
    mean, var, weight, bias = parts
    return (x - mean) / torch.sqrt(var + epsilon) * weight + bias


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


def same_conv(x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
    """TensorFlow's SAME: an output of ceil(n / stride), padded by what that needs, the odd pixel below and right."""
    kernel = weight.shape[2]
    needs = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:1:-1]]  # width, height
    x = F.pad(x, [part for total in needs for part in (total // 2, total - total // 2)])
    return F.conv2d(x, weight, stride=stride, groups=groups)


def lite0_by_hand(state: State, x: torch.Tensor) -> list[torch.Tensor]:
    def activated(x: torch.Tensor, name: str) -> torch.Tensor:
        return norm(x, state, name, 1e-3).clamp(0, 6)

    x = activated(same_conv(x, state["conv_stem.weight"], 2), "bn0")
    stages = []
    for block, (inputs, outputs, _, stride, expansion) in enumerate(LITE0_BLOCKS):
        name, inner = f"blocks.{block}", x
        if expansion > 1:
            inner = activated(F.conv2d(x, state[f"{name}.expand_conv.weight"]), f"{name}.bn0")
        filtered = same_conv(inner, state[f"{name}.depthwise_conv.weight"], stride, inputs * expansion)
        out = F.conv2d(activated(filtered, f"{name}.bn1"), state[f"{name}.project_conv.weight"])
        out = norm(out, state, f"{name}.bn2", 1e-3)
        x = x + out if stride == 1 and inputs == outputs else out
        if block in (2, 4, 10, 15):  # the last at a stride of 4, 8, 16, 32
            stages.append(F.relu(norm(x, state, f"norms.{len(stages)}")))
    return stages


@pytest.mark.parametrize(
    ("backbone", "by_hand", "channels"),
    [
        (DenseNet121, densenet_by_hand, (256, 512, 1024, 1024)),
        (EdgeNet, edge_by_hand, (32, 64, 128, 160)),
        (EfficientNetLite0, lite0_by_hand, (24, 40, 112, 320)),
    ],
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


def test_same_padding_by_hand() -> None:
    conv = SameConv(1, 1, 3, stride=2)
    torch.nn.init.ones_(conv.weight)
    # Of 4 pixels, 3 wide and 2 apart: [0 1 2] and [2 3 -]; nothing is added above and left, one pixel below and right.
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert conv(ramp)[0, 0].tolist() == [[9.0, 15.0], [6.0, 10.0]]
    wide = SameConv(1, 1, 5, stride=2)
    torch.nn.init.ones_(wide.weight)
    # 5 wide: [- 0 1 2 3] and [1 2 3 - -], so four pixels and three.
    assert wide(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[16.0, 12.0], [12.0, 9.0]]


def test_stochastic_depth_drops_branches_in_training_alone() -> None:
    torch.manual_seed(0)
    block = MBConv(4, 4, 3, 1, 6, drop=0.5)
    films = torch.rand(64, 4, 8, 8)
    block.eval()
    with torch.no_grad():
        whole = block(films)
        assert torch.equal(block(films), whole)
        block.train()
        block.bn0.eval(), block.bn1.eval(), block.bn2.eval()  # the same statistics: only the branch differs
        dropped = block(films)
    branch = whole - films
    kept = (dropped - films).flatten(1).abs().sum(dim=1) > 0
    assert 16 < kept.sum() < 48
    torch.testing.assert_close(dropped[kept] - films[kept], 2 * branch[kept])  # its mean stays


def test_a_block_without_a_shortcut_is_never_dropped() -> None:
    assert MBConv(4, 4, 3, 2, 6, drop=0.5).drop == 0
    assert MBConv(4, 8, 3, 1, 6, drop=0.5).drop == 0
    drops = [block.drop for block in EfficientNetLite0().blocks]
    assert drops[0] == 0
    assert max(drops) == pytest.approx(DROP_PATH * 14 / 16)  # the last has no shortcut
    torch.manual_seed(0)
    assert torch.equal(drop_path(torch.ones(3, 1, 1, 1), 0.0), torch.ones(3, 1, 1, 1))


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
        ({"backbone": "vgg"}, "efficientnet_lite0, densenet121, or PACKAGE.MODULE:FACTORY, got 'vgg'"),
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
