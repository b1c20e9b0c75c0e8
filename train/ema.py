"""A moving average of a network's weights: what is validated, calibrated and kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from msloc_edge.model import CamNet


class WeightAverage:
    """avg <- d avg + (1 - d) weights, d = min(decay, (1 + t) / (10 + t)) at the t-th step since the start.

    The ramp is TensorFlow's ExponentialMovingAverage with `num_updates`: early on the average forgets the first
    weights as fast as these move. The statistics of batch norms are averaged like weights, which they belong to. With a
    decay of 0 there is no average, and `net` is the network itself.
    """

    def __init__(self, live: CamNet, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.net: CamNet = copy.deepcopy(live).requires_grad_(False).eval() if decay else live

    @torch.no_grad()
    def update(self, live: CamNet) -> None:
        """Take in the weights of `live` after a step."""
        if self.net is live:
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        own, new = self.net.state_dict(), live.state_dict()
        floating = [name for name, tensor in own.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in floating], [new[name] for name in floating], 1 - decay)
        for name in own.keys() - set(floating):
            own[name].copy_(new[name])
        self.steps += 1

    def restart(self) -> None:
        """Begin anew, from the weights of the next steps: films of another size have other statistics."""
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.steps = state["steps"]
