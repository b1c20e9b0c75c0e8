"""Files that nobody meets half of; faults of writing; the cache's folder; names of films' files."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from msloc_edge.errors import OutputError

TEMPORARY = ".msloc-*.tmp"
"""Names, as a glob, of files that are being written, or that a crash left unfinished."""

ENGINES = "engines"
"""Folder in the cache: engine plans, built for this machine."""

FILM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff"})
"""Suffixes that files of films have, where they have one."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


def is_film_name(name: str) -> bool:
    """Tell whether a file without a look into it is a film: it has the suffix of one, or a UID as its name.

    >>> is_film_name("chest.DCM"), is_film_name("1.2.840.10008.7"), is_film_name("notes.txt")
    (True, True, False)
    """
    return os.path.splitext(name)[1].lower() in FILM_SUFFIXES or bool(_UID.fullmatch(name))


def film_stem(name: str) -> str:
    """Cut the suffix of a film's format off its name. The last number of a UID is none, though Path.stem takes it for
    one, and two films for the same.

    >>> film_stem("sub/1.2.840.10008.7"), film_stem("sub/1.2.840.10008.7.DCM")
    ('sub/1.2.840.10008.7', 'sub/1.2.840.10008.7')
    """
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in FILM_SUFFIXES else name


def cache_folder() -> Path:
    """Folder for what can be made again: MSLOC_CACHE, or msloc-edge in the user's cache. It may not exist yet."""
    if folder := os.environ.get("MSLOC_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msloc-edge"


def temporary_beside(path: Path) -> Path:
    """Make up a hidden, unused name in the folder of `path`: the same file system, so that a rename is atomic."""
    return path.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; what stood there before stays until then.

    Raises OSError, which names `path`; nothing is left behind.
    """
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill the folder that the block gets: it takes the place of `path` when the block ends, and goes when it fails.

    Raises OutputError as `writing` does, also for what the block writes.
    """
    temporary = temporary_beside(path)
    with writing(path, "or choose another folder"):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(place: Path, remedy: str = "or choose another --out") -> Iterator[None]:
    """Turn a write's OSError into an OutputError (disk_full, out_unwritable), which names the place and what to do.

    remedy  ends the sentence, after "free some" or "make it writable"
    """
    try:
        yield
    except BrokenPipeError:  # a reader that has gone is for the command line
        raise
    except OSError as error:
        if is_full(error):
            raise OutputError("disk_full", f"{place}: no space left; free some, {remedy}") from error
        where = error.filename or place
        raise OutputError(
            "out_unwritable", f"{where}: cannot be written ({error.strerror or error}); make it writable, {remedy}"
        ) from error


def require_writable(path: Path) -> None:
    """Raise OutputError (out_unwritable) where `path` cannot be made or changed: before the work that it is for."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK) or not there.is_dir():
        raise OutputError(
            "out_unwritable", f"{path}: expected a folder that can be written, got {there}; choose another"
        )


def is_full(error: OSError) -> bool:
    """Tell whether a write failed for lack of space: of the disk's, or of the user's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def append_whole(file: FileIO, data: bytes) -> None:
    """Append all of `data` to an unbuffered file, or nothing: a full disk leaves no half of it. Raises OSError."""
    end, rest = file.tell(), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:
        file.truncate(end)
        file.seek(end)
        raise
