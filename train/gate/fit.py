"""Fit of the gate's numbers: a small network by gradient descent, then thresholds on films it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msloc_edge.imaging.gate import REASONS, SIDE, InputGate, parse_gate, write_layer
from msloc_edge.train.gate.pictures import KINDS, Pictures

CHANNELS = (8, 12, 16, 16)
"""Channels of the convolutions, each of stride 2."""

MAX_THRESHOLD, FALSE_SHARE = 0.2, 0.001
"""Highest threshold on the probability of a film, and the share of validation films that may fall below all of them
together."""

_BATCH, _RATE, _DECAY, _DROPOUT = 128, 4e-3, 1e-3, 0.1


def network() -> nn.Sequential:
    """Build the network to fit: convolutions of stride 2 with ReLU, and a linear layer over all that is left."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((1, *CHANNELS), CHANNELS, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    cells = SIDE // 2 ** len(CHANNELS)
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(_DROPOUT), nn.Linear(CHANNELS[-1] * cells**2, len(KINDS)))


def fit(pictures: Pictures, epochs: int, count: int, seed: int, say: Callable[[str], None]) -> nn.Sequential:
    """Fit the network on `epochs` times `count` thumbnails, each made once; `say` hears the loss of each epoch."""
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), network().train()
    optimizer = torch.optim.AdamW(net.parameters(), _RATE, weight_decay=_DECAY)
    steps = epochs * (count // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for epoch in range(epochs):
        inputs, kinds = map(torch.from_numpy, pictures.epoch(count, rng))
        total = 0.0
        for first in range(0, steps // epochs * _BATCH, _BATCH):
            part = slice(first, first + _BATCH)
            loss: Tensor = nn.functional.cross_entropy(net(inputs[part]), kinds[part])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        say(f"epoch {epoch + 1}/{epochs}: loss {total / (steps // epochs):.4f}")
    return net.eval()


def gate_of(net: nn.Sequential, films: Sequence[NDArray[np.float32]], clipped: float) -> InputGate:
    """Round a fitted network to the gate's numbers, and find its thresholds on validation films [h, w].

    clipped  largest share of black and white pixels of a film
    """
    fitted = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    names = [name.removesuffix(".weight") for name in fitted if name.endswith(".weight")]
    layers = [write_layer(fitted[f"{name}.weight"], fitted[f"{name}.bias"]) for name in names]
    numbers: dict[str, Any] = {
        "reasons": list(REASONS),
        "thresholds": [MAX_THRESHOLD] * len(REASONS),
        "clipped": round(clipped, 4),
        "convolutions": layers[:-1],
        "head": layers[-1],
    }
    rounded = parse_gate(numbers)
    chances = np.stack([rounded.probabilities(film) for film in films])
    return parse_gate(numbers | {"thresholds": thresholds(chances)})


def thresholds(chances: NDArray[np.float32]) -> list[float]:
    """Find a threshold for each reason from the probabilities of validation films [N, 1 + R].

    It is half of the lowest probability of a film among those for which the reason is the likeliest, less their
    allowed share, and no higher than MAX_THRESHOLD.

    >>> thresholds(np.array([[0.04, 0.9, 0.06, 0, 0, 0], [0.3, 0.7, 0, 0, 0, 0]], np.float32))
    [0.02, 0.2, 0.2, 0.2, 0.2]
    """
    allowed, likeliest = int(FALSE_SHARE * len(chances) / len(REASONS)), chances[:, 1:].argmax(axis=1)
    found = []
    for reason in range(len(REASONS)):
        own = np.sort(chances[likeliest == reason, 0])
        lowest = float(own[allowed]) if len(own) > allowed else 1.0
        found.append(round(min(MAX_THRESHOLD, lowest / 2), 6))
    return found
