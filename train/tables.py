"""Tables of films and of boxes: csv files with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msloc_edge._files import atomic_write
from msloc_edge.errors import TrainError

BOX_COLUMNS = ("image", "label", "x", "y", "w", "h")
"""Columns of a csv of boxes, in pixels of the picture file."""


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Read the rows of a csv file, every cell a stripped string, "" where a row is short.

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
