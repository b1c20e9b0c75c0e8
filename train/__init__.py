"""Training from image-level labels: films, loop, calibration, checkpoints."""

from msloc_edge.train.config import TrainConfig
from msloc_edge.train.loop import fit

__all__ = ["TrainConfig", "fit"]
