"""The NIH ChestX-ray14 release as it is downloaded (Wang et al., CVPR 2017).

images/ or images_001/images .. images_012/images     the pictures, png or jpg
Data_Entry_2017_v2020.csv or Data_Entry_2017.csv      labels, patient, age, sex, view
BBox_List_2017.csv                                    984 boxes, in pixels of the 1024-px films; optional
train_val_list.txt, test_list.txt                     the official split, disjoint by patient
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, LabelBox, Record, for_validation, named_twice
from msloc_edge.train.tables import read_rows

CHESTXRAY8: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""The findings of the first release, which are those with boxes."""

NIH_CLASSES: tuple[str, ...] = (
    *CHESTXRAY8,
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
BOX_SIDE = 1024
"""Side of the films that the boxes were drawn on, pixels."""

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
_BOXES = "BBox_List_2017.csv"
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")  # its header has commas in one name
_BOX_LABELS = {label: label for label in NIH_CLASSES} | {"Infiltrate": "Infiltration"}
_TRAIN_VAL, _TEST = "train_val_list.txt", "test_list.txt"
_NORMAL = "No Finding"


def read_nih(folder: Path, split: str) -> Collection:
    """The films of a split that are there: "train", "validation" (other patients), "train_val", "test" or "all".

    Rows that cannot be used and films without a picture are left out, and named in `problems`. Raises TrainError when
    tables or pictures are missing, or the official lists share a patient.
    """
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table is None:
        raise TrainError(
            "data_missing", f"{folder}: expected {' or '.join(_TABLES)}, found neither; is it an NIH release?"
        )
    pictures = _pictures(folder)
    lists = {name: _names(folder / name) for name in (_TRAIN_VAL, _TEST)} if split != "all" else {}
    wanted = lists.get(_TEST if split == "test" else _TRAIN_VAL)
    problems: list[str] = []
    records: list[Record] = []
    seen: set[str] = set()
    sides: dict[str, set[str]] = defaultdict(set)  # patient -> the official lists with films of that patient
    for row in read_rows(table, _COLUMNS, problems):
        name, patient, labels = row["Image Index"], row["Patient ID"], row["Finding Labels"].split("|")
        sides[patient] |= {side for side, names in lists.items() if name in names}
        if wanted is not None and name not in wanted:
            continue
        if name in seen:
            problems.append(named_twice(name))
            continue
        seen.add(name)
        unknown = [label for label in labels if label not in (*NIH_CLASSES, _NORMAL)]
        path = pictures.get(Path(name).stem)
        if unknown or not patient:
            why = f"expected labels of the 14 findings, got {unknown[0]!r}" if unknown else "no patient"
            problems.append(f"{name or 'a row without a name'}: {why}")
        elif path is None:
            problems.append(f"{name}: no picture")
        elif split not in ("train", "validation") or for_validation(patient) == (split == "validation"):
            age = re.match(r"\d+", row["Patient Age"])
            records.append(
                Record(
                    name,
                    path,
                    patient,
                    {label: float(label in labels) for label in NIH_CLASSES},
                    row["View Position"] or None,
                    row["Patient Gender"] or None,
                    int(age[0]) if age else None,
                )
            )
    problems += [f"{name}: no row in {table.name}" for name in sorted((wanted or set()) - seen)]
    for patient, both in sides.items():
        if len(both) > 1:
            raise TrainError(
                "data_invalid",
                f"{folder}: patient {patient} is in {_TRAIN_VAL} and in {_TEST}; use the official lists",
            )
    boxes = _read_boxes(folder / _BOXES, {record.name: record for record in records}, problems)
    return Collection(f"nih:{folder}", NIH_CLASSES, tuple(records), boxes, tuple(problems))


def _pictures(folder: Path) -> dict[str, Path]:
    """Stem -> picture file."""
    folders = [folder / "images", *sorted(folder.glob("images_*/images")), *sorted(folder.glob("images_*/"))]
    found = {
        file.stem: file
        for place in folders
        if place.is_dir()
        for file in place.iterdir()
        if file.suffix.lower() in (".png", ".jpg", ".jpeg")
    }
    if not found:
        raise TrainError("data_missing", f"{folder}: expected pictures in images/ or images_*/images/, found none")
    return found


def _names(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError as error:
        raise TrainError("data_missing", f"{path}: the official split cannot be read ({error.strerror})") from error


def _read_boxes(path: Path, records: Mapping[str, Record], problems: list[str]) -> dict[str, tuple[LabelBox, ...]]:
    """Boxes of the given films, in pixels of their picture files."""
    boxes: dict[str, list[LabelBox]] = defaultdict(list)
    for row in read_rows(path, _BOX_COLUMNS, problems) if path.is_file() else ():
        record = records.get(row["Image Index"])
        if record is None:
            continue
        label = _BOX_LABELS.get(row["Finding Label"])
        try:
            x, y, w, h = (float(row[column]) for column in _BOX_COLUMNS[2:])
        except ValueError:
            label, x, y, w, h = None, 0, 0, 0, 0
        if label is None or not (min(x, y) >= 0 < min(w, h) and max(x + w, y + h) <= BOX_SIDE):
            got = ", ".join(row[column] for column in _BOX_COLUMNS[1:])
            problems.append(
                f"{path.name}: {record.name}: expected a finding and a box within {BOX_SIDE} x {BOX_SIDE}, got {got}"
            )
            continue
        with Image.open(record.path) as picture:
            sx, sy = picture.width / BOX_SIDE, picture.height / BOX_SIDE
        boxes[record.name].append(LabelBox(label, x * sx, y * sy, w * sx, h * sy))
    return {name: tuple(found) for name, found in boxes.items()}
