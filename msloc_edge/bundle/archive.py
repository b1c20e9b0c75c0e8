"""Bundles in archives: a zip or tar of unknown origin is unpacked as plain files of bounded size, or refused."""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from msloc_edge._files import writing
from msloc_edge.bundle.bundle import MANIFEST
from msloc_edge.errors import BundleError

MAX_ARCHIVE, MAX_UNPACKED = 2_000_000_000, 4_000_000_000
"""Bytes of an archive, and of all that it says it holds."""

MAX_ENTRIES = 1000

ELSEWHERE = "or choose another store with MSLOC_MODELS"
"""What to do when the store could not be written."""

_BLOCK = 1 << 16
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, RuntimeError, ValueError),
)
"""Errors of the readers of archives for one that is cut, mangled, encrypted or nested without end."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Claims of an archive about one of its members."""

    name: str
    size: int
    plain: bool  # a file or a folder: no link, no device
    folder: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, source: str) -> None:
    """Write the files of the one bundle in an archive into `folder`, under names without a path.

    `source` is what messages call it. Raises BundleError: bundle_missing, bundle_damaged, archive_refused; OutputError.
    """
    with reading(archive), archive.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        try:
            if magic.startswith(b"PK"):
                with zipfile.ZipFile(file) as zipped:
                    _unpack_entries(_zip_entries(zipped), folder, source)
            elif magic.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=file) as unzipped, _tar(unzipped) as tar:
                    _unpack_entries(_tar_entries(tar), folder, source)
            elif magic == b"\xfd7zXZ\0":
                with lzma.LZMAFile(file) as expanded, _tar(expanded) as tar:
                    _unpack_entries(_tar_entries(tar), folder, source)
            else:
                raise BundleError(
                    "archive_refused", f"{source}: expected a bundle folder, or a .zip, .tar.gz or .tar.xz file"
                )
        except _BROKEN as error:
            raise BundleError(
                "bundle_damaged", f"{source}: cannot be unpacked ({error}); fetch or pack it again"
            ) from error


def _unpack_entries(entries: Iterable[_Entry], folder: Path, source: str) -> None:
    files = _check_entries(entries, source)
    manifests = [path for path in files if path.name == MANIFEST]
    if len(manifests) != 1 or len(manifests[0].parts) > 2:
        raise BundleError(
            "archive_refused",
            f"{source}: expected one bundle, with its {MANIFEST} at the top or in one folder, found "
            f"{', '.join(repr(str(path)) for path in manifests[:3]) or 'none'}; pack the bundle folder alone",
        )
    for path, entry in files.items():
        if path.parent == manifests[0].parent:
            with entry.open() as content:
                save(blocks(content), folder / path.name)


def _check_entries(entries: Iterable[_Entry], source: str) -> dict[PurePosixPath, _Entry]:
    """Files among the entries, by path. Each is checked before the next is asked for: a tar skips what it believes."""
    files: dict[PurePosixPath, _Entry] = {}
    total = 0
    for count, entry in enumerate(entries, 1):
        path = PurePosixPath(entry.name)
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in entry.name or ":" in entry.name
        if unsafe or not entry.plain or entry.size < 0 or path in files or not (path.name or entry.folder):
            raise BundleError(
                "archive_refused",
                f"{source}: expected files under plain names, got {entry.name!r}, which is absolute, outside, a link, "
                "a device or there twice; nothing was unpacked: do not trust this archive",
            )
        total += entry.size
        check_size(total, MAX_UNPACKED, source)
        if count > MAX_ENTRIES:
            raise BundleError(
                "archive_refused",
                f"{source}: expected at most {MAX_ENTRIES} files, got more; pack the bundle folder alone",
            )
        if not entry.folder:
            files[path] = entry
    return files


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in archive.infolist():
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        yield _Entry(info.filename, info.file_size, plain, info.is_dir(), partial(archive.open, info))


def _tar_entries(archive: tarfile.TarFile) -> Iterator[_Entry]:
    for info in archive:
        opened = partial(_content, archive, info)
        yield _Entry(info.name, info.size, info.isfile() or info.isdir(), info.isdir(), opened)


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    assert content  # a file has one
    return content


def _tar(file: gzip.GzipFile | lzma.LZMAFile) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast("IO[bytes]", _Bounded(file)), mode="r:")


class _Bounded:
    """A decompressed tar. tarfile reads a header in one piece, however large that claims to be: not from here."""

    def __init__(self, file: gzip.GzipFile | lzma.LZMAFile) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= 64 * _BLOCK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def check_size(size: int, limit: int, source: str) -> None:
    if size > limit:
        raise BundleError(
            "archive_refused",
            f"{source}: expected at most {limit:,} bytes, got {size:,} or more; pack the bundle folder alone",
        )


def blocks(content: IO[bytes]) -> Iterator[bytes]:
    while block := content.read(_BLOCK):
        yield block


def save(content: Iterable[bytes], target: Path) -> None:
    """Write a new file. What goes wrong in reading is left to the caller; in writing, it is an OutputError."""
    with writing(target, ELSEWHERE):
        file = target.open("xb", buffering=0)
    with file:
        for block in content:
            rest = memoryview(block)
            while rest:
                with writing(target, ELSEWHERE):
                    rest = rest[file.write(rest) :]


@contextmanager
def reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            "bundle_missing",
            f"{file}: cannot be read ({error.strerror or error}); expected a bundle folder, an archive or a URL",
        ) from error
