"""Two ranks do what one does: the same gradients, the same figures, one set of files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.train import loop
from msloc_edge.train.checkpoint import load_state
from msloc_edge.train.data import Films, training_films, validation_films
from msloc_edge.train.distributed import _interleaved, every
from msloc_edge.train.phantom import FINDINGS

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")

WORK = """
import math, os, sys
import numpy as np
import torch
from msloc_edge.model import ModelConfig, build
from msloc_edge.train import TrainConfig
from msloc_edge.train.data import Films
from msloc_edge.train.distributed import ranks_of_environment
from msloc_edge.train.learner import Learner

def learner(ranks, stages):
    model = ModelConfig(("a", "b", "c"), size=64, stages=stages, neck="topdown")
    config = TrainConfig(model, batch=6, lr=1e-3, stage_loss=0.5)
    torch.manual_seed(3)
    net = build(config.model)
    with torch.no_grad():
        for classifier in net.head.classifiers:
            classifier.weight.normal_(0, 0.3)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Running statistics throughout: those of a rank's part would be others than those of the batch.
            module.eval()
            module.train = lambda mode=True, module=module: module
    return Learner(net, config, ranks, torch.tensor([1.0, 2.0, 3.0]), 10)

def batch():
    generator = torch.Generator().manual_seed(4)
    labels = (torch.rand(6, 3, generator=generator) < 0.5).float()
    labels[0] = math.nan  # unknown on the first rank only: the ranks' parts do not weigh the same
    labels[1, :2] = math.nan
    return torch.rand(6, 1, 64, 64, generator=generator), labels

def films():
    found = []
    for seed, count in ((0, 5), (1, 1), (2, 4)):  # of the second, the second rank has none
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, (count, 3)).astype(np.float32)
        labels[0, 0] = np.nan
        pixels = rng.integers(0, 256, (count, 64, 64), np.uint8)
        names = tuple(f"{seed} {n}" for n in range(count))
        found.append(Films(f"nih:{seed}", ("a", "b", "c"), pixels, labels, names, names))
    return found

def results(ranks):
    found = {}
    indices = ranks.part(list(range(6)))
    images, labels = batch()
    prior = torch.linspace(-1, 1, 18).reshape(6, 3)
    for stages in ("all", "last"):
        for frozen in (False, True):
            one = learner(ranks, stages)
            losses = list(one.epoch([(images[indices], labels[indices], prior[indices])], frozen=frozen))
            loss = sum(ranks.gather(losses[0])) / ranks.world
            gradients = {n: p.grad.clone() for n, p in one.net.named_parameters() if p.grad is not None}
            found[stages, frozen] = {"loss": loss, "gradients": gradients}
    one = learner(ranks, "all")
    checked = ranks.validate(one.net, films(), 64, 2)
    few = ranks.validate(one.net, films()[1:2], 64, 2)
    arrays = [torch.from_numpy(array) for array in (checked.logits, checked.labels, few.logits)]
    found["validation"] = [*arrays[:2], checked.loss, checked.macro_auroc]
    found["few"] = [arrays[2], few.loss]
    one.net.backbone.bn1.running_mean.fill_(ranks.rank + 5.0)
    ranks.copy_buffers(one.net)
    found["buffer"] = one.net.backbone.bn1.running_mean[0].item()
    found["all"] = ranks.gather(found["buffer"])
    return found

def main(out):
    torch.set_num_threads(1)
    with ranks_of_environment() as ranks:
        found = results(ranks)
        with ranks.first_goes_ahead():
            if ranks.first:
                torch.save(found, out)
            assert os.path.exists(out)

if __name__ == "__main__":
    main(sys.argv[1])
