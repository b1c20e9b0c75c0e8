"""Reading tables: a csv with a header, and `csv:FILE`, the form in which anyone's own films come."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msloc_edge._files import atomic_write
from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, Record, for_validation

BOX_COLUMNS = ("image", "label", "x", "y", "w", "h")
"""Of a csv of boxes, in pixels of the picture file."""

_ABOUT = ("image", "patient", "split", "view", "sex", "age")
_SPLIT_NAMES = {"train": "train", **dict.fromkeys(("validation", "val", "valid"), "validation"), "test": "test"}
_VALUES = {"": None, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": None, "-1.0": None}


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a csv file, every cell a stripped string, "" where a row is short.

    Raises TrainError when the file cannot be read or lacks one of `columns`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                got = ", ".join(reader.fieldnames or ()) or "an empty file"
                raise TrainError(
                    "data_invalid", f"{path}: expected the columns {', '.join(columns)}, got {got}; add {missing[0]!r}"
                )
            for row in reader:
                yield {key: value.strip() for key, value in row.items() if key}
    except OSError as error:
        raise TrainError("data_missing", f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise TrainError("data_invalid", f"{path}: expected a csv file in UTF-8 ({error})") from error


def read_table(path: Path, split: str) -> Collection:
    """Films listed in a csv: `image` (relative to the csv), and one column per finding with 1, 0, or empty (unknown;
    -1, "uncertain", likewise). Optional: patient, split (train, validation, test), view, sex, age.

    Without `patient` every film is its own. Without `split` the training films are parted by patient, and there is
    no "test": ask for "all". Raises TrainError for a table that cannot be used.
    """
    rows = list(read_rows(path, ("image",)))
    columns = list(rows[0]) if rows else []
    classes = tuple(column for column in columns if column not in _ABOUT)
    records, problems = [], []
    sides: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name = row["image"]
        file, patient, side = path.parent / name, row.get("patient") or name, _side(row)
        bad = next((column for column in classes if row[column] not in _VALUES), None)
        if bad or side is None or not name:
            got = f"{bad} {row[bad]!r}" if bad else f"split {row['split']!r}" if name else "no image"
            problems.append(f"{path.name}, line {number}: expected 1, 0 or nothing, and a split's name, got {got}")
        elif not file.is_file():
            problems.append(f"{name}: no picture")
        else:
            if sides.setdefault(patient, side) != side:
                raise TrainError(
                    "data_invalid", f"{path}: patient {patient} is in {sides[patient]} and in {side}; keep one split"
                )
            if split == "all" or side == split or (split == "train_val" and side != "test"):
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
    return Collection(f"csv:{path}", classes, tuple(records), {}, tuple(problems))


def write_tables(
    folder: Path,
    classes: Sequence[str],
    films: Iterable[tuple[str, str, Mapping[str, float]]],
    boxes: Iterable[tuple[str, str, float, float, float, float]],
) -> None:
    """Write films.csv, which `csv:FILE` reads, and boxes.csv of BOX_COLUMNS.

    films: (image, patient, labels); a label that is missing is unknown. boxes: (image, label, x, y, w, h).
    """
    known = (
        [image, patient, *(f"{labels[c]:g}" if c in labels else "" for c in classes)]
        for image, patient, labels in films
    )
    numbers = ([image, label, *(f"{value:g}" for value in box)] for image, label, *box in boxes)
    for name, header, rows in (
        ("films.csv", ("image", "patient", *classes), known),
        ("boxes.csv", BOX_COLUMNS, numbers),
    ):
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        atomic_write(folder / name, text.getvalue().encode())


def _side(row: dict[str, str]) -> str | None:
    """Which split a row belongs to; None for a name that is not a split's."""
    if row.get("split"):
        return _SPLIT_NAMES.get(row["split"].lower())
    return "validation" if for_validation(row.get("patient") or row["image"]) else "train"
