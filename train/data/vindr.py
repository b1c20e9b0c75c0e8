"""VinDr-CXR as PhysioNet has it (Nguyen et al. 2022, Scientific Data 9, 429).

annotations/annotations_{train,test}.csv    a row for each box: image_id, class_name, x_min, y_min, x_max, y_max;
                                            of train also rad_id, one of three radiologists who read a film
{train,test}/                               the films, image_id.dicom
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, LabelBox, Record, films_of
from msloc_edge.train.data.pictures import find_pictures
from msloc_edge.train.tables import Row, read_rows

NORMAL = "No finding"

_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_COLUMNS = ("image_id", "class_name", *_CORNERS)


def read_vindr(folder: Path, split: str) -> Collection:
    """Read the films of a split: those of train are parted by film, those of test are test.

    A finding that most radiologists of a film drew is there; one that some drew is unknown; its boxes are those of the
    first radiologist, by name, who drew it. Raises TrainError when tables or pictures are missing.
    """
    places = {side: _table(folder, side) for side in ("train", "test")}
    found = {side: table for side, table in places.items() if table is not None}
    if not found:
        raise TrainError(
            "data_missing", f"{folder}: expected annotations/annotations_train.csv or _test.csv, found neither"
        )
    problems: list[str] = []
    records: list[Record] = []
    sides: list[str | None] = []
    boxes: dict[str, tuple[LabelBox, ...]] = {}
    drawn = {side: _drawn(table, problems) for side, table in found.items()}
    classes = sorted({label for films in drawn.values() for seen in films.values() for label, _ in seen} - {NORMAL})
    for side, films in drawn.items():
        pictures = find_pictures([folder / side])
        for name, seen in films.items():
            if name not in pictures:
                problems.append(f"{name}: no picture")
                continue
            readers = {reader for _, reader in seen}
            labels = {
                label: _agreed(sum((label, reader) in seen for reader in readers), len(readers)) for label in classes
            }
            known = {label: value for label, value in labels.items() if value is not None}
            records.append(Record(name, pictures[name], name, known))
            sides.append("test" if side == "test" else None)
            boxes[name] = tuple(
                box
                for label, value in known.items()
                if value
                for box in seen[label, min(reader for reader in readers if (label, reader) in seen)]
            )
    chosen = films_of(split, records, sides)
    kept = {record.name: boxes[record.name] for record in chosen if boxes[record.name]}
    return Collection(f"vindr:{folder}", tuple(classes), chosen, kept, tuple(problems))


def _table(folder: Path, side: str) -> Path | None:
    name = f"annotations_{side}.csv"
    return next((path for path in (folder / "annotations" / name, folder / name) if path.is_file()), None)


def _drawn(table: Path, problems: list[str]) -> dict[str, dict[tuple[str, str], list[LabelBox]]]:
    """Film -> (finding, radiologist) -> boxes; of a normal film, NORMAL without any."""
    found: dict[str, dict[tuple[str, str], list[LabelBox]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(table, _COLUMNS, problems):
        seen = found[row["image_id"]][row["class_name"], row.get("rad_id", "")]
        if row["class_name"] != NORMAL:
            box = _box(row)
            if box is None:
                got = ", ".join(row[column] for column in _CORNERS)
                problems.append(f"{table.name}, line {row.line}: expected the corners of a box, got {got}")
            else:
                seen.append(box)
    return found


def _box(row: Row) -> LabelBox | None:
    try:
        left, top, right, bottom = (float(row[column]) for column in _CORNERS)
    except ValueError:
        return None
    return LabelBox(row["class_name"], left, top, right - left, bottom - top) if left < right and top < bottom else None


def _agreed(count: int, readers: int) -> float | None:
    """A label that `count` of some readers gave: 1 by most, 0 by none; None between.

    >>> [_agreed(count, 3) for count in range(4)]
    [0.0, None, 1.0, 1.0]
    """
    return 1.0 if 2 * count > readers else 0.0 if not count else None
