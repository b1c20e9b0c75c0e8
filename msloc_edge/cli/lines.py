"""A file of JSON lines that grows: a line is there for good when it was added, whatever ends the program."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from msloc_edge._files import append_whole


class Lines:
    """The lines of `path`; the file is made with its first line, or by `open`. Raises OSError as it comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def open(self) -> FileIO:
        """Open the file to add to it; what a kill left of a last line goes."""
        if not self._file:
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(next((end for end, _ in self._backwards()), 0))
            self._file.seek(0, 2)
        return self._file

    def add(self, line: str) -> None:
        """Add a line, whole or not at all."""
        append_whole(self.open(), f"{line}\n".encode())

    def remove(self, line: str) -> None:
        """Take back the line that was added last."""
        file = self.open()
        file.truncate(file.tell() - len(f"{line}\n".encode()))
        file.seek(0, 2)

    def backwards(self) -> Iterator[dict[str, Any]]:
        """Yield the records, the last first."""
        return (record for _, record in self._backwards())

    def _backwards(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (end, record) of the whole lines, the last first."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
            while end:
                begin = content.rfind(b"\n", 0, end - 1) + 1
                try:
                    record = json.loads(content[begin:end])
                except ValueError:  # a machine that lost its power leaves zeros
                    record = None
                if isinstance(record, dict):
                    yield end, record
                end = begin

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
