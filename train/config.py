"""The configuration of a training run: what each option means, its range, and its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msloc_edge._config import check, from_plain, option
from msloc_edge.bundle import MODEL_NAME
from msloc_edge.model.config import ModelConfig
from msloc_edge.types import TORCH_PRECISIONS

FORMS = "nih:DIR, csv:FILE, rsna:DIR, vindr:DIR, chexpert:DIR or coco:FILE"
"""Collections of films as `--data` names them."""

MIN_SIZE = 128
MAX_FILMS = 1_000_000
PRECISIONS = ("auto", *TORCH_PRECISIONS)
BACKBONE = "backbone"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training run: model, films, schedule. Raises ValueError for a value that its field does not allow."""

    model: ModelConfig
    data: tuple[str, ...] = option(("phantom",), f"phantom, {FORMS}; several are trained on together.", distinct=True)
    exclude: tuple[str, ...] = option((), "Text files that name films to leave out, one a line.")
    films: int = option(4000, "Training phantoms.", min=1, below=MAX_FILMS)
    val_films: int = option(600, "Validation phantoms; other ones.", min=1, below=MAX_FILMS)
    per_source: int = option(0, "At most so many films of each source in an epoch, drawn anew for each; 0: all.", min=0)
    insert: float = option(0.0, "Share of the real normal training films that get simulated lesions.", min=0, max=1)
    epochs: int = option(10, "Passes over the training films.", min=1)
    batch: int = option(16, "Films per step, over all ranks together.", min=1)
    lr: float = option(
        2e-3, "Peak learning rate of AdamW: warm-up over 5% of the steps, then half a cosine to 0.", above=0
    )
    weight_decay: float = option(0.02, "AdamW's, on the weights of convolutions.", min=0)
    balance: float = option(0.5, "A positive label weighs (negatives / positives) to this power, 0 to 1.", min=0, max=1)
    stage_loss: float = option(
        0.0, "Weight of the loss of each stage's own logit (deep supervision), beside the whole.", min=0
    )
    anatomy_loss: float = option(
        0.0, "Weight of the loss of class maps outside the zone in which anatomy lets a finding be.", min=0
    )
    ema: float = option(
        0.999, "Decay of the average of the weights, which is what is validated and kept; 0: none.", min=0, below=1
    )
    progressive: bool = option(True, "Train on smaller films first: a quarter of the size, then half of it.")
    patience: int = option(0, "Stop after so many epochs at full size without a better AUROC; 0: never.", min=0)
    init: str | None = option(
        None, "Weights to start with: published ones of the backbone, a checkpoint or run of ours."
    )
    freeze: int | str = option(
        0, "Epochs in which the backbone keeps its weights; 'backbone': all.", min=0, choices=(BACKBONE,)
    )
    precision: str = option("auto", "Arithmetic of the network; auto: bf16 on CUDA, else fp32.", choices=PRECISIONS)
    compile: bool = option(False, "Compile the network (torch.compile).")
    deterministic: bool = option(False, "Only algorithms that give the same bits every time; slower on CUDA.")
    name: str | None = option(None, "Name of the model in its bundle; none: that of the run folder.")
    seed: int = option(0, "Of the weights, the order of the films, their augmentation.", min=0)
    workers: int = option(1, "Threads that load films, for each rank; the films do not depend on it.", min=0)

    def __post_init__(self) -> None:
        check(self)
        if self.name is not None and not MODEL_NAME.fullmatch(self.name):
            raise ValueError(f"expected name to be letters, digits, '.', '_' and '-', at most 64, got {self.name!r}")

    def size_at(self, epoch: int) -> int:
        """Return the side of the films in an epoch counted from 0, pixels, from MIN_SIZE to the model's size.

        Progressive resizing: the first half of the epochs at a quarter of the size, the next three tenths at half of
        it, the rest, the last one always, at the full size; most is learned sixteen times cheaper.
        """
        done = 1.0 if epoch == self.epochs - 1 else epoch / self.epochs
        divisor = 1 if not self.progressive or done >= 0.8 else 2 if done >= 0.5 else 4
        return min(self.model.size, max(MIN_SIZE, self.model.size // divisor // 32 * 32))

    def resized_at(self, epoch: int) -> bool:
        """Tell whether an epoch counted from 0 sees films of another size than the one before."""
        return epoch > 0 and self.size_at(epoch) != self.size_at(epoch - 1)

    def frozen_at(self, epoch: int) -> bool:
        """Tell whether the backbone keeps its weights in an epoch counted from 0."""
        return self.freeze == BACKBONE or (isinstance(self.freeze, int) and epoch < self.freeze)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, read back by `from_dict`."""
        lists = {"data": list(self.data), "exclude": list(self.exclude)}
        return asdict(self) | {"model": self.model.to_dict(), **lists}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build the configuration that `to_dict` wrote; what is missing has its default.

        Raises ValueError for a name that is no option, a value of another type or outside its range.
        """
        model = values.get("model")
        if not isinstance(model, Mapping):
            raise ValueError(f"expected a table 'model' with the options of the network, got {model!r}")
        network = ModelConfig(**from_plain(ModelConfig, model))
        return cls(**from_plain(cls, {**values, "model": network}))
