"""Training from image-level labels: films, loop, calibration, checkpoints.

Names are imported when they are first used: a TrainConfig alone needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msloc_edge._lazy import names_of

if TYPE_CHECKING:
    from msloc_edge.train.config import TrainConfig
    from msloc_edge.train.loop import fit

__all__ = ["TrainConfig", "fit"]

__getattr__ = names_of(__name__, {"TrainConfig": "config", "fit": "loop"})
