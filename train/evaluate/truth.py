"""True regions of findings: boxes of a collection, anyone's boxes from a csv, masks from a COCO file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msloc_edge.errors import MslocError, TrainError
from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.data import Collection, FilmNames, Record
from msloc_edge.train.data.coco import what_is_wrong
from msloc_edge.train.evaluate.masks import SLACK, decode_mask
from msloc_edge.train.tables import BOX_COLUMNS, read_rows


@dataclass(frozen=True, slots=True, eq=False)
class TrueRegion:
    """One true region of a finding.

    box   (x, y, width, height) in pixels of the picture file, top-left origin
    mask  [height, width] within the box, where the truth is a mask: the box is then the tight one, in whole pixels
    """

    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> TrueRegion:
        """Make a region of a mask [H, W] of the whole picture. Raises ValueError for one without any pixel."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            raise ValueError("a mask without any pixel")
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls((float(columns[0]), float(rows[0]), float(part.shape[1]), float(part.shape[0])), part.copy())

    def equals(self, other: TrueRegion) -> bool:
        """Tell whether box and mask are the same."""
        if self.mask is None or other.mask is None:
            return self.box == other.box and self.mask is other.mask
        return self.box == other.box and np.array_equal(self.mask, other.mask)

    def contains(self, x: float, y: float) -> bool:
        """True where a point of the picture lies in the mask, or in the box where there is no mask."""
        left, top, w, h = self.box
        inside = left <= x < left + w and top <= y < top + h
        return inside and (self.mask is None or bool(self.mask[int(y - top), int(x - left)]))


