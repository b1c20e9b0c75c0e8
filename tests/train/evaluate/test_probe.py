"""Shuffled weights: what stays of a network, and what goes."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from msloc_edge.backends.torch.backend import load  # noqa: E402
from msloc_edge.bundle import Bundle  # noqa: E402
from msloc_edge.train.evaluate.probe import shuffle_weights  # noqa: E402


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_weights_are_shuffled_within_their_layer_from_the_output(tiny_bundle: Path, share: float) -> None:
    backend = load(Bundle.open(tiny_bundle))
    before = {name: tensor.clone() for name, tensor in backend.net.state_dict().items()}
    shuffle_weights(backend, share, torch.Generator().manual_seed(0))
    after = backend.net.state_dict()
    weights = [name for name, tensor in before.items() if tensor.ndim > 1]
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == weights[-max(1, round(share * len(weights))) :]
    for name in changed:
        assert torch.equal(before[name].flatten().sort().values, after[name].flatten().sort().values)
