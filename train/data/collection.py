"""A collection of films on disk: who is on them, what was said of them, where the boxes are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

Label = tuple[str, float]
"""A finding, and 1 or 0."""

SPLITS = ("train", "validation", "train_val", "test", "all")
VALIDATION_SHARE = 0.12
"""Share of the patients of train_val that are kept for validation."""

MIN_VALIDATION, SMALL = 12, 60
"""Patients that validate at least, where the films allow it; what makes a collection small: no more of its patients
validate."""


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


def named_twice(name: str) -> str:
    """Word the problem of a film, or of its score, that a table names again."""
    return f"{name}: named again; the first counts"


def spelled(records: Sequence[Record], spell: Callable[[str], str]) -> tuple[Record, ...]:
    """Give the labels of films other names."""
    return tuple(
        replace(record, labels={spell(label): value for label, value in record.labels.items()}) for record in records
    )


def for_validation(patient: str) -> bool:
    """Tell whether a patient of train_val validates.

    It is decided by the id alone, so that a patient lies on the same side in every collection and every run.
    """
    return _share(patient) < VALIDATION_SHARE


def patients_for_validation(known: Mapping[str, Set[Label]]) -> frozenset[str]:
    """Choose the patients of a whole collection that validate.

    known  patient -> the labels that films of the patient have, each with its value

    They are those of `for_validation`. To them a small collection adds patients in the order that the hash of their ids
    gives, until MIN_VALIDATION validate and each finding has a film with it and one without; at most SMALL validate,
    and a third of all.
    """
    ordered = sorted(known, key=_share)
    wanted = {label for labels in known.values() for label in labels}
    count = sum(map(for_validation, ordered))
    seen = {label for patient in ordered[:count] for label in known[patient]}
    while count < min(SMALL, len(ordered) // 3) and (count < MIN_VALIDATION or seen < wanted):
        seen |= known[ordered[count]]
        count += 1
    return frozenset(ordered[:count])


def films_of(split: str, records: Sequence[Record], sides: Sequence[str | None]) -> tuple[Record, ...]:
    """Choose the films of a split of SPLITS, of a collection's records in all.

    sides  the split that the collection itself tells of each film, train, validation or test; of a film with None the
           patient is parted by `patients_for_validation`
    """
    known: dict[str, set[Label]] = {}
    for record, side in zip(records, sides, strict=True):
        if side is None:
            known.setdefault(record.patient, set()).update(record.labels.items())
    validating = patients_for_validation(known)

    def side_of(record: Record, told: str | None) -> str:
        return told or ("validation" if record.patient in validating else "train")

    wanted = {"train_val": ("train", "validation"), "all": ("train", "validation", "test")}.get(split, (split,))
    return tuple(record for record, told in zip(records, sides, strict=True) if side_of(record, told) in wanted)


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
