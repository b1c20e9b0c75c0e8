"""The head: pools by hand, relevance as a convex combination, and the identity mean(M_k) = z_k - b_k."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import ModelConfig, build
from msloc_edge.model.head import POOLING, RelevanceHead, pool_avg, pool_lse, pool_max, pool_pcam

CHANNELS = (3, 5, 4, 2)
SUM_ERROR = 1e-12
"""Bound of the additive identity in float64: rounding of sums over at most 2**16 pixels, nothing else."""


def random_head(classes: int, stages: int, pool: str, seed: int, scale: float = 1.0) -> RelevanceHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = RelevanceHead(CHANNELS[len(CHANNELS) - stages :], classes, pool).double()
        with torch.no_grad():
            made.theta.normal_(0, scale)
            made.bias.normal_(0, 3)
    return made


def random_features(batch: int, height: int, width: int, stages: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    strides = (4, 8, 16, 32)[4 - stages :]
    return [
        torch.rand(batch, c, height // s, width // s, generator=generator, dtype=torch.float64)
        for c, s in zip(CHANNELS[4 - stages :], strides, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    batch=st.integers(1, 3),
    classes=st.integers(1, 6),
    stages=st.sampled_from([1, 4]),
    scale=st.sampled_from([0.0, 1.0, 20.0]),
    seed=st.integers(0, 2**31),
)
def test_the_map_accounts_for_the_logit(
    rows: int, columns: int, batch: int, classes: int, stages: int, scale: float, seed: int
) -> None:
    size = 32 * rows, 32 * columns
    made = random_head(classes, stages, "avg", seed, scale)
    logits, cams = made(random_features(batch, *size, stages, seed))
    maps = fuse_cams(cams, made.relevance, size)
    assert maps.shape == (batch, classes, *size)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits - made.bias, rtol=0, atol=SUM_ERROR)


@pytest.mark.parametrize("stages", ["all", "last"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_the_whole_network_keeps_the_identity(stages: str, size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    net = build(ModelConfig(("a", "b", "c"), size=64, stages=stages)).double().eval()
    with torch.no_grad():
        net.head.theta.normal_(0, 2)
        net.head.bias.normal_()
        logits, cams = net(torch.rand(2, 1, *size, dtype=torch.float64))
        maps = fuse_cams(cams, net.head.relevance, size)
    assert logits.abs().max() > 1e-3
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits - net.head.bias, rtol=0, atol=SUM_ERROR)


@pytest.mark.parametrize("pool", ["lse", "max", "pcam"])
def test_the_identity_belongs_to_average_pooling_alone(pool: str) -> None:
    made = random_head(2, 4, pool, seed=1)
    logits, cams = made(random_features(2, 64, 64, 4, seed=1))
    maps = fuse_cams(cams, made.relevance, (64, 64))
    assert (maps.mean(dim=(2, 3)) - (logits - made.bias)).abs().min() > 1e-4


def test_relevance_starts_uniform() -> None:
    assert RelevanceHead(CHANNELS, 3, "avg").relevance.tolist() == [[0.25] * 4] * 3


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
def test_relevance_rows_are_convex(seed: int, scale: float) -> None:
    relevance = random_head(5, 4, "avg", seed, scale).relevance
    assert (relevance >= 0).all()
    torch.testing.assert_close(relevance.sum(dim=1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-14)


def test_last_stage_alone_has_all_the_relevance() -> None:
    net = build(ModelConfig(("a", "b"), size=64, stages="last"))
    assert net.strides == (32,)
    assert len(net.head.classifiers) == 1
    assert net.head.classifiers[0].in_channels == 160
    with torch.no_grad():
        net.head.theta.normal_()
    assert net.head.relevance.tolist() == [[1.0], [1.0]]
    assert [cam.shape for cam in net(torch.zeros(2, 1, 64, 96)).cams] == [(2, 2, 2, 3)]


def test_logit_by_hand() -> None:
    # Maps: A_1 = 2 * 1 = 2 and A_2 = 3 * -4 = -12 everywhere; w = softmax(ln 3, 0) = (3/4, 1/4).
    made = RelevanceHead((1, 1), 1, "avg")
    with torch.no_grad():
        made.classifiers[0].weight.fill_(2.0)
        made.classifiers[1].weight.fill_(3.0)
        made.theta.copy_(torch.tensor([[math.log(3), 0.0]]))
        made.bias.fill_(0.5)
    logits, cams = made([torch.ones(1, 1, 4, 4), torch.full((1, 1, 2, 2), -4.0)])
    assert logits.item() == pytest.approx(0.5 + 0.75 * 2 + 0.25 * -12, abs=1e-6)
    assert [cam.unique().tolist() for cam in cams] == [[2.0], [-12.0]]


def test_pools_by_hand() -> None:
    maps = torch.tensor([[[[0.0, math.log(3)]]]], dtype=torch.float64)
    assert pool_avg(maps).item() == pytest.approx(math.log(3) / 2)
    # Probabilities 1/2 and 3/4: (0 / 2 + ln 3 * 3/4) / (5/4).
    assert pool_pcam(maps).item() == pytest.approx(0.6 * math.log(3))
    # exp(4 a) = 1, 2, 2, 3 with mean 2.
    maps = torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=torch.float64).log().reshape(1, 1, 2, 2) / 4
    assert pool_lse(maps).item() == pytest.approx(math.log(2) / 4)
    assert pool_max(maps).item() == pytest.approx(math.log(3) / 4)


def test_the_largest_of_some_cells() -> None:
    maps = torch.tensor([[[[5.0, -3.0], [-2.0, 1.0]], [[5.0, -3.0], [-2.0, 1.0]], [[5.0, -3.0], [-2.0, 1.0]]]])
    cells = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert pool_max(maps, cells).tolist() == [[-2.0, 5.0, 0.0]]  # no cell: 0
    assert pool_max(maps).tolist() == [[5.0, 5.0, 5.0]]


def test_the_sharpness_of_a_network_is_that_of_its_pool() -> None:
    maps = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    for sharpness in (0.5, 16.0):
        pool = RelevanceHead((1,), 3, "lse", sharpness).pool
        torch.testing.assert_close(pool(maps), pool_lse(maps, sharpness=sharpness))
        net = build(ModelConfig(("a", "b", "c"), size=64, pool="lse", sharpness=sharpness))
        torch.testing.assert_close(net.head.pool(maps), pool_lse(maps, sharpness=sharpness))
    assert not torch.allclose(pool_lse(maps, sharpness=0.5), pool_lse(maps, sharpness=16.0))


@pytest.mark.parametrize("pool", POOLING)
def test_pooling_some_cells_is_pooling_a_map_of_these_cells(pool: str) -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = torch.zeros(3, 4, 5, dtype=torch.float64)
    cells[:, :2, 1:] = 1
    pooled = POOLING[pool](maps, cells)
    torch.testing.assert_close(pooled, POOLING[pool](maps[:, :, :2, 1:]))
    torch.testing.assert_close(POOLING[pool](maps, torch.ones_like(cells)), POOLING[pool](maps))


@pytest.mark.parametrize("pool", POOLING)
def test_pooling_no_cell_moves_nothing(pool: str) -> None:
    maps = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pooled = POOLING[pool](maps, torch.zeros(1, 2, 2))
    assert not pooled.any()
    torch.nn.functional.softplus(pooled).sum().backward()
    assert maps.grad is not None
    assert not maps.grad.any()


def test_pcam_of_an_absent_class() -> None:
    # Far below 0 the probabilities are exp(x): weights 1 : 1/2 at -100 and -100 - ln 2, though both round to 0.
    maps = torch.tensor([[[[-100.0, -100.0 - math.log(2)]]]])
    assert pool_pcam(maps).item() == pytest.approx(-100 - math.log(2) / 3, abs=1e-4)
    assert pool_pcam(torch.full((1, 1, 3, 3), -500.0)).item() == -500


@pytest.mark.parametrize("pool", POOLING)
@pytest.mark.parametrize("value", [-7.0, 0.0, 0.3, 12.0])
def test_pools_agree_on_constant_maps(pool: str, value: float) -> None:
    pooled = POOLING[pool](torch.full((2, 3, 5, 4), value, dtype=torch.float64))
    torch.testing.assert_close(pooled, torch.full((2, 3), value, dtype=torch.float64))


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.01, 1.0, 10.0, 200.0]))
def test_pools_lie_between_mean_and_maximum(seed: int, scale: float) -> None:
    maps = scale * torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, top = maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))
    torch.testing.assert_close(pool_avg(maps), mean)
    torch.testing.assert_close(pool_max(maps), top)
    for pooled in (pool_lse(maps), pool_pcam(maps)):
        assert torch.isfinite(pooled).all()
        assert (pooled >= mean - 1e-9 * scale).all()
        assert (pooled <= top + 1e-9 * scale).all()


def test_lse_sharpness_runs_from_mean_to_maximum() -> None:
    maps = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(pool_lse(maps, sharpness=1e-6), maps.mean(dim=(2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(pool_lse(maps, sharpness=1e6), maps.amax(dim=(2, 3)), rtol=0, atol=1e-5)
