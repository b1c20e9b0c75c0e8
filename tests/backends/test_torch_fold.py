"""Convolutions that take in the normalisation behind them: the same numbers, and nothing changed that is read twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from msloc_edge.backends.torch.fold import fold_batchnorm
from msloc_edge.model import ModelConfig, build


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def seasoned(net: nn.Module) -> nn.Module:
    """In eval mode, with statistics and weights that a training would have left."""
    source = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight):
                assert values is not None
                values.data.uniform_(0.5, 1.5, generator=source)
            for values in (module.running_mean, module.bias):
                assert values is not None
                values.data.normal_(0, 0.2, generator=source)
    return net.eval()


# Normalisations that stay are those of sums and of concatenations: four stages of edge; 58 layers, three transitions
# and the last of DenseNet-121; three stages of EfficientNet-Lite0, whose fourth one's stands behind another.
@pytest.mark.parametrize(
    ("backbone", "all", "left"), [("edge", 20, 4), ("densenet121", 121, 62), ("efficientnet_lite0", 52, 3)]
)
def test_the_same_features(backbone: str, all: int, left: int) -> None:
    torch.manual_seed(0)
    whole = seasoned(build(ModelConfig(("a", "b"), backbone, 64)).backbone)
    with torch.inference_mode():
        film = torch.rand(2, 1, 64, 64)
        expected = whole(film)
        found = fold_batchnorm(whole)
        assert (norms(whole), norms(found)) == (all, left)
        for ours, theirs in zip(found(film), expected, strict=True):
            assert float((ours - theirs).abs().max() / theirs.std()) < 1e-4
        for ours, theirs in zip(whole(film), expected, strict=True):
            assert torch.equal(ours, theirs)  # what was given has not changed


class ReadTwice(nn.Module):
    """A convolution whose result is also wanted as it is, and a normalisation in front of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.before = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        plain = self.first(self.before(x))
        return plain, self.norm(plain)


def test_what_is_read_twice_stays() -> None:
    net = seasoned(ReadTwice())
    found = fold_batchnorm(net)
    assert norms(found) == 2
    x = torch.rand(1, 1, 5, 5)
    for ours, theirs in zip(found(x), net(x), strict=True):
        assert torch.equal(ours, theirs)
