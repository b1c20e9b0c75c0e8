"""What a network is: enough to build it again from a checkpoint or a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BACKBONES = ("edge", "efficientnet_lite0", "densenet121")
POOLS = ("avg", "lse", "max", "pcam")
SHARPNESS = 4.0
"""r of log-sum-exp pooling: 0 is the average, infinity the maximum."""

STAGES = ("all", "last")
NECKS = ("none", "topdown", "pyramid")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture: class names, backbone, input size in pixels (square), pooling, the stages in use, the neck,
    the sharpness of the pool `lse`.

    Raises ValueError for a value outside its list.
    """

    classes: tuple[str, ...]
    backbone: str = "edge"
    size: int = 512
    pool: str = "avg"
    stages: str = "all"
    neck: str = "none"
    sharpness: float = SHARPNESS

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("backbone", self.backbone, BACKBONES),
            ("pool", self.pool, POOLS),
            ("stages", self.stages, STAGES),
            ("neck", self.neck, NECKS),
        ):
            if value not in allowed:
                raise ValueError(f"expected {name} to be one of {', '.join(allowed)}, got {value!r}")
        if self.size < 64 or self.size % 32:
            raise ValueError(f"expected a size of at least 64 that 32 divides, got {self.size}")
        if not 0 < self.sharpness <= 100:
            raise ValueError(f"expected a sharpness above 0 and up to 100, got {self.sharpness}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"expected distinct class names, at least one, got {self.classes}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, read back by `from_dict`."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`."""
        return cls(**{**values, "classes": tuple(values["classes"])})
