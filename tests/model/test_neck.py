"""The top-down neck: grids kept, context passed down and never up, and the identity of the head above it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import ModelConfig, build
from msloc_edge.model.neck import WIDTH, TopDownNeck

SUM_ERROR = 1e-12
"""Bound of the additive identity in float64, relative: rounding of sums over at most 2**16 pixels, nothing else."""


def features(channels: tuple[int, ...], batch: int = 1, cell: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    sides = [cell * 2**at for at in reversed(range(len(channels)))]
    return [torch.rand(batch, c, side, side, generator=generator) for c, side in zip(channels, sides, strict=True)]


def test_every_stage_keeps_its_grid_and_is_rectified() -> None:
    given = features((3, 5, 4, 2), batch=2)
    outputs = TopDownNeck((3, 5, 4, 2))(given)
    assert [tuple(out.shape) for out in outputs] == [(2, WIDTH, *feature.shape[2:]) for feature in given]
    assert all(out.min() == 0 for out in outputs)


def test_by_hand() -> None:
    # Laterals of 1 and 10, norms that do nothing: P_2 = 10 * 0.2 = 2, P_1 = 1 * 0.5 + up(2) = 2.5.
    neck = TopDownNeck((1, 1)).eval()
    for lateral, weight in zip(neck.laterals, (1.0, 10.0), strict=True):
        assert isinstance(lateral, nn.Conv2d)
        nn.init.constant_(lateral.weight, weight)
    for norm in neck.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        norm.eps = 0.0
    shallow, deep = neck([torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 2, 2), 0.2)])
    torch.testing.assert_close(deep, torch.full((1, WIDTH, 2, 2), 2.0))
    torch.testing.assert_close(shallow, torch.full((1, WIDTH, 4, 4), 2.5))


def test_pyramid_by_hand() -> None:
    # P_2 = 2, P_1 = 2.5 as above; then a 3x3 sum of each channel, halved by the 1x1, and norms that do nothing.
    neck = TopDownNeck((1, 1), refine=True).eval()
    assert neck.second is not None
    for lateral, weight in zip(neck.laterals, (1.0, 10.0), strict=True):
        assert isinstance(lateral, nn.Conv2d)
        nn.init.constant_(lateral.weight, weight)
    for layer in neck.second:
        assert isinstance(layer, nn.Sequential)
        depthwise, pointwise, norm, _ = layer
        assert isinstance(depthwise, nn.Conv2d)
        assert isinstance(pointwise, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.ones_(depthwise.weight)
        with torch.no_grad():
            pointwise.weight.copy_(torch.eye(WIDTH)[:, :, None, None] / 2)
        norm.eps = 0.0
    for norm in neck.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        norm.eps = 0.0
    shallow, deep = neck([torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 2, 2), 0.2)])
    torch.testing.assert_close(deep, torch.full((1, WIDTH, 2, 2), 4 * 2.0 / 2))  # four cells of nine are on the grid
    assert shallow.shape == (1, WIDTH, 4, 4)
    assert shallow[0, 7].tolist()[:2] == [[5.0, 7.5, 7.5, 5.0], [7.5, 11.25, 11.25, 7.5]]


def test_the_second_layer_is_for_the_maps_alone() -> None:
    """What goes down to the shallower stages is P, not Q: a changed second layer changes its own stage and no other."""
    neck = TopDownNeck((2, 2, 2), refine=True).eval()
    assert neck.second is not None
    before = neck(features((2, 2, 2)))
    with torch.no_grad():
        for parameter in neck.second[2].parameters():
            parameter.add_(1)
        after = neck(features((2, 2, 2)))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False]


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_context_goes_down_only(changed: int) -> None:
    neck = TopDownNeck((2, 2, 2)).eval()
    given = features((2, 2, 2))
    before = neck(given)
    given[changed] = given[changed] + 1
    same = [torch.equal(a, b) for a, b in zip(before, neck(given), strict=True)]
    assert same == [stage > changed for stage in range(3)]


def test_one_stage_alone() -> None:
    net = build(ModelConfig(("a",), size=64, stages="last", neck="topdown"))
    assert [tuple(cam.shape) for cam in net(torch.zeros(1, 1, 64, 64)).cams] == [(1, 1, 2, 2)]


@pytest.mark.parametrize(
    ("backbone", "neck"), [("edge", "topdown"), ("densenet121", "topdown"), ("efficientnet_lite0", "pyramid")]
)
def test_the_map_accounts_for_the_logit(backbone: str, neck: str) -> None:
    net = build(ModelConfig(("a", "b"), backbone, 64, neck=neck)).double().eval()
    with torch.no_grad():
        net.head.theta.normal_(generator=torch.Generator().manual_seed(1))
        logits, cams = net(torch.rand(2, 1, 64, 96, dtype=torch.float64))
        maps = fuse_cams(cams, net.head.relevance, (64, 96))
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits - net.head.bias, rtol=SUM_ERROR, atol=SUM_ERROR)


def test_what_a_stage_says_alone() -> None:
    net = build(ModelConfig(("a", "b"), size=64)).eval()
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([1.0, -2.0]))
        logits, cams = net(torch.rand(3, 1, 64, 64))
        alone = torch.stack([net.head.bias + pooled for pooled in net.head.pooled(cams)], dim=2)
    weighted = (alone * net.head.relevance).sum(dim=2)
    torch.testing.assert_close(weighted, logits)  # the relevance weights sum to one, so the bias counts once


def test_an_unknown_neck_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected neck to be one of none, topdown, pyramid, got 'fpn'"):
        ModelConfig(("a",), neck="fpn")
