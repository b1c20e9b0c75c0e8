"""TensorBoard: what is written, and that nothing is missing without it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from msloc_edge.model import ModelConfig, build
from msloc_edge.train.data import Films
from msloc_edge.train.events import EXAMPLES, SIDE, Events, example_maps


def films(source: str, labels: list[list[float]]) -> Films:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 64, 64), np.uint8)
    names = tuple(map(str, range(len(labels))))
    return Films(source, ("a", "b"), pixels, np.array(labels, np.float32), names, names)


def test_curves_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, values in ((1, [0.5, 0.6, 0.7]), (3, [0.9])):  # the second goes on after epoch 2
        events = Events(tmp_path, first)
        assert events.wanted
        for epoch, value in enumerate(values, start=first):
            events.scalars({"loss": value, "auroc/Mass": 1 - value}, epoch)
        events.picture(np.zeros((4, 6, 3), np.uint8), first)
        events.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(e.step, round(e.value, 3)) for e in read.Scalars("loss")] == [(1, 0.5), (2, 0.6), (3, 0.9)]
    assert read.Tags()["images"] == ["examples"]
    assert set(read.Tags()["scalars"]) == {"loss", "auroc/Mass"}


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    events = Events(tmp_path / "events", 1)
    assert not events.wanted
    events.scalars({"loss": 1.0}, 1)
    events.picture(np.zeros((4, 6, 3), np.uint8), 1)
    events.close()
    assert not (tmp_path / "events").exists()


def test_examples_show_where_the_finding_is_seen() -> None:
    net = build(ModelConfig(("a", "b"), size=64))
    nan = np.nan
    sources = [films("x", [[0, 0], [1, 0], [1, 1]]), films("y", [[nan, nan], [0, 1]])]
    picture = example_maps(net, sources)
    assert (picture.shape, picture.dtype) == ((2 * SIDE, 3 * SIDE, 3), np.uint8)  # x 1, x 2, y 1
    assert EXAMPLES >= 3
    with torch.no_grad():
        net.head.bias.fill_(-50)  # nothing anywhere: the plain films
    plain = example_maps(net, sources)
    lower = plain[SIDE:].astype(int)
    assert (lower.max(axis=2) - lower.min(axis=2)).max() <= 1
    assert not np.array_equal(plain, picture)


def test_no_example() -> None:
    net = build(ModelConfig(("a", "b"), size=64))
    assert not example_maps(net, [films("x", [[0, 0]])]).any()