def whole_mask(regions: Sequence[TrueRegion], size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Unite all masks of a finding, [height, width] of the picture; None where the truth has none."""
    whole = np.zeros(size, bool)
    for region in regions:
        if region.mask is not None:
            left, top, w, h = (int(value) for value in region.box)
            whole[top : top + h, left : left + w] |= region.mask
    return whole if any(region.mask is not None for region in regions) else None


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """All true regions: film name -> label -> regions, and (height, width) of those films.

    kind      "boxes" or "masks"
    problems  the rows that were left out, each with its reason
    comes_with_films  whether the collection of the films has them itself
    """

    source: str
    kind: str
    regions: Mapping[str, Mapping[str, tuple[TrueRegion, ...]]]
    sizes: Mapping[str, tuple[int, int]]
    problems: tuple[str, ...] = ()
    comes_with_films: bool = False

    def only(self, films: Sequence[str], labels: Sequence[str]) -> Truth:
        """Keep the regions of these films and labels."""
        kept = {
            film: mine
            for film in films
            if (mine := {label: found for label, found in self.regions.get(film, {}).items() if label in labels})
        }
        return replace(self, regions=kept, sizes={film: self.sizes[film] for film in kept})

    def spelled(self, spell: Callable[[str], str]) -> Truth:
        """Give the labels other names."""
        regions: dict[str, dict[str, tuple[TrueRegion, ...]]] = {}
        for film, found in self.regions.items():
            for label, parts in found.items():
                mine = regions.setdefault(film, {})
                mine[spell(label)] = mine.get(spell(label), ()) + parts
        return replace(self, regions=regions)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({label for found in self.regions.values() for label in found}))

    @property
    def count(self) -> int:
        """Number of boxes or masks."""
        return sum(len(regions) for found in self.regions.values() for regions in found.values())


def read_truth(collection: Collection, records: Sequence[Record], boxes: Path | None, masks: Path | None) -> Truth:
    """Read the true regions of `records`: of a csv of boxes, of a COCO file of masks, or of the collection itself."""
    if boxes:
        return read_boxes(boxes, records)
    if masks:
        return read_masks(masks, records)
    return collection_boxes(collection, records)


def collection_boxes(collection: Collection, records: Sequence[Record]) -> Truth:
    """Take the boxes that come with a collection, those of `records`."""
    builder = _Builder(records)
    for record in records:
        for box in collection.boxes.get(record.name, ()):
            builder.add_box(record.name, box.label, (box.x, box.y, box.width, box.height), f"{collection.name}: ")
    return replace(builder.truth(collection.name, "boxes"), comes_with_films=True)


def read_boxes(path: Path, records: Sequence[Record]) -> Truth:
    """Read boxes of a csv with the columns image, label, x, y, w, h, in pixels of the picture file.

    Several rows may have the same image and label. An image is named as `FilmNames` finds it.
    Rows that cannot be used are left out and named. Raises TrainError when the table cannot be read, or no row is left.
    """
    builder = _Builder(records)
    for row in read_rows(path, BOX_COLUMNS, builder.problems):
        where = f"{path.name}, line {row.line}: "
        try:
            x, y, w, h = (float(row[column]) for column in BOX_COLUMNS[2:])
            builder.add_box(row["image"], row["label"], (x, y, w, h), where)
        except ValueError:
            got = ", ".join(row[column] for column in BOX_COLUMNS[2:])
            builder.problems.append(f"{where}expected four numbers x, y, w, h, got {got}")
    return builder.truth(str(path), "boxes")


def read_masks(path: Path, records: Sequence[Record]) -> Truth:
    """Read masks of a COCO file: polygons, or run-length codes, as lists or compressed, in the size of the picture.

    CheXlocalize's json will do, too: film -> finding -> run-length code, the film as patient1_study1_view1_frontal.

    Annotations that cannot be used are left out and named. Raises TrainError when the file is none, or none is left.
    """
    builder = _Builder(records)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if _is_chexlocalize(content):
            return _read_chexlocalize(content, path, builder)
        images = {image["id"]: image for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        annotations = list(content["annotations"])
    except OSError as error:
        raise TrainError("data_missing", f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(
            "data_invalid",
            f"{path}: expected COCO json with images, categories and annotations ({what_is_wrong(error)})",
        ) from error
    for number, annotation in enumerate(annotations):
        where = f"{path.name}, annotation {number}: "
        try:
            image, label = images[annotation["image_id"]], names[annotation["category_id"]]
            size = int(image["height"]), int(image["width"])
            builder.add_mask(str(image["file_name"]), label, annotation["segmentation"], size, where)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            builder.problems.append(f"{where}expected an image, a category and a segmentation ({what_is_wrong(error)})")
    return builder.truth(str(path), "masks")


def _is_chexlocalize(content: Any) -> bool:
    films = list(content.values()) if isinstance(content, dict) else []
    masks = [mask for film in films if isinstance(film, dict) for mask in film.values()]
    return bool(masks) and all(isinstance(mask, dict) and {"size", "counts"} <= mask.keys() for mask in masks)


def _read_chexlocalize(content: Mapping[str, Mapping[str, Any]], path: Path, builder: _Builder) -> Truth:
    """Read CheXlocalize's masks (Saporta et al. 2022, Nature Machine Intelligence 4, 867); an empty one says that the
    finding is absent."""
    paths = {"_".join(PurePosixPath(name).with_suffix("").parts[-3:]): name for name in builder.films}
    for film, masks in content.items():
        for label, mask in masks.items():
            where = f"{path.name}, {film}, {label}: "
            try:
                height, width = map(int, mask["size"])
                if decode_mask(mask, (height, width)).any():
                    builder.add_mask(paths.get(film, film), label, mask, (height, width), where)
            except (TypeError, ValueError, IndexError, OverflowError) as error:
                builder.problems.append(f"{where}expected a run-length code ({what_is_wrong(error)})")
    return builder.truth(str(path), "masks")


class _Builder:
    """Gathers regions film by film, and says why one is left out."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.problems: list[str] = []
        self._records = {record.name: record for record in records}
        self.films = tuple(self._records)
        self._names = FilmNames(self._records)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._regions: dict[str, dict[str, list[TrueRegion]]] = defaultdict(lambda: defaultdict(list))

    def add_box(self, image: str, label: str, box: tuple[float, float, float, float], where: str) -> None:
        if (film := self._find(image, label, where)) is None:
            return
        (height, width), (x, y, w, h) = self._sizes[film], box
        if min(x, y) >= -SLACK and min(w, h) > 0 and x + w <= width + SLACK and y + h <= height + SLACK:
            self._add(film, label, TrueRegion(box), where)
        else:
            self.problems.append(
                f"{where}expected a box within {film}, {width} x {height}, got {x:g}, {y:g}, {w:g}, {h:g}; "
                "coordinates are pixels of the picture file"
            )

    def add_mask(self, image: str, label: str, segmentation: Any, size: tuple[int, int], where: str) -> None:
        """Decode a mask only where it has the size of its film: the memory that it takes is then a film's."""
        if (film := self._find(image, label, where)) is None:
            return
        if size == self._sizes[film]:
            self._add(film, label, TrueRegion.of_mask(decode_mask(segmentation, size)), where)
        else:
            (height, width), (rows, columns) = self._sizes[film], size
            self.problems.append(
                f"{where}expected a mask of the picture's size {width} x {height}, got {columns} x {rows}"
            )

    def _add(self, film: str, label: str, region: TrueRegion, where: str) -> None:
        found = self._regions[film][label]
        if any(map(region.equals, found)):
            self.problems.append(f"{where}{film} has the same {label} already; it counts once")
        else:
            found.append(region)

    def _find(self, image: str, label: str, where: str) -> str | None:
        """Find the film of a region; None, and a problem, where there is none that can be read, or no label."""
        film = self._names.find(image)
        if film is None or not label:
            what = "a label" if film else "an image of the split"
            self.problems.append(f"{where}expected {what}, got {label if film else image!r}")
            return None
        try:
            if film not in self._sizes:
                self._sizes[film] = picture_size(self._records[film].path)
        except MslocError as error:
            self.problems.append(f"{where}{error.message}")
            return None
        return film

    def truth(self, source: str, kind: str) -> Truth:
        if self.problems and not self._regions:
            raise TrainError(
                "data_invalid", f"{source}: none of its {len(self.problems)} {kind} can be used: {self.problems[0]}"
            )
        regions = {
            film: {label: tuple(found) for label, found in labels.items()} for film, labels in self._regions.items()
        }
        sizes = {film: self._sizes[film] for film in regions}
        return Truth(source, kind, regions, sizes, tuple(self.problems))


def picture_size(path: Path) -> tuple[int, int]:
    """Read the (height, width) of a film as it is stored, from its header where that is enough.

    Raises InputError for one that is no film.
    """
    try:
        with Image.open(path) as image:
            if image.format != "TIFF":  # of which Pillow gives the size as its orientation turns it
                return image.height, image.width
    except (OSError, Image.DecompressionBombError):
        pass
    height, width = read_frame(path).pixels.shape
    return height, width
