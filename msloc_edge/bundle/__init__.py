"""The bundle, the folder that training hands to every device; the store of models; archives and signatures."""

from msloc_edge.bundle.bundle import (
    CARD,
    DEFAULT_MODEL,
    MANIFEST,
    MODEL_NAME,
    ONNX,
    SCHEMA,
    SHIPPED,
    WEIGHTS,
    Bundle,
    Stage,
    installed_models,
    sha256_file,
    shipped_models,
    store_folder,
)
from msloc_edge.bundle.profile import Abnormal, Profile, RegionRule

__all__ = [
    "CARD",
    "DEFAULT_MODEL",
    "MANIFEST",
    "MODEL_NAME",
    "ONNX",
    "SCHEMA",
    "SHIPPED",
    "WEIGHTS",
    "Abnormal",
    "Bundle",
    "Profile",
    "RegionRule",
    "Stage",
    "installed_models",
    "sha256_file",
    "shipped_models",
    "store_folder",
]
