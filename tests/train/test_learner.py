"""One learner by hand: loss, schedule, average of the weights, frozen backbone, arithmetic."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from msloc_edge.errors import TrainError
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.model.head import pool_lse
from msloc_edge.train import TrainConfig
from msloc_edge.train.anatomy import GRID, outside, zones
from msloc_edge.train.data import PHANTOM, Films
from msloc_edge.train.distributed import Ranks
from msloc_edge.train.ema import WeightAverage
from msloc_edge.train.learner import Learner
from msloc_edge.train.losses import balanced_weight, label_frequency, label_loss, source_priors
from msloc_edge.train.precision import autocast_type, reproducible
from msloc_edge.train.schedule import WarmUpCosine, adamw

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
CONFIG = TrainConfig(ModelConfig(("a", "b"), size=64), batch=2, lr=1e-2)


def learner(config: TrainConfig = CONFIG, steps: int = 4) -> Learner:
    torch.manual_seed(0)
    return Learner(build(config.model), config, ALONE, torch.ones(2), steps)


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([[1.0, 0.0], [0.0, math.nan]])
    return torch.rand(2, 1, 64, 64, generator=generator), labels, torch.zeros(2, 2)


def copied(net: CamNet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def changed(net: CamNet, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


# loss


def test_unknown_labels_take_no_part_in_the_loss() -> None:
    logits = torch.tensor([[0.0, 5.0], [2.0, -3.0]], requires_grad=True)
    labels = torch.tensor([[1.0, math.nan], [0.0, math.nan]])
    loss = label_loss(logits, labels)
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].tolist() == [0, 0]
    assert label_loss(logits, torch.full((2, 2), math.nan)).item() == 0


def test_positives_weigh_by_balance() -> None:
    logits, labels = torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
    assert label_loss(logits, labels, torch.tensor([3.0])).item() == pytest.approx(2 * math.log(2))
    assert label_loss(logits, labels, count=torch.tensor(8)).item() == pytest.approx(math.log(2) / 4)
    frequency = torch.tensor([0.1, 0.5])
    assert balanced_weight(frequency, 0.5).tolist() == pytest.approx([3, 1])
    assert balanced_weight(frequency, 0).tolist() == [1, 1]
    assert balanced_weight(frequency, 1).tolist() == pytest.approx([9, 1])


def test_frequency_of_what_is_known() -> None:
    def films(labels: list[list[float]]) -> Films:
        names = tuple(map(str, range(len(labels))))
        return Films(
            "x", ("a", "b", "c"), np.zeros((len(labels), 2, 2), np.uint8), np.array(labels, np.float32), names, names
        )

    nan = math.nan
    found = label_frequency([films([[1, 0, nan], [0, nan, nan]]), films([[0, 0, nan], [0, 0, nan]])])
    assert found.tolist() == pytest.approx([0.25, 0.01, 0.5])


def test_prior_of_a_source_by_hand() -> None:
    def films(source: str, labels: list[list[float]]) -> Films:
        names = tuple(map(str, range(len(labels))))
        return Films(
            source, ("a", "b"), np.zeros((len(labels), 2, 2), np.uint8), np.array(labels, np.float32), names, names
        )

    nan = math.nan
    sources = [
        films("nih:x", [[1, 0], [0, 0], [0, 1], [0, 1]]),
        films("nih:y", [[1, nan], [1, nan], [1, nan], [0, nan]]),
        films(PHANTOM, [[1, 1], [0, 1], [0, 1], [0, 0]]),
    ]
    # Real films: a in 4 of 8, b in 2 of 4. The phantoms are not part of what the others are compared with.
    found = [prior.tolist() for prior in source_priors(sources)]
    assert found[0] == pytest.approx([math.log(1 / 3), 0])
    assert found[1] == pytest.approx([math.log(3), 0])
    assert found[2] == pytest.approx([math.log(1 / 3), math.log(3)])
    assert source_priors(sources[2:])[0].tolist() == [0, 0]


def test_a_source_that_shows_no_film_with_a_finding_says_nothing_of_its_frequency() -> None:
    def films(source: str, labels: list[list[float]]) -> Films:
        names = tuple(map(str, range(len(labels))))
        return Films(
            source, ("a", "b"), np.zeros((len(labels), 2, 2), np.uint8), np.array(labels, np.float32), names, names
        )

    nan = math.nan
    sources = [films("nih:x", [[1, 0], [0, 1], [0, 1], [0, 1]]), films(PHANTOM, [[0, 0], [nan, 1], [nan, 1], [nan, 1]])]
    # a is absent from the one phantom that it is known of: were that a frequency, it would be one in a hundred.
    assert source_priors(sources)[1].tolist() == [0, 0]
    sources[1] = films(PHANTOM, [[0, 0], [1, 1], [nan, 1], [nan, 1]])
    assert source_priors(sources)[1].tolist() == pytest.approx([math.log(3), 0])


# schedule


def test_schedule_by_hand() -> None:
    # 100 steps: 5 of warm-up, then half a cosine over 95.
    schedule = WarmUpCosine(100)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert schedule(5 + 95 // 2) == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95)))
    assert schedule(100) == pytest.approx(0, abs=1e-12)
    rates = [schedule(step) for step in range(5, 101)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("neck", ["none", "topdown"])
def test_every_weight_is_trained_and_only_convolutions_decay(neck: str) -> None:
    net = build(ModelConfig(("a", "b"), size=64, neck=neck))
    groups = adamw(net, lr=1.0, weight_decay=0.1).param_groups
    trained = [id(p) for group in groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in net.parameters())
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, p in net.named_parameters():
        below = not name.startswith("head.")
        assert decay[id(p)] == (0.1 if below and p.ndim == 4 else 0), name
        assert rate[id(p)] == (1 if name.startswith("backbone.") else 3), name


# average


def test_average_by_hand() -> None:
    net = build(CONFIG.model)
    average = WeightAverage(net, 0.2)
    start = average.net.head.bias.clone()
    expected = start
    for step, decay in enumerate([1 / 10, 2 / 11, 0.2, 0.2]):  # (1 + t) / (10 + t), at most 0.2
        with torch.no_grad():
            net.head.bias.fill_(step + 1.0)
        net.backbone.bn1.running_var.fill_(step + 1.0)
        average.update(net)
        expected = decay * expected + (1 - decay) * (step + 1)
    torch.testing.assert_close(average.net.head.bias, expected)
    variance = (
        1 * (0.1 * 2 / 11 * 0.2 * 0.2) + 1 * (0.9 * 2 / 11 * 0.2 * 0.2) + 2 * (9 / 11 * 0.04) + 3 * 0.8 * 0.2 + 4 * 0.8
    )
    torch.testing.assert_close(average.net.backbone.bn1.running_var[0].item(), variance)
    assert not average.net.training
    assert not any(p.requires_grad for p in average.net.parameters())


def test_average_counts_batches_and_begins_anew() -> None:
    net = build(CONFIG.model)
    average = WeightAverage(net, 0.999)
    for _ in range(50):
        average.update(net)
    net.backbone.bn1.num_batches_tracked.fill_(7)
    with torch.no_grad():
        net.head.bias.fill_(10)
    average.restart()
    average.update(net)
    assert average.net.backbone.bn1.num_batches_tracked == 7
    torch.testing.assert_close(average.net.head.bias, torch.full((2,), 9.0))  # a tenth of it is old


def test_no_average() -> None:
    net = build(CONFIG.model)
    average = WeightAverage(net, 0)
    average.update(net)
    assert average.net is net


def test_average_is_saved_with_its_age() -> None:
    one = learner()
    list(one.epoch([batch(0), batch(1)], frozen=False))
    other = learner()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert other.average.steps == 2
    for name, tensor in one.average.net.state_dict().items():
        assert torch.equal(tensor, other.average.net.state_dict()[name])
    assert list(one.epoch([batch(2)], frozen=False)) == list(other.epoch([batch(2)], frozen=False))
    assert not changed(one.net, copied(other.net))
    assert not changed(one.average.net, copied(other.average.net))


# steps


def test_a_step_moves_everything() -> None:
    one = learner()
    before = copied(one.net)
    losses = list(one.epoch([batch()], frozen=False))
    assert len(losses) == 1
    assert changed(one.net, before) == set(before)


def test_a_frozen_backbone_stays() -> None:
    one = learner()
    before = copied(one.net)
    list(one.epoch([batch()], frozen=True))
    moved = changed(one.net, before)
    assert moved
    assert all(name.startswith("head.") for name in moved)
    list(one.epoch([batch()], frozen=False))
    assert changed(one.net, before) == set(before)


def test_a_prior_takes_its_part_of_the_logit() -> None:
    images, labels, prior = batch()
    plain, moved = learner(), learner()
    with torch.no_grad():
        moved.net.head.bias.add_(1)
    losses = [next(iter(plain.epoch([(images, labels, prior + 1)], False))), next(iter(moved.epoch([batch()], False)))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_loss_of_what_lies_outside_the_zone_by_hand() -> None:
    config = replace(CONFIG, model=ModelConfig(("Cardiomegaly", "Effusion"), size=64, pool="lse"), batch=2)
    plain, pressed = learner(config), learner(replace(config, anatomy_loss=0.5))
    images, _, prior = batch()
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    with torch.no_grad():
        head = copy.deepcopy(plain.net.head)
        cams = copy.deepcopy(plain.net).train()(images).cams
        logits = head.bias.expand(2, 2).clone()
        for stage, cam in enumerate(cams):
            zone = zones(config.model.classes)
            for k in range(2):
                cells = outside(zone, cam.shape[2:])[k] > 0
                if cells.any():  # no cell of the 2 x 2 ones of the deepest stage lies outside
                    logits[:, k] += head.relevance[k, stage] * pool_lse(cam[:, k, cells][:, None, None])[:, 0]
        expected = torch.nn.functional.softplus(logits).mean()  # label 0 for every film and class
    losses = [next(iter(one.epoch([(images, labels, prior)], frozen=False))) for one in (plain, pressed)]
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected.item(), rel=1e-5)


def test_zones_are_where_anatomy_has_the_finding() -> None:
    heart, lungs, none = zones(("Cardiomegaly", "Nodule", "Hernia")) > 0
    middle = (GRID // 2, GRID // 2)
    assert heart[middle]
    assert not heart[middle[0], 2]
    assert lungs[GRID // 3, GRID // 4]  # the patient's right lung
    assert not lungs[GRID - 2].any()  # the belly
    assert (none | ~(heart | lungs)).all()  # a finding without phantoms: the thorax
    corner = outside(zones(("Cardiomegaly",)), (4, 4))[0]
    assert corner[0, 0] == 1
    assert corner[2, 2] == 0


def test_gradients_are_clipped() -> None:
    one = learner()
    one.positive_weight = torch.full((2,), 1e6)
    list(one.epoch([batch()], frozen=False))
    norm = torch.stack([p.grad.norm() for p in one.net.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(5, rel=1e-3)


def test_no_batch_no_loss() -> None:
    assert list(learner().epoch([], frozen=False)) == []


# arithmetic


def test_arithmetic_of_a_cpu() -> None:
    assert autocast_type("auto", CPU) == torch.float32
    assert autocast_type("fp32", CPU) == torch.float32
    assert autocast_type("bf16", CPU) == torch.bfloat16
    with pytest.raises(TrainError, match="fp16 is not for this cpu device; choose another precision") as caught:
        autocast_type("fp16", CPU)
    assert caught.value.reason == "option_invalid"


def test_bf16_is_close_to_fp32() -> None:
    losses = [
        next(iter(learner(replace(CONFIG, precision=precision)).epoch([batch()], frozen=False)))
        for precision in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_reproducible_leaves_no_trace() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with reproducible(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    with reproducible(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "auto"])
def test_mixed_precision_on_cuda(precision: str) -> None:
    torch.manual_seed(0)
    device = torch.device("cuda", 0)
    config = replace(CONFIG, precision=precision)
    one = Learner(build(config.model).to(device), config, Ranks(0, 1, device), torch.ones(2, device=device), 20)
    losses = list(one.epoch([batch()] * 20, frozen=False))
    assert losses[-1] < losses[0]
