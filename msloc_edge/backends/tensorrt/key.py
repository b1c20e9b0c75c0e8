"""Name of an engine in the cache: everything that its plan depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

DLA = "dla"
"""Prefix of a core's number in `Key.graph`, dla0, and in the name of a device, dla:0."""


def graph_of(dla: int | None) -> str:
    """Name the graph of a network on the GPU, or on a core of the accelerator."""
    return "network" if dla is None else f"{DLA}{dla}"


@dataclass(frozen=True, slots=True)
class Batch:
    """The smallest batch, the one that an engine is to be best at, the largest."""

    least: int = 1
    best: int = 1
    most: int = 8

    @classmethod
    def parse(cls, text: str) -> Batch:
        """Parse MIN:OPT:MAX, such as 1:4:8. Raises ValueError."""
        try:
            batch = cls(*(int(part) for part in text.split(":")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected MIN:OPT:MAX, such as 1:4:8, got {text!r}") from error
        if text.count(":") != 2 or not 1 <= batch.least <= batch.best <= batch.most:
            raise ValueError(f"expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, got {text!r}")
        return batch


@dataclass(frozen=True, slots=True)
class Key:
    """Everything that a plan depends on.

    bundle     sha256 of the bundle's manifest, which holds the hash of every other file
    flavour    "tensorrt" or "tensorrt_rtx": the library, in the word of the sidecars
    version    of that library, all its parts: a plan is bound to them
    sm         compute capability as one number, 87 for an Orin; 0 for every device, as TensorRT-RTX builds
    precision  "fp32", "fp16" or "int8"
    graph      "network": the bundle's own, which ends in small class maps; "heatmap": an export, which ends in M_k;
               "dla0", "dla1": the network on that core of an Orin's accelerator
    batch      the optimisation profile; height and width are the bundle's
    """

    bundle: str
    flavour: str
    version: str
    sm: int
    precision: str
    graph: str
    batch: Batch

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Key:
        """Read a sidecar's entry. Raises KeyError or TypeError when it is not one."""
        return cls(**{**entry, "batch": Batch(**entry["batch"])})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def dla(self) -> int | None:
        """Core of the accelerator that it was built for; None: the GPU alone."""
        return int(self.graph[len(DLA) :]) if self.graph.startswith(DLA) else None

    @property
    def model(self) -> str:
        """The part of the file name that all plans of a model for a library share, whatever they were built on."""
        return f"{self.bundle[:16]}-{self.flavour}"

    @property
    def machine(self) -> str:
        """The part of the file name that a machine, a model and a precision share: any of these engines can run."""
        return f"{self.model}-{self.version}-sm{self.sm or '_any'}-{self.precision}"

    @property
    def file(self) -> str:
        """The plan's file name."""
        return f"{self.machine}-{self.graph}-{self.batch.least}.{self.batch.best}.{self.batch.most}.plan"
