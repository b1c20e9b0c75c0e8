"""The optimizer, and its learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Any

import torch

from msloc_edge.model import CamNet

HEAD_LR = 3.0
"""The head's learning rate over the backbone's: the map of a small finding, averaged over a film, has far to rise, and
a softmax over four relevance weights moves slowly. The neck is as new as the head."""

WARM_UP = 0.05
"""Share of the steps."""


class WarmUpCosine:
    """Factor of the learning rate: linear warm-up, then half a cosine to zero. A class, as a lambda cannot be saved."""

    def __init__(self, steps: int) -> None:
        self.steps, self.warm_up = steps, max(1, round(WARM_UP * steps))

    def __call__(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - self.warm_up) / max(1, self.steps - self.warm_up)))


def adamw(net: CamNet, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101); only convolutions below the head decay."""
    backbone, neck = list(net.backbone.parameters()), list(net.neck.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in backbone if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in backbone if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in neck if p.ndim >= 2], "weight_decay": weight_decay, "lr": HEAD_LR * lr},
        {
            "params": [*(p for p in neck if p.ndim < 2), *net.head.parameters()],
            "weight_decay": 0.0,
            "lr": HEAD_LR * lr,
        },
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr)
