"""The configuration of a network: enough to build it again from a checkpoint or a bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from typing import Any

from msloc_edge._config import check, option
from msloc_edge.bundle import WEIGHTS, Bundle

BACKBONES = ("edge", "efficientnet_lite0", "densenet121")
FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""A backbone of somebody else's code: package.module:factory."""

POOLS = ("avg", "lse", "max", "pcam")
STAGES = ("all", "last")
NECKS = ("none", "topdown", "pyramid")
SHARPNESS = 4.0
"""r of log-sum-exp pooling, by default."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of a network. Raises ValueError for a value that its field does not allow."""

    classes: tuple[str, ...] = option(MISSING, "Names of the findings.", distinct=True)
    backbone: str = option("edge", f"The network below the head: {', '.join(BACKBONES)}, or PACKAGE.MODULE:FACTORY.")
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
    stages_at: tuple[str, ...] = option((), "Modules of a factory's network that end its stages, shallow to deep.")

    def __post_init__(self) -> None:
        check(self)
        if self.backbone not in BACKBONES and not FACTORY.fullmatch(self.backbone):
            expected = f"{', '.join(BACKBONES)}, or PACKAGE.MODULE:FACTORY"
            raise ValueError(f"expected backbone to be one of {expected}, got {self.backbone!r}")
        if self.is_foreign != bool(self.stages_at):
            raise ValueError("expected stages_at with a backbone of PACKAGE.MODULE:FACTORY, and only with one")

    @property
    def is_foreign(self) -> bool:
        """Whether the backbone is somebody else's code."""
        return self.backbone not in BACKBONES

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, read back by `from_dict`."""
        return asdict(self) | {"classes": list(self.classes), "stages_at": list(self.stages_at)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build the configuration that `to_dict` wrote."""
        lists = {name: tuple(values.get(name, ())) for name in ("classes", "stages_at")}
        return cls(**{**values, **lists})


def is_own(bundle: Bundle) -> bool:
    """Tell whether a bundle's network is one of `msloc_edge.model` with its weights, or anybody's graph."""
    backbone = bundle.manifest["architecture"].get("backbone")
    return WEIGHTS in bundle.manifest["files"] and backbone in BACKBONES
