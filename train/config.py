"""The choices of a training run, saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msloc_edge.model import ModelConfig

MIN_SIZE = 128
MAX_FILMS = 1_000_000


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training run: the model, the films, the schedule.

    data               sources of films: phantom, nih:DIR, csv:FILE
    films, val_films   how many phantoms to train and to validate on; patients differ
    balance            a positive label weighs (negatives / positives) ** balance in the loss
    progressive        progressive resizing: the first half of the epochs at a quarter of the size, the next three
                       tenths at half of it, the rest at the full size; most is learned sixteen times cheaper
    lr                 peak learning rate of AdamW: linear warm-up over the first 5%, then a half cosine to zero
    Raises ValueError for a value outside its range.
    """

    model: ModelConfig
    data: tuple[str, ...] = ("phantom",)
    films: int = 4000
    val_films: int = 600
    epochs: int = 10
    batch: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.02
    balance: float = 0.5
    seed: int = 0
    workers: int = 1
    progressive: bool = True
    init: str | None = None

    def __post_init__(self) -> None:
        if not self.data or len(set(self.data)) != len(self.data):
            raise ValueError(f"expected distinct sources of data, at least one, got {self.data}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"expected a balance of 0 to 1, got {self.balance}")
        for name in ("films", "val_films", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"expected a seed of at least 0, got {self.seed}")
        if max(self.films, self.val_films) >= MAX_FILMS:
            raise ValueError(f"expected fewer than {MAX_FILMS} films in a split, got {max(self.films, self.val_films)}")
        if self.lr <= 0:
            raise ValueError(f"expected a learning rate above 0, got {self.lr}")

    def size_at(self, epoch: int) -> int:
        """Side of the films in an epoch counted from 0, pixels: never below MIN_SIZE, never above the model's size."""
        done = epoch / self.epochs
        divisor = 1 if not self.progressive or done >= 0.8 else 2 if done >= 0.5 else 4
        return min(self.model.size, max(MIN_SIZE, self.model.size // divisor // 32 * 32))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, read back by `from_dict`."""
        return asdict(self) | {"model": self.model.to_dict(), "data": list(self.data)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`."""
        return cls(**{**values, "model": ModelConfig.from_dict(values["model"]), "data": tuple(values["data"])})
