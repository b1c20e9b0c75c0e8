"""Films in memory's reach: square, decoded once, with labels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from msloc_edge._files import atomic_write
from msloc_edge.errors import InputError, TrainError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.data.cache import films_folder, new_pixels
from msloc_edge.train.data.collection import Collection, Record

LOOKS = 16
"""Pictures of a collection whose size is looked at: no film is kept larger than the largest of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Films:
    """N square films of one source.

    pixels    [N, side, side] uint8, memory-mapped: displayed brightness x 255, letterboxed
    labels    [N, K] float32: 1, 0, or nan where it is not known
    names, patients   [N]
    problems  what could not be used, and why
    records   [N] what the tables say of each; none of films that are made
    masks     index -> label -> true region [side, side], where the truth is known
    """

    source: str
    classes: tuple[str, ...]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.float32]
    names: tuple[str, ...]
    patients: tuple[str, ...]
    problems: tuple[str, ...] = ()
    masks: Callable[[int], Mapping[str, NDArray[np.bool_]]] | None = None
    records: tuple[Record, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def side(self) -> int:
        return int(self.pixels.shape[1])


def label_array(labels: Iterable[Mapping[str, float]], classes: Sequence[str]) -> NDArray[np.float32]:
    """[N, K] of what is known, nan elsewhere."""
    rows = [[row.get(label, np.nan) for label in classes] for row in labels]
    return np.array(rows, np.float32).reshape(-1, len(classes))


def require_films(collection: Collection) -> None:
    """Raise TrainError (data_missing) for a split without a film; the first that was left out is named."""
    if not collection.records:
        problems = collection.problems
        why = f"{len(problems)} left out; the first: {problems[0]}" if problems else "choose another split"
        raise TrainError("data_missing", f"{collection.name}: expected films in this split, found none ({why})")


def load_films(collection: Collection, side: int, classes: Sequence[str], progress: Progress) -> Films:
    """The films of a collection, letterboxed to `side` pixels or to their own size where that is smaller.

    A picture that cannot be read is left out and named in `problems`. Raises TrainError when none is left.
    """
    require_films(collection)
    records = collection.records
    looks = records[:: max(1, len(records) // LOOKS)]
    side = min(side, max(_longer_side(record.path) for record in looks) or side)
    key = hashlib.sha256()
    for record in records:
        found = record.path.stat()
        key.update(f"{record.path.resolve()}|{found.st_size}|{found.st_mtime_ns}\n".encode())
    path = films_folder() / f"films-{side}-{len(records)}-{key.hexdigest()[:16]}.npy"
    table = path.with_suffix(".json")
    if not (path.exists() and table.exists()):
        _decode([record.path for record in records], side, path, table, progress)
    told = json.loads(table.read_text())
    kept = [records[at] for at in told["kept"]]
    if not kept:
        raise TrainError("data_missing", f"{collection.name}: no picture can be read; the first: {told['problems'][0]}")
    return Films(
        collection.name,
        tuple(classes),
        np.load(path, mmap_mode="r")[: len(kept)],
        label_array((record.labels for record in kept), classes),
        tuple(record.name for record in kept),
        tuple(record.patient for record in kept),
        (*collection.problems, *told["problems"]),
        records=tuple(kept),
    )


def _longer_side(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            return max(picture.size)
    except OSError:
        return 0  # not a picture, or DICOM: it has its say when it is decoded


def _decode(paths: list[Path], side: int, out: Path, table: Path, progress: Progress) -> None:
    """Readable films to the front of the array; which they are, and what is wrong with the others, to `table`."""
    kept: list[int] = []
    problems: list[str] = []
    task = progress.add_task("decoding films", total=len(paths))
    with new_pixels(out, len(paths), side) as pixels, ThreadPoolExecutor(os.cpu_count()) as pool:
        for at, film in enumerate(pool.map(_read, paths, [side] * len(paths))):
            if isinstance(film, str):
                problems.append(film)
            else:
                pixels[len(kept)] = film
                kept.append(at)
            progress.advance(task)
    progress.remove_task(task)
    atomic_write(table, json.dumps({"kept": kept, "problems": problems}).encode())


def _read(path: Path, side: int) -> NDArray[np.uint8] | str:
    try:
        display = read_frame(path).display()
    except InputError as error:
        return str(error)
    fitted = Geometry.fit((display.shape[0], display.shape[1]), (side, side)).letterbox(display)
    return np.round(fitted * 255).astype(np.uint8)
