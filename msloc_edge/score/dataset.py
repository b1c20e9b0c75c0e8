"""A dataset of scored films: two tables in Parquet, whose parts appear whole or not at all.

    dataset.json        schema msloc-edge/scores/1, the model, and what decided the results
    films/*.parquet     a row for each film that was looked at
    failures/*.parquet  a row for each that could not be: input, reason, message, time

A film is in one part of one table. What is in no part is still to be done: that is all a run needs to go on.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from msloc_edge._files import atomic_write, writing
from msloc_edge.errors import MslocError, OutputError
from msloc_edge.pipeline import Localizer, Outcome
from msloc_edge.render.heatmap import color_index
from msloc_edge.result import PROGRAM, Result
from msloc_edge.score.archive import Film, Shard
from msloc_edge.types import SourceUids

SCHEMA = "msloc-edge/scores/1"
DATASET = "dataset.json"
AGAIN = "then go on with the same OUT"
"""What to do when a dataset could not be written: nothing is lost."""
FILMS, FAILURES = "films", "failures"
"""The tables, and the folders of their parts."""

_BOX = pa.struct([("label", pa.string()), *((name, pa.float32()) for name in ("x", "y", "w", "h", "score"))])
_MAP = pa.struct([("label", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("pixels", pa.binary())])
_TIME = pa.timestamp("ms", "UTC")
_FAILURE = pa.schema([("input", pa.string()), ("reason", pa.string()), ("message", pa.string()), ("time", _TIME)])


class Row(NamedTuple):
    """A row, and the table that it belongs to."""

    table: str
    values: Mapping[str, Any]


def score_column(label: str) -> str:
    """Name the column of a class's scores.

    >>> score_column("Mass")
    'score_Mass'
    """
    return f"score_{label}"


def film_schema(classes: Sequence[str], maps: bool = False) -> pa.Schema:
    """Columns of the films (docs/archive.md), with a score for each class, and maps where they are kept."""
    return pa.schema(
        [
            ("input", pa.string()),
            ("sha256", pa.string()),
            *((name, pa.string()) for name in SourceUids._fields),
            ("image_width", pa.int32()),
            ("image_height", pa.int32()),
            ("refused", pa.string()),
            ("warnings", pa.list_(pa.string())),
            ("abnormal", pa.float32()),
            ("flagged", pa.bool_()),
            ("findings", pa.list_(pa.string())),
            *((score_column(label), pa.float32()) for label in classes),
            ("boxes", pa.list_(_BOX)),
            *([("maps", pa.list_(_MAP))] if maps else []),
            ("pixel_mean", pa.float32()),
            ("pixel_sd", pa.float32()),
            ("profile", pa.string()),
            ("model_sha256", pa.string()),
            ("backend", pa.string()),
            ("time", _TIME),
        ]
    )


def to_row(outcome: Outcome[Film], maps: bool = False) -> Row:
    """Make the row of a film from what became of it."""
    film, result = outcome.prepared, outcome.result
    if film is None or result is None:
        return _failure(outcome.film, outcome.error)
    shown = np.asarray(film.input)[film.geometry.content]
    looked = result.refused is None
    values = {
        "input": outcome.film.input,
        "sha256": result.sha256,
        **(result.uids._asdict() if result.uids else {}),
        "image_width": result.geometry.image_width,
        "image_height": result.geometry.image_height,
        "refused": result.refused,
        "warnings": result.warnings,
        "abnormal": result.gate.score if result.gate else None,
        "flagged": bool(result.positive) if looked else None,
        "findings": [finding.label for finding in result.positive] if looked else None,
        **{score_column(finding.label): finding.score for finding in result.findings},
        "boxes": [{name: getattr(box, name) for name in _BOX.names} for box in result.boxes] if looked else None,
        "pixel_mean": float(shown.mean()),
        "pixel_sd": float(shown.std()),
        "profile": result.operating_point.profile,
        "model_sha256": result.model.sha256,
        "backend": result.backend,
        "time": datetime.fromisoformat(result.time),
    }
    return Row(FILMS, values | ({"maps": _maps(result)} if maps else {}))


def _failure(film: Film, error: MslocError | None) -> Row:
    reason, message = (error.reason, error.message) if error else ("internal_error", "no result; please report it")
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return Row(FAILURES, {"input": film.input, "reason": reason, "message": message, "time": now})


def _maps(result: Result) -> list[dict[str, Any]]:
    """Maps of the positive findings as 8-bit pictures on the scale of `color_index`."""
    found = []
    for finding in result.positive:
        pixels = color_index(result.maps[finding.label], result.map_thresholds[finding.label])
        height, width = pixels.shape
        found.append({"label": finding.label, "width": width, "height": height, "pixels": pixels.tobytes()})
    return found


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset in a folder, by its description.

    classes   of the model, in its order
    about     dataset.json: schema, program, model, profile, film_threshold, settings
    """

    folder: Path
    classes: tuple[str, ...]
    about: Mapping[str, Any]

    @classmethod
    def create(cls, folder: Path, localizer: Localizer, settings: Mapping[str, Any]) -> Dataset:
        """Begin a dataset, or go on with the one in the folder.

        settings  what decides the results besides model and profile: a dataset holds those of one kind

        Raises OutputError: out_occupied for a folder of something else, out_unwritable, disk_full.
        """
        bundle, point = localizer.bundle, localizer.operating_point
        about = {
            "schema": SCHEMA,
            "program": PROGRAM,
            "model": asdict(bundle.id),
            "profile": point.profile,
            "film_threshold": localizer.profile.film,
            "thresholds": dict(zip(bundle.classes, localizer.profile.score, strict=True)),
            "normals_flagged": point.normals_flagged,
            "settings": dict(settings),
        }
        file = folder / DATASET
        with writing(folder, AGAIN):
            if not file.exists():
                if folder.exists() and any(folder.iterdir()):
                    raise OutputError(
                        "out_occupied", f"{folder}: expected an empty folder or a dataset; choose another OUT"
                    )
                for table in (FILMS, FAILURES):
                    (folder / table).mkdir(parents=True, exist_ok=True)
                atomic_write(file, json.dumps(about, indent=1).encode())
        found = cls.open(folder)
        for name in ("model", "profile", "settings"):
            if found.about[name] != about[name]:
                raise OutputError("out_occupied", f"{folder}: holds scores of another {name}; choose another OUT")
        return found

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a dataset that is there. Raises OutputError (part_damaged) where there is none."""
        file = folder / DATASET
        try:
            about = json.loads(file.read_bytes())
            if about["schema"] != SCHEMA:
                raise ValueError(f"schema {about['schema']!r}")
            return cls(folder, tuple(about["thresholds"]), about)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                "part_damaged", f"{file}: expected a dataset of {SCHEMA}, got {error}; choose another folder"
            ) from error

    @property
    def maps(self) -> bool:
        return bool(self.about["settings"].get("maps"))

    def read(self, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read a table part by part. Raises OutputError (part_damaged)."""
        for path in sorted((self.folder / table).glob("part-*.parquet")):
            with suppress(FileNotFoundError):  # failures, which a run with --retry forgot meanwhile
                yield _read(path, columns)

    def column(self, table: str, name: str) -> pa.ChunkedArray:
        """A column of a whole table."""
        schema = self.schema(table)
        parts = [part.column(name) for part in self.read(table, [name])]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], schema.field(name).type)

    def schema(self, table: str) -> pa.Schema:
        """Columns of a table."""
        return film_schema(self.classes, self.maps) if table == FILMS else _FAILURE

    def inputs(self) -> set[str]:
        """Names of the films that are done, in either table."""
        return {name for table in (FILMS, FAILURES) for name in self.column(table, "input").to_pylist()}

    def forget_failures(self, shard: Shard) -> None:
        """Remove the rows of a shard's films that failed: they are tried again. Call it with the shard claimed."""
        with writing(self.folder / FAILURES, AGAIN), (self.folder / DATASET).open("ab") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # parts of an earlier division hold rows of several shards
            for path in sorted((self.folder / FAILURES).glob("part-*.parquet")):
                rows = _read(path)
                others = rows.filter(pa.array([not shard.holds(name) for name in rows.column("input").to_pylist()]))
                if not len(others):
                    path.unlink()
                elif len(others) < len(rows):
                    _write(path, others, self.about)

    @contextmanager
    def claim(self, shard: Shard) -> Iterator[Parts]:
        """Take a shard for this run alone, and give what writes its parts.

        Raises OutputError (out_occupied) while another run works on the shard, or divides the archive otherwise.
        """
        own = self.folder / _LOCK.format(shard.count)
        with ExitStack() as stack:
            with writing(self.folder, AGAIN):
                _lock(stack.enter_context(own.open("ab+")), self.folder, shard.number)
                for other in self.folder.glob(_LOCK.format("*")):
                    if other != own:
                        with other.open("ab+") as theirs:
                            _lock(theirs, self.folder)
            yield stack.enter_context(Parts(self, shard))


