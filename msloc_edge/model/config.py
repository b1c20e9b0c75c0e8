"""The configuration of a network: enough to build it again from a checkpoint or a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from typing import Any

from msloc_edge._config import check, option

BACKBONES = ("edge", "efficientnet_lite0", "densenet121")
POOLS = ("avg", "lse", "max", "pcam")
STAGES = ("all", "last")
NECKS = ("none", "topdown", "pyramid")
SHARPNESS = 4.0
"""r of log-sum-exp pooling, by default."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of a network. Raises ValueError for a value that its field does not allow."""

    classes: tuple[str, ...] = option(MISSING, "Names of the findings.", distinct=True)
    backbone: str = option("edge", "The network below the head.", choices=BACKBONES)
    size: int = option(512, "Side of the input in pixels, a multiple of 32.", min=64, multiple=32)
    pool: str = option("avg", "How a class map becomes a logit.", choices=POOLS)
    stages: str = option("all", "all; last is the single-scale baseline.", choices=STAGES)
    neck: str = option(
        "none",
        "topdown: the shallow stages see what the deep ones know; pyramid: with a second layer.",
        choices=NECKS,
    )
    sharpness: float = option(
        SHARPNESS, "Of the pool lse: near 0 it is the average, large the maximum.", above=0, max=100
    )

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, read back by `from_dict`."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build the configuration that `to_dict` wrote."""
        return cls(**{**values, "classes": tuple(values["classes"])})
