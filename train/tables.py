"""Tables of films and of boxes: csv files with a header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msloc_edge._files import atomic_write
from msloc_edge.errors import TrainError

BOX_COLUMNS = ("image", "label", "x", "y", "w", "h")
"""Columns of a csv of boxes, in pixels of the picture file."""

_OTHER_SIGNS = {"semicolons": ";", "tabs": "\t"}
"""Signs that other programs put between cells."""


class Row(dict[str, str]):
    """The cells of a row by column.

    line  of the file on which it begins, counted from 1
    """

    def __init__(self, cells: Mapping[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def read_rows(path: Path, columns: Sequence[str], problems: list[str]) -> Iterator[Row]:
    """Read the rows of a csv file, names of columns and cells stripped; empty lines are none.

    columns   those that the file must have
    problems  gets a sentence for each row with fewer or more cells than the header; such a row is left out

    Raises TrainError when the file cannot be read, lacks one of `columns`, or has a column twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(filter(any, map(_strip, reader)), [])
            _require_columns(path, header, columns)
            min_cells = max((at for at, name in enumerate(header, start=1) if name), default=0)
            line = reader.line_num + 1
            for cells in map(_strip, reader):
                if any(cells) and (len(cells) < min_cells or any(cells[len(header) :])):
                    problems.append(f"{path.name}, line {line}: expected {len(header)} cells, got {len(cells)}")
                elif any(cells):
                    yield Row({name: cell for name, cell in zip(header, cells, strict=False) if name}, line)
                line = reader.line_num + 1
    except OSError as error:
        raise TrainError("data_missing", f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise TrainError("data_invalid", f"{path}: expected a csv file in UTF-8 ({error})") from error


def _strip(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in header]:
        wanted, got = ", ".join(columns), ", ".join(header) or "an empty file"
        other = next((name for name, sign in _OTHER_SIGNS.items() if sign in header[0]), None) if header else None
        do = f"save it with commas in place of {other}" if other else f"add {missing[0]!r}"
        raise TrainError("data_invalid", f"{path}: expected the columns {wanted}, got {got}; {do}")
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise TrainError("data_invalid", f"{path}: expected each column once, got {twice[0]!r} again; keep one of them")


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
