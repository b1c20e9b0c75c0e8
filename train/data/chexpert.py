"""CheXpert as it is downloaded (Irvin et al. 2019, arXiv 1901.07031).

train.csv, valid.csv    Path, Sex, Age, Frontal/Lateral, AP/PA, and a column for each observation
train/, valid/          the films, at Path without its first folder

An observation is 1, 0, -1 (uncertain) or empty (not mentioned).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, Record, films_of, named_twice
from msloc_edge.train.tables import read_rows

NO_FINDING = "No Finding"

_ABOUT = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_VALUES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "": 0.0, "-1.0": None, "-1": None}
_TABLES = {"train.csv": None, "valid.csv": "validation", "test.csv": "test"}
"""Table -> the split of its films; None: they train, and are parted where there is no valid.csv."""


def read_chexpert(folder: Path, split: str) -> Collection:
    """Read the frontal films of a split. Uncertain labels are unknown; what is not mentioned is absent.

    valid.csv validates; without it the patients of train.csv are parted. Lateral films are left out. Raises TrainError
    when tables are missing.
    """
    tables = {folder / name: side for name, side in _TABLES.items() if (folder / name).is_file()}
    if not tables:
        raise TrainError("data_missing", f"{folder}: expected train.csv or valid.csv, found neither; is it CheXpert?")
    records: list[Record] = []
    sides: list[str | None] = []
    problems: list[str] = []
    classes: dict[str, None] = {}
    lateral, names = 0, set[str]()
    for table, side in tables.items():
        told = "train" if side is None and folder / "valid.csv" in tables else side
        for row in read_rows(table, _ABOUT, problems):
            own = [column for column in row if column not in (*_ABOUT, NO_FINDING)]
            classes.update(dict.fromkeys(own))
            name = str(PurePosixPath(*PurePosixPath(row["Path"]).parts[1:]))
            bad = next((column for column in own if row[column] not in _VALUES), None)
            patient = re.search(r"patient\d+", name)
            if row["Frontal/Lateral"] == "Lateral":
                lateral += 1
            elif bad or patient is None:
                got = f"{bad} {row[bad]!r}" if bad else f"the path {row['Path']!r}"
                problems.append(
                    f"{table.name}, line {row.line}: expected 1, 0, -1 or nothing, and a patient, got {got}"
                )
            elif not (folder / name).is_file():
                problems.append(f"{name}: no picture")
            elif name in names:
                problems.append(named_twice(name))
            else:
                names.add(name)
                labels = {column: value for column in own if (value := _VALUES[row[column]]) is not None}
                age = int(row["Age"]) if row["Age"].isdigit() else None
                sex = row["Sex"][:1] if row["Sex"] in ("Male", "Female") else None
                records.append(Record(name, folder / name, patient[0], labels, row["AP/PA"] or None, sex, age))
                sides.append(told)
    if lateral:
        problems.append(f"{lateral} lateral films are left out")
    return Collection(f"chexpert:{folder}", tuple(classes), films_of(split, records, sides), {}, tuple(problems))
