"""The films of an archive, wherever they lie: files, manifests that name files, shards that hold them."""

from __future__ import annotations

import csv
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from msloc_edge._files import is_film_name
from msloc_edge.errors import InputError, MslocError

COLUMNS = ("path", "image", "input")
"""Columns of a manifest that may name its films; the first that is there counts."""


@dataclass(frozen=True, slots=True)
class Film:
    """A film of an archive, by its place.

    input  its name in the dataset, which no other film has: the path, or SHARD#MEMBER
    path   the file to read
    part   of a film in a shard: its first byte in that file, and how many
    error  what is known to be wrong already: such a film is not read
    """

    input: str
    path: str
    part: tuple[int, int] | None = None
    error: MslocError | None = None

    def read(self) -> bytes | None:
        """Bytes of a film in a shard; None for one that is a file. Raises InputError."""
        if self.error:
            raise self.error
        if self.part is None:
            return None
        offset, length = self.part
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise InputError(
                "unreadable", f"{self.path}: expected a readable shard, got '{error.strerror}'; check it."
            ) from None
        if len(data) < length:
            raise InputError("truncated", f"{self.input}: expected a whole film, but its shard ends; copy it again.")
        return data


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shares of an archive, from 1: a film's name decides, whatever else the archive holds.

    >>> sum(Shard(at, 3).holds("a/film.png") for at in (1, 2, 3))
    1
    """

    number: int = 1
    count: int = 1

    def holds(self, input: str) -> bool:
        digest = hashlib.sha256(input.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def list_films(paths: Iterable[str]) -> Iterator[Film]:
    r"""List the films that paths stand for, each once: of a shard or a manifest those in it, of another path itself.

    A byte of a path that is no UTF-8 stands as \xNN in the film's name, as the tables hold text.

    Raises InputError for a manifest that cannot be used; a shard that is damaged is a film with an error, behind those
    before the damage.
    """
    seen = set[str]()
    for path in paths:
        expand = _EXPANSIONS.get(Path(path).suffix.lower())
        for film in expand(Path(path)) if expand else [Film(path, path)]:
            name = os.fsencode(film.input).decode("utf-8", "backslashreplace")
            if name not in seen:
                seen.add(name)
                yield film if name == film.input else replace(film, input=name)


def _in_shard(path: Path) -> Iterator[Film]:
    """Films of a tar file, in its order (the form of WebDataset: files of one sample share their stem). Members with
    the suffix of a film, or a UID as their name, are films; labels and the rest are passed over."""
    try:
        with tarfile.open(path, "r:") as shard:  # uncompressed: any film in it can be read by itself
            for member in shard:
                if member.isreg() and not member.issparse() and _is_film(member.name):
                    yield Film(f"{path}#{member.name}", str(path), (member.offset_data, member.size))
    except FileNotFoundError:
        yield _broken(path, "missing", "a file, but there is none; check the path")
    except tarfile.TarError:
        yield _broken(path, "corrupt", "a whole, uncompressed tar file, but it is none; copy or write it again")
    except OSError as error:
        yield _broken(path, "unreadable", f"a readable file, got '{error.strerror}'; check its permissions")


def _broken(path: Path, reason: str, expected: str) -> Film:
    return Film(str(path), str(path), error=InputError(reason, f"{path}: expected {expected}."))


def _is_film(member: str) -> bool:
    name = PurePosixPath(member).name
    return not name.startswith(".") and is_film_name(name)


def _in_manifest(names: Callable[[Path], Iterable[str]], path: Path) -> Iterator[Film]:
    """Films that a manifest names, relative to its own folder."""
    try:
        for name in names(path):
            film = str(path.parent / name)
            yield Film(film, film)
    except FileNotFoundError:
        raise InputError("missing", f"{path}: expected a manifest, but there is none; check the path.") from None
    except UnicodeDecodeError:
        raise InputError(
            "corrupt", f"{path}: expected a manifest in UTF-8, got another encoding; convert it."
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError("corrupt", f"{path}: expected a manifest of films, but {error}; write it again.") from None


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        yield from filter(None, map(str.strip, file))


def _rows(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        column = _column(rows.fieldnames or ())
        yield from (row[column] for row in rows if row[column])


def _records(path: Path) -> Iterator[str]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        column = _column(file.schema_arrow.names)
        for batch in file.iter_batches(columns=[column]):
            yield from filter(None, batch.column(0).to_pylist())


def _column(names: Iterable[str]) -> str:
    names = list(names)
    for column in COLUMNS:
        if column in names:
            return column
    raise ValueError(f"it has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}")


_EXPANSIONS: dict[str, Callable[[Path], Iterator[Film]]] = {
    ".tar": _in_shard,
    ".csv": partial(_in_manifest, _rows),
    ".parquet": partial(_in_manifest, _records),
    ".txt": partial(_in_manifest, _lines),
}
"""Suffix of what holds films -> what lists them."""
