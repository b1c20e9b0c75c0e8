"""Maps that some other tool has written: one .npy or .png per film and finding, in a folder."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import MslocError, TrainError
from msloc_edge.train.data import FilmNames, Record
from msloc_edge.train.data.collection import named_twice
from msloc_edge.train.data.names import plain_label
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.measure import FilmMaps
from msloc_edge.train.evaluate.truth import picture_size
from msloc_edge.train.tables import read_rows

SIDE = 512
"""A map smaller than its film is enlarged, bilinearly, to the film or to this longest side, whichever is less."""

_SUFFIXES = (".npy", ".png")


def read_heatmap(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map over a whole film of (height, width) -> [h, w] float32, finite, in the file's own units.

    .npy holds [h, w] or [1, h, w] numbers, .png 8 or 16 bit grey. Raises TrainError (data_invalid) for a file
    that is neither, NaN or infinity, and a shape that is not the film's.
    """
    try:
        values = _load(path)
    except (OSError, ValueError, EOFError) as error:
        raise _bad(path, f"an .npy array or a grey .png, got {error}") from error
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.dtype.kind not in "fiub" or not values.size:
        raise _bad(path, f"numbers [h, w], got {values.dtype} {list(values.shape)}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise _bad(path, f"finite numbers, got {np.count_nonzero(~np.isfinite(values))} that are NaN or infinite")
    (height, width), (rows, columns) = size, values.shape
    # Of the film's shape, within the pixel that scaling rounds away: rows / height = columns / width.
    if abs(rows - columns * height / width) > 1 and abs(columns - rows * width / height) > 1:
        raise _bad(path, f"the shape of its film, {height} x {width} or that scaled, got {rows} x {columns}")
    longest = min(SIDE, max(size))
    if max(values.shape) < longest:
        scale = longest / max(size)
        wanted = max(1, round(width * scale)), max(1, round(height * scale))
        values = cv2.resize(values, wanted, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    return values


class HeatmapFolder:
    """A folder with NAME/LABEL.npy or NAME.LABEL.npy (or .png) for films NAME, as `FilmNames` finds them.

    films       names of the films; maps and scores of others are passed over
    thresholds  finding -> absolute threshold in the maps' own units; "" stands for every finding; a finding without
                one is thresholded at the middle of each map's own range
    scores      a csv with the columns image, label, score

    Raises TrainError when the folder has no map of these films, or the table cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        films: Iterable[str],
        thresholds: Mapping[str, float] | None = None,
        scores: Path | None = None,
    ) -> None:
        self.folder, self.thresholds = folder, dict(thresholds or {})
        self.problems: list[str] = []
        names = FilmNames(films)
        self._files = _files(folder, names)
        if not self._files:
            raise TrainError(
                "data_missing",
                f"{folder}: expected NAME/LABEL.npy or NAME.LABEL.npy (or .png) of films of the split, found none",
            )
        self._scores = _read_scores(scores, names, self.problems) if scores else {}
        self._limits = {plain_label(label): value for label, value in self.thresholds.items()}

    def labels(self, candidates: Iterable[str]) -> tuple[str, ...]:
        """Keep those of `candidates` that some map or score in the folder is named after."""
        known = set().union(*self._files.values(), *self._scores.values())
        return tuple(label for label in candidates if plain_label(label) in known)

    def film(self, record: Record, parts: Mapping[str, Sequence[str]]) -> FilmMaps:
        """Read the maps and scores of a film; `parts` as of `resolve_labels`.

        A map that cannot be used goes to `problems` and counts as missing. Raises InputError for a film that cannot be
        read.
        """
        size = picture_size(record.path)
        own = self._scores.get(record.name, {})
        scores = {
            label: max(own[plain_label(part)] for part in pieces)
            for label, pieces in parts.items()
            if all(plain_label(part) in own for part in pieces)
        }

        def main(label: str) -> Evidence | None:
            try:
                found = [self._read(record, part, size) for part in parts[label]]
                return Evidence.union(_one_shape(found))
            except MslocError as error:
                self.problems.append(error.message)
                return None

        def others(label: str) -> Mapping[str, Evidence]:
            if not self.thresholds:
                return {}
            try:
                found = [self._read(record, part, size, absolute=False) for part in parts[label]]
                return {"heatmaps_half_range": Evidence.half_range(Evidence.union(_one_shape(found)).values)}
            except MslocError:  # told by `main`
                return {}

        return FilmMaps(size, scores, {}, main, others)

    def _read(self, record: Record, label: str, size: tuple[int, int], absolute: bool = True) -> Evidence:
        name = plain_label(label)
        path = self._files.get(record.name, {}).get(name)
        if path is None:
            raise TrainError("data_missing", f"{record.name}: no map of {label}")
        return Evidence.thresholded(read_heatmap(path, size), self._limits if absolute else {}, name)


def parse_thresholds(text: str) -> dict[str, float]:
    """ "Mass=0.4,Nodule=0.3", or one number for every finding, which stands under "". Raises ValueError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        label, _, value = part.rpartition("=")
        found[label.strip()] = _number(value)
    if not all(map(math.isfinite, found.values())):
        raise ValueError(f"expected numbers, as 0.4 or Mass=0.4,Nodule=0.3, got {text!r}")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _files(folder: Path, names: FilmNames) -> dict[str, dict[str, Path]]:
    """Film -> plain label -> file. A name may be parted at any of its dots, if a film stands before it."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in _SUFFIXES or not file.is_file():
            continue
        whole = file.relative_to(folder).with_suffix("").as_posix()
        above, _, name = whole.rpartition("/")
        dots = [at for at, character in enumerate(whole) if character == "."]
        for film_name, label in [(above, name), *((whole[:at], whole[at + 1 :]) for at in dots)]:
            if film := names.find(film_name):
                found[film].setdefault(plain_label(label), file)
    return dict(found)


def _load(path: Path) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    values = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("something that is no picture")
    if values.ndim == 3:
        grey = values[..., 0]
        if (values[..., :3] != grey[..., None]).any():
            raise ValueError("a picture in colours, which have no order")
        return np.asarray(grey)
    return np.asarray(values)


def _read_scores(path: Path, names: FilmNames, problems: list[str]) -> dict[str, dict[str, float]]:
    """Film -> plain label -> score."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in read_rows(path, ("image", "label", "score"), problems):
        score = _number(row["score"])
        if not math.isfinite(score):
            problems.append(f"{path.name}, line {row.line}: expected a number as score, got {row['score']!r}")
        elif film := names.find(row["image"]):
            label = plain_label(row["label"])
            if label in found[film]:
                problems.append(named_twice(f"{path.name}, line {row.line}: {film}, {label}"))
            else:
                found[film][label] = score
    return dict(found)


def _one_shape(parts: list[Evidence]) -> list[Evidence]:
    """Maps of one film, brought to the shape of the first."""
    height, width = parts[0].values.shape

    def fit(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)

    return [
        part if part.values.shape == (height, width) else Evidence(fit(part.values), fit(part.margin)) for part in parts
    ]


def _bad(path: Path, expected: str) -> TrainError:
    return TrainError("data_invalid", f"{path}: expected {expected}")
