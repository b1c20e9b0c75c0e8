"""What an export can be asked for: targets, precisions, batch sizes. Importing it loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass

TARGETS = ("onnx", "tensorrt", "tensorrt-rtx", "triton-server")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Batch:
    """The smallest batch, the one that an engine is to be best at, the largest."""

    least: int = 1
    best: int = 1
    most: int = 8

    @classmethod
    def parse(cls, text: str) -> Batch:
        """From MIN:OPT:MAX, such as 1:4:8. Raises ValueError."""
        try:
            batch = cls(*(int(part) for part in text.split(":")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected MIN:OPT:MAX, such as 1:4:8, got {text!r}") from error
        if text.count(":") != 2 or not 1 <= batch.least <= batch.best <= batch.most:
            raise ValueError(f"expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, got {text!r}")
        return batch
