"""`csv:FILE`, the form in which anyone's own films come."""

from __future__ import annotations

from pathlib import Path

from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, Record, films_of, named_twice
from msloc_edge.train.tables import read_rows

_ABOUT = ("image", "patient", "split", "view", "sex", "age")
_SPLIT_NAMES = {"train": "train", **dict.fromkeys(("validation", "val", "valid"), "validation"), "test": "test"}
_VALUES = {"": None, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": None, "-1.0": None}


def read_table(path: Path, split: str) -> Collection:
    """Read films listed in a csv: `image` (relative to the csv), and one column per finding with 1, 0, or empty.

    Empty is unknown, and so is -1, "uncertain". Optional: patient, split (train, validation, test), view, sex, age.
    Without `patient` every film is its own. Without `split` the training films are parted by patient, and there is
    no "test": ask for "all". Raises TrainError for a table that cannot be used.
    """
    problems: list[str] = []
    rows = list(read_rows(path, ("image",), problems))
    columns = list(rows[0]) if rows else []
    classes = tuple(column for column in columns if column not in _ABOUT)
    records: list[Record] = []
    sides: list[str | None] = []
    split_of: dict[str, str | None] = {}  # by patient
    files: set[Path] = set()
    for row in rows:
        name, told = row["image"], row.get("split", "").lower()
        file, patient, side = path.parent / name, row.get("patient") or name, _SPLIT_NAMES.get(told)
        bad = next((column for column in classes if row[column] not in _VALUES), None)
        if bad or (told and side is None) or not name:
            got = f"{bad} {row[bad]!r}" if bad else f"split {row['split']!r}" if name else "no image"
            problems.append(f"{path.name}, line {row.line}: expected 1, 0 or nothing, and a split's name, got {got}")
        elif not file.is_file():
            problems.append(f"{name}: no picture")
        elif file in files:
            problems.append(named_twice(name))
        else:
            files.add(file)
            if split_of.setdefault(patient, side) != side:
                both = " and in ".join(str(one or "no split") for one in (split_of[patient], side))
                raise TrainError("data_invalid", f"{path}: patient {patient} is in {both}; keep one split")
            sides.append(side)
            labels = {column: value for column in classes if (value := _VALUES[row[column]]) is not None}
            age = row.get("age", "")
            records.append(
                Record(
                    name,
                    file,
                    patient,
                    labels,
                    row.get("view") or None,
                    row.get("sex") or None,
                    int(age) if age.isdigit() else None,
                )
            )
    return Collection(f"csv:{path}", classes, films_of(split, records, sides), {}, tuple(problems))
