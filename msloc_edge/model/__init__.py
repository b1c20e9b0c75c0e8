"""The method in PyTorch: backbones with four stages, the relevance-weighted class-map head, weights from elsewhere.

Names are imported when they are first used: a ModelConfig alone needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msloc_edge.model.config import ModelConfig
    from msloc_edge.model.network import CamNet, Prediction, build
    from msloc_edge.model.weights import load_backbone

__all__ = ["CamNet", "ModelConfig", "Prediction", "build", "load_backbone"]

_HOMES = {
    "ModelConfig": "config",
    **dict.fromkeys(("CamNet", "Prediction", "build"), "network"),
    "load_backbone": "weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