"""


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine's CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What WORK finds in one process, and in two."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "work.py").write_text(WORK)
    found = []
    for name, start in (
        ("one", lambda *a: subprocess.run([sys.executable, *map(str, a)], check=True)),
        ("two", torchrun),
    ):
        done = start(folder / "work.py", folder / name)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(folder / name, weights_only=False))
    return found


@pytest.mark.parametrize("stages", ["all", "last"])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_of_two_ranks_are_those_of_one(computed: list[dict[Any, Any]], stages: str, frozen: bool) -> None:
    one, two = (found[stages, frozen] for found in computed)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["gradients"].keys() == two["gradients"].keys()
    assert any(name.startswith("backbone.") for name in one["gradients"]) != frozen
    for name, gradient in one["gradients"].items():
        # Sums in another order: six digits of the largest entry.
        torch.testing.assert_close(
            two["gradients"][name], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max() + 1e-3)
        )


def test_figures_of_two_ranks_are_those_of_one(computed: list[dict[Any, Any]]) -> None:
    one, two = (found["validation"] for found in computed)
    assert one[0].shape == (10, 3)
    torch.testing.assert_close(two[0], one[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two[1], one[1], rtol=0, atol=0, equal_nan=True)
    assert two[2:] == pytest.approx(one[2:], rel=1e-5)
    one, two = (found["few"] for found in computed)
    torch.testing.assert_close(two[0], one[0], rtol=1e-4, atol=1e-5)
    assert two[1] == pytest.approx(one[1], rel=1e-5)


def test_ranks_share_the_first_ones_statistics(computed: list[dict[Any, Any]]) -> None:
    assert [found["all"] for found in computed] == [[5.0], [5.0, 5.0]]


def numbered(count: int) -> Films:
    names = tuple(map(str, range(count)))
    return Films(
        "x", ("a",), np.zeros((count, 4, 4), np.uint8), np.arange(count, dtype=np.float32)[:, None], names, names
    )


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("lengths", [(7,), (1, 6, 2), (3,), (8, 16)])
def test_parted_films_come_back_in_their_order(world: int, lengths: tuple[int, ...]) -> None:
    sources = [numbered(count) for count in lengths]
    parts = [[every(source, rank, world) for source in sources] for rank in range(world)]
    assert sorted(name for part in parts for films in part for name in films.names) == sorted(
        name for source in sources for name in source.names
    )
    rows = [np.concatenate([films.labels for films in part]) for part in parts]
    assert np.array_equal(_interleaved(rows, lengths), np.concatenate([source.labels for source in sources]))


def test_size_of_a_batch() -> None:
    assert loop._batch_size(16, 100, 1) == 16
    assert loop._batch_size(16, 10, 1) == 10
    assert loop._batch_size(16, 11, 4) == 8
    for wanted, count, says in (
        (10, 100, "a batch that 4 processes share evenly, got 10"),
        (8, 3, "a film for each of 4"),
    ):
        with pytest.raises(TrainError, match=says) as caught:
            loop._batch_size(wanted, count, 4)
        assert caught.value.reason == "option_invalid"


def test_torchrun(tmp_path: Path) -> None:
    silent = Progress(disable=True)
    training_films(["phantom"], FINDINGS, 64, 24, 1, silent)  # from here, as one process makes them faster
    validation_films(["phantom"], FINDINGS, 64, 48, silent)
    recipe = Path(__file__).with_name("small.toml")
    options = ("--config", recipe, "--size", 64, "--epochs", 1, "--batch", 8, "--seed", 1)
    done = torchrun("-m", "msloc_edge", "train", *options, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("val_auroc") == 1  # only the first rank talks
    assert {"config.json", "history.csv", "last.pt", "best.pt", "bundle"} <= {
        f.name for f in (tmp_path / "run").iterdir()
    }
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    state = load_state(tmp_path / "run")
    assert float(row["val_auroc"]) == pytest.approx(state["best"], abs=1e-5)
    # The averaged weights were judged in parts; the calibration, in one process, finds the same.
    auroc = [value for value in state["validation"]["auroc"].values() if value is not None]
    assert np.mean(auroc) == pytest.approx(state["best"], abs=1e-3)
