"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import os
import secrets
from io import FileIO
from pathlib import Path


def temporary_beside(path: Path) -> Path:
    """A hidden, unused name in the folder of `path`: the same file system, so that a rename is atomic."""
    return path.with_name(f".msloc-{secrets.token_hex(8)}.tmp")


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
