"""Films of a dataset for radiologists to read: a csv whose answers `calibrate` and `eval` take as csv:FILE."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from msloc_edge._files import atomic_folder
from msloc_edge.errors import InputError, OutputError
from msloc_edge.score.archive import list_films
from msloc_edge.score.dataset import FILMS, Dataset, score_column

CSV = "worklist.csv"
_SHARD = ".tar#"


def write_worklist(dataset: Dataset, choice: str, count: int) -> tuple[Path, int]:
    """Write OUT/worklists/CHOICE-COUNT/worklist.csv: image, patient (the study, where DICOM says), a column a class.

    The columns of the classes are empty, for 1 or 0; the model's own scores are not shown, so that they lead nobody.
    Films in shards are copied beside. A choice is always the same: the order is that of the files' hashes.

    choice  of CHOICES
    count   films, at most
    returns the file, and the number of films in it

    Raises OutputError: out_occupied where the list is there already, with answers perhaps; InputError for a film that
    is no longer there.
    """
    folder = dataset.folder / "worklists" / f"{choice}-{count}"
    if folder.exists():
        raise OutputError("out_occupied", f"{folder}: is there already, perhaps with answers; move it away first")
    films = _candidates(dataset)
    films = films.take(CHOICES[choice](films, dataset.about)[:count])
    with atomic_folder(folder) as new:
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["image", "patient", *dataset.classes])
        for number, (name, study) in enumerate(zip(*_columns(films, "input", "study_instance_uid"), strict=True)):
            rows.writerow([_file(name, new, number), study, *[""] * len(dataset.classes)])
        (new / CSV).write_text(text.getvalue(), encoding="utf-8")
    return folder / CSV, len(films)


def _columns(films: pa.Table, *names: str) -> list[list[Any]]:
    return [films.column(name).to_pylist() for name in names]


def _candidates(dataset: Dataset) -> pa.Table:
    """Films that were localized, each content once, by its hash."""
    names = ["input", "sha256", "study_instance_uid", "refused", "flagged", "abnormal"]
    names += map(score_column, dataset.classes)
    parts = [part.filter(pc.is_null(part.column("refused"))) for part in dataset.read(FILMS, names)]
    films = pa.concat_tables(parts).sort_by([("sha256", "ascending"), ("input", "ascending")])
    hashes = films.column("sha256").to_numpy()
    first = np.ones(len(hashes), np.bool_)
    first[1:] = hashes[1:] != hashes[:-1]
    return films.filter(pa.array(first))


def _all(films: pa.Table, about: Mapping[str, Any]) -> NDArray[np.intp]:
    return np.arange(len(films))


def _flagged(films: pa.Table, about: Mapping[str, Any]) -> NDArray[np.intp]:
    return np.flatnonzero(films.column("flagged").to_numpy())


def _uncertain(films: pa.Table, about: Mapping[str, Any]) -> NDArray[np.intp]:
    """Order films by how near they are to the film's threshold, in log-odds; without one, to that of any class."""
    if about["film_threshold"] is not None and not films.column("abnormal").null_count:
        nearest = _distance(films.column("abnormal").to_numpy(), about["film_threshold"])
    else:
        each = [_distance(films.column(score_column(k)).to_numpy(), t) for k, t in about["thresholds"].items()]
        nearest = np.min(each, axis=0)
    return np.argsort(nearest, kind="stable")


def _distance(scores: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    odds = [np.clip(np.asarray(p, np.float64), 1e-9, 1 - 1e-9) for p in (scores, threshold)]
    return np.abs(np.log(odds[0] / (1 - odds[0])) - np.log(odds[1] / (1 - odds[1])))


CHOICES: dict[str, Callable[[pa.Table, Mapping[str, Any]], NDArray[np.intp]]] = {
    "uncertain": _uncertain,
    "flagged": _flagged,
    "random": _all,
}
"""What `--select` chooses -> the indices of films, the first to be read first."""


def _file(name: str, folder: Path, number: int) -> str:
    """Path of a film for the list: its own, or that of a copy of what lies in a shard."""
    if _SHARD not in name or os.path.exists(name):
        return os.path.abspath(name)
    shard = name.partition("#")[0]
    film = next((film for film in list_films([shard]) if film.input == name), None)
    data = film.read() if film else None
    if data is None:
        raise InputError("missing", f"{name}: expected a film in its shard, but there is none; check the path.")
    copy = folder / "films" / f"{number:05}-{Path(name.partition('#')[2]).name}"
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(data)
    return str(copy.relative_to(folder))
