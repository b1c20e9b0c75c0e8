"""The method in PyTorch: backbones with four stages, the relevance-weighted class-map head, weights from elsewhere.

Names are imported when they are first used: a ModelConfig alone needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msloc_edge._lazy import names_of

if TYPE_CHECKING:
    from msloc_edge.model.config import ModelConfig
    from msloc_edge.model.network import CamNet, Prediction, build
    from msloc_edge.model.weights import load_backbone, load_weights

__all__ = ["CamNet", "ModelConfig", "Prediction", "build", "load_backbone", "load_weights"]

__getattr__ = names_of(
    __name__,
    {
        "ModelConfig": "config",
        **dict.fromkeys(("CamNet", "Prediction", "build"), "network"),
        **dict.fromkeys(("load_backbone", "load_weights"), "weights"),
    },
)
