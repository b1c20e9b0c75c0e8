"""A collection of films on disk: who is on them, what was said of them, where the boxes are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "train_val", "test", "all")
VALIDATION_SHARE = 0.12
"""Share of the patients of train_val that are kept for validation."""


@dataclass(frozen=True, slots=True)
class Record:
    """A film of a collection.

    name     what the tables call it, such as "00000001_000.png"
    labels   label -> 1 or 0; one that is missing is unknown
    """

    name: str
    path: Path
    patient: str
    labels: Mapping[str, float]
    view: str | None = None
    sex: str | None = None
    age: int | None = None


@dataclass(frozen=True, slots=True)
class LabelBox:
    """A finding's true box: x, y, width, height in pixels of the picture file, top-left origin."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Collection:
    """The films of one split. `problems` names the rows and films that were left out, each with its reason."""

    name: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    boxes: Mapping[str, tuple[LabelBox, ...]]
    problems: tuple[str, ...]


def for_validation(patient: str) -> bool:
    """Tell whether a patient of train_val validates.

    It is decided by the id alone, so that a patient lies on the same side in every collection and every run.
    """
    return _share(patient) < VALIDATION_SHARE


def in_fitting_half(patient: str) -> bool:
    """Tell whether map thresholds may be fitted on a patient's boxes, and are then not scored on them.

    That is half of the patients, decided by the id alone and independently of `for_validation`.
    """
    return _share(f"half {patient}") < 0.5


def fold_of(patient: str, folds: int) -> int:
    """Give the fold of a patient in a cross-validation, 0 to folds - 1.

    It is decided by the id alone, independently of `for_validation` and `in_fitting_half`.
    """
    return int(_share(f"fold {patient}") * folds)


def _share(text: str) -> float:
    """Make a number in [0, 1) of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
