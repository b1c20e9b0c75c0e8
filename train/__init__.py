"""Training from image-level labels: films, loop, calibration, checkpoints.

Names are imported when they are first used: a TrainConfig alone needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msloc_edge.train.config import TrainConfig
    from msloc_edge.train.loop import fit

__all__ = ["TrainConfig", "fit"]

_HOMES = {"TrainConfig": "config", "fit": "loop"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
