"""Films and boxes in COCO's form: https://cocodataset.org/#format-data.

images        id, file_name (relative to the json, or to images/ beside it), width, height
annotations   image_id, category_id, bbox [x, y, width, height]
categories    id, name
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from msloc_edge._tables import counted
from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import Collection, LabelBox, Record, films_of, named_twice


def what_is_wrong(error: Exception) -> str:
    """Word an exception that reading somebody's JSON raised, without Python's own words for it."""
    if isinstance(error, KeyError):
        return f"no entry {error}"
    return str(error) if isinstance(error, ValueError) else "an entry of another form"


def read_coco(path: Path, split: str) -> Collection:
    """Read films whose findings are the categories: there where an annotation has them, else absent.

    Every film is its own patient, and there is no official split. Raises TrainError for a file of another form.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
        names = {entry["id"]: str(entry["name"]) for entry in told["categories"]}
        images = {entry["id"]: str(entry["file_name"]) for entry in told["images"]}
        boxes: dict[object, list[LabelBox]] = defaultdict(list)
        for entry in told["annotations"]:
            x, y, w, h = map(float, entry["bbox"])
            boxes[entry["image_id"]].append(LabelBox(names[entry["category_id"]], x, y, w, h))
    except OSError as error:
        raise TrainError("data_missing", f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(
            "data_invalid",
            f"{path}: expected COCO's images, annotations with a bbox, and categories ({what_is_wrong(error)})",
        ) from error
    classes = tuple(dict.fromkeys(names.values()))
    records: list[Record] = []
    drawn: dict[str, tuple[LabelBox, ...]] = {}
    problems = [
        f"image_id {key!r}: {counted(len(found), 'box', 'boxes')}, and no such image"
        for key, found in boxes.items()
        if key not in images
    ]
    for key, name in images.items():
        file = next((place / name for place in (path.parent, path.parent / "images") if (place / name).is_file()), None)
        if file is None:
            problems.append(f"{name}: no picture")
        elif name in drawn:
            problems.append(named_twice(name))
        else:
            drawn[name] = tuple(boxes.get(key, ()))
            there = {box.label for box in drawn[name]}
            records.append(Record(name, file, name, {label: float(label in there) for label in classes}))
    chosen = films_of(split, records, [None] * len(records))
    kept = {record.name: drawn[record.name] for record in chosen if drawn[record.name]}
    return Collection(f"coco:{path}", classes, chosen, kept, tuple(problems))
