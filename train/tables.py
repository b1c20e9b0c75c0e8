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


class Row(dict[str, str]):
    """The cells of a row by column.

    line  of the file on which it begins, counted from 1
    """

    def __init__(self, cells: Mapping[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Read the rows of a csv file, names of columns and cells stripped, "" where a row is short; empty lines are none.

    Raises TrainError when the file cannot be read or lacks one of `columns`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(filter(None, reader), [])]
            missing = [column for column in columns if column not in header]
            if missing:
                got = ", ".join(header) or "an empty file"
                raise TrainError(
                    "data_invalid", f"{path}: expected the columns {', '.join(columns)}, got {got}; add {missing[0]!r}"
                )
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    stripped = [cell.strip() for cell in cells] + [""] * len(header)
                    yield Row({name: cell for name, cell in zip(header, stripped, strict=False) if name}, line)
                line = reader.line_num + 1
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