_LOCK = ".shards-of-{}.lock"


def _lock(file: IO[bytes], folder: Path, byte: int | None = None) -> None:
    """Lock one byte of a file, or all of it, until it is closed; between machines, too, where they share the folder.

    Raises OutputError (out_occupied), and OSError where the folder's file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, *(() if byte is None else (1, byte)))
    except (BlockingIOError, PermissionError):
        raise OutputError(
            "out_occupied", f"{folder}: another run works on this shard, or with another n; wait until it has ended"
        ) from None


class Parts:
    """Writes the rows of one shard as they come: a table's part is there for good when it has its name.

    rows  of a part, at most; those in hand when the block ends are a part, too, whatever ended it
    """

    def __init__(self, dataset: Dataset, shard: Shard) -> None:
        self.rows = 1000
        self._dataset = dataset
        self._prefix = f"part-{shard.number:04}-of-{shard.count:04}-"
        self._waiting: dict[str, list[Mapping[str, Any]]] = {FILMS: [], FAILURES: []}
        self._next: dict[str, int] = {}

    def __enter__(self) -> Parts:
        for table in self._waiting:
            folder = self._dataset.folder / table
            for unfinished in folder.glob(f".{self._prefix}*"):
                unfinished.unlink()
            taken = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{self._prefix}*.parquet")]
            self._next[table] = max(taken, default=-1) + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, row: Row) -> None:
        """Add a row. Raises OutputError: disk_full, out_unwritable."""
        self._waiting[row.table].append(row.values)
        if sum(map(len, self._waiting.values())) >= self.rows:
            self.flush()

    def flush(self) -> None:
        """Write the rows in hand. An interrupted call may be repeated: what is written already is not written again."""
        for table, rows in self._waiting.items():
            path = self._dataset.folder / table / f"{self._prefix}{self._next[table]:06}.parquet"
            if rows and not path.exists():
                _write(path, pa.Table.from_pylist(rows, self._dataset.schema(table)), self._dataset.about)
            if rows:
                self._waiting[table] = []
                self._next[table] += 1


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return parquet.read_table(path, columns=columns, partitioning=None)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            "part_damaged", f"{path}: expected a part of a dataset; remove it, and its films are done again"
        ) from error


def _write(path: Path, table: pa.Table, about: Mapping[str, Any]) -> None:
    """Write a part beside its place, and rename it when it is on the disk."""
    unfinished = path.with_name(f".{path.name}")
    table = table.replace_schema_metadata({"msloc_edge": json.dumps(about)})
    with writing(path.parent, AGAIN):
        with unfinished.open("wb") as file:
            parquet.write_table(table, file, compression="zstd")
            os.fsync(file.fileno())
        unfinished.rename(path)
