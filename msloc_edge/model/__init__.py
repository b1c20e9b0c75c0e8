"""The method in PyTorch: backbones with four stages, the relevance-weighted class-map head, weights from elsewhere."""

from msloc_edge.model.config import ModelConfig
from msloc_edge.model.network import CamNet, Prediction, build
from msloc_edge.model.weights import load_backbone

__all__ = ["CamNet", "ModelConfig", "Prediction", "build", "load_backbone"]
