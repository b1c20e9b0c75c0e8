"""The RSNA Pneumonia Detection Challenge of 2018 as it is downloaded.

stage_2_train_labels.csv             a row for each box: patientId, x, y, width, height, Target
stage_2_train_images/                the films, patientId.dcm

Films are of NIH's release; a patientId names a film. Boxes are in pixels of the film.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, LabelBox, Record, films_of
from msloc_edge.train.data.pictures import find_pictures
from msloc_edge.train.tables import read_rows

OPACITY = "Lung Opacity"

_TABLE = "stage_2_train_labels.csv"
_BOX = ("x", "y", "width", "height")


def read_rsna(folder: Path, split: str) -> Collection:
    """Read the films with labels: Lung Opacity, which is there or not. There is no official split.

    Raises TrainError when table or pictures are missing.
    """
    table = folder / _TABLE
    if not table.is_file():
        raise TrainError("data_missing", f"{folder}: expected {_TABLE}, found none; is it the RSNA challenge's folder?")
    pictures = find_pictures([folder / "stage_2_train_images"])
    labels: dict[str, float] = {}
    boxes: dict[str, list[LabelBox]] = defaultdict(list)
    problems: list[str] = []
    for row in read_rows(table, ("patientId", *_BOX, "Target"), problems):
        name = row["patientId"]
        try:
            target = {"0": 0.0, "1": 1.0}[row["Target"]]
            box = [float(row[column]) for column in _BOX] if target else []
        except (KeyError, ValueError):
            got = ", ".join(row[column] for column in (*_BOX, "Target"))
            problems.append(f"{table.name}, line {row.line}: expected Target 0, or 1 and a box, got {got}")
            continue
        if labels.setdefault(name, target) != target:
            problems.append(f"{table.name}, line {row.line}: expected the Target of {name}'s first row, got another")
        elif box:
            boxes[name].append(LabelBox(OPACITY, *box))
    problems += [f"{name}: no picture" for name in labels if name not in pictures]
    records = [
        Record(name, pictures[name], name, {OPACITY: label}) for name, label in labels.items() if name in pictures
    ]
    chosen = films_of(split, records, [None] * len(records))
    kept = {record.name: tuple(boxes[record.name]) for record in chosen if boxes[record.name]}
    return Collection(f"rsna:{folder}", (OPACITY,), chosen, kept, tuple(problems))
