"""The choices of a training run: what each means, and what it is by default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from msloc_edge.model.config import ModelConfig
from msloc_edge.train.plain import checked

MIN_SIZE = 128
MAX_FILMS = 1_000_000
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
BACKBONE = "backbone"

T = TypeVar("T")


def _choice(default: T, meaning: str, *allowed: str) -> T:
    """A field with its default, the sentence that --help shows, and the values it may take (empty: any)."""
    found: T = field(default=default, metadata={"help": meaning, "choices": allowed})
    return found


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training run: the model, the films, the schedule. Raises ValueError for a value outside its range."""

    model: ModelConfig
    data: tuple[str, ...] = _choice(("phantom",), "phantom, nih:DIR or csv:FILE; several are trained on together.")
    exclude: tuple[str, ...] = _choice((), "Text files that name films to leave out, one a line.")
    films: int = _choice(4000, "Training phantoms.")
    val_films: int = _choice(600, "Validation phantoms; other ones.")
    per_source: int = _choice(0, "At most so many films of each source in an epoch, drawn anew for each; 0: all.")
    insert: float = _choice(0.0, "Share of the real normal training films that get simulated lesions.")
    epochs: int = _choice(10, "Passes over the training films.")
    batch: int = _choice(16, "Films per step, over all ranks together.")
    lr: float = _choice(2e-3, "Peak learning rate of AdamW: warm-up over 5% of the steps, then half a cosine to 0.")
    weight_decay: float = _choice(0.02, "AdamW's, on the weights of convolutions.")
    balance: float = _choice(0.5, "A positive label weighs (negatives / positives) to this power, 0 to 1.")
    stage_loss: float = _choice(
        0.0, "Weight of the loss of each stage's own logit (deep supervision), beside the whole."
    )
    anatomy_loss: float = _choice(
        0.0, "Weight of the loss of class maps outside the zone in which anatomy lets a finding be."
    )
    ema: float = _choice(0.999, "Decay of the average of the weights, which is what is validated and kept; 0: none.")
    progressive: bool = _choice(True, "Train on smaller films first: a quarter of the size, then half of it.")
    patience: int = _choice(0, "Stop after so many epochs at full size without a better AUROC; 0: never.")
    init: str | None = _choice(None, "Backbone weights: torchvision's, CheXNet-style, a checkpoint or run of ours.")
    freeze: int | str = _choice(0, "Epochs in which the backbone keeps its weights; 'backbone': all.")
    precision: str = _choice("auto", "Arithmetic of the network; auto: bf16 on CUDA, else fp32.", *PRECISIONS)
    compile: bool = _choice(False, "Compile the network (torch.compile).")
    deterministic: bool = _choice(False, "Only algorithms that give the same bits every time; slower on CUDA.")
    seed: int = _choice(0, "Of the weights, the order of the films, their augmentation.")
    workers: int = _choice(1, "Threads that load films, for each rank; the films do not depend on it.")

    def __post_init__(self) -> None:
        if not self.data or len(set(self.data)) != len(self.data):
            raise ValueError(f"expected distinct sources of data, at least one, got {self.data}")
        for name in ("films", "val_films", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("seed", "workers", "patience", "per_source", "weight_decay", "stage_loss", "anatomy_loss"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of at least 0, got {getattr(self, name)}")
        for name in ("balance", "insert"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} of 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"expected ema of at least 0 and below 1, got {self.ema}")
        if max(self.films, self.val_films) >= MAX_FILMS:
            raise ValueError(f"expected fewer than {MAX_FILMS} films in a split, got {max(self.films, self.val_films)}")
        for name in ("lr", "weight_decay", "stage_loss", "anatomy_loss"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"expected {name} to be finite, got {getattr(self, name)}")
        if self.lr <= 0:
            raise ValueError(f"expected a learning rate above 0, got {self.lr}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"expected precision to be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.freeze != BACKBONE and not (isinstance(self.freeze, int) and self.freeze >= 0):
            raise ValueError(f"expected freeze to be a number of epochs or {BACKBONE!r}, got {self.freeze!r}")

    def size_at(self, epoch: int) -> int:
        """Side of the films in an epoch counted from 0, pixels: never below MIN_SIZE, never above the model's size.

        Progressive resizing: the first half of the epochs at a quarter of the size, the next three tenths at half of
        it, the rest, the last one always, at the full size; most is learned sixteen times cheaper.
        """
        done = 1.0 if epoch == self.epochs - 1 else epoch / self.epochs
        divisor = 1 if not self.progressive or done >= 0.8 else 2 if done >= 0.5 else 4
        return min(self.model.size, max(MIN_SIZE, self.model.size // divisor // 32 * 32))

    def resized_at(self, epoch: int) -> bool:
        """Whether an epoch counted from 0 sees films of another size than the one before."""
        return epoch > 0 and self.size_at(epoch) != self.size_at(epoch - 1)

    def frozen_at(self, epoch: int) -> bool:
        """Whether the backbone keeps its weights in an epoch counted from 0."""
        return self.freeze == BACKBONE or (isinstance(self.freeze, int) and epoch < self.freeze)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, read back by `from_dict`."""
        return asdict(self) | {"model": self.model.to_dict(), "data": list(self.data)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; what is missing has its default.

        Raises ValueError for a name that is not one of ours, a value of another type or outside its range.
        """
        model = values.get("model")
        if not isinstance(model, Mapping):
            raise ValueError(f"expected a table 'model' with the choices of the network, got {model!r}")
        chosen = checked(cls, {**values, "model": None}) | {"model": ModelConfig(**checked(ModelConfig, model))}
        return cls(**chosen)
