"""Writing files so that a reader, or a crash, never meets half of one; and where the cache is."""

from __future__ import annotations

import os
import secrets
from io import FileIO
from pathlib import Path

TEMPORARY = ".msloc-*.tmp"
"""The names, as a glob, of files that are being written, or that a crash left unfinished."""


ENGINES = "engines"
"""Folder in the cache: engine plans, built for this machine."""


def cache_folder() -> Path:
    """Where msloc-edge keeps what it can make again: MSLOC_CACHE, or the user's cache folder. It may not exist yet."""
    if folder := os.environ.get("MSLOC_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msloc-edge"


def temporary_beside(path: Path) -> Path:
    """A hidden, unused name in the folder of `path`: the same file system, so that a rename is atomic."""
    return path.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; what stood there before stays until then.

    Raises OSError as it comes; nothing is left behind.
    """
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
