"""The spool: films and objects on disk, each whole or not there, and the journal that knows what they are.

journal.sqlite           what came, and how far it is
films/UID.dcm            a film as it was received
objects/UID/KIND.dcm     its objects
lock                     held by the listener that works here
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from msloc_edge._files import TEMPORARY, temporary_beside, writing
from msloc_edge.errors import ListenError
from msloc_edge.journal import Journal


class Spool:
    """A folder of the layout above, which is made where it is missing. Nothing in it is shown to other users.

    Raises OutputError (out_unwritable); what writes into it raises OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._films, self._objects = folder, folder / "films", folder / "objects"
        with writing(folder, "or choose another spool"):
            for part in (folder, self._films, self._objects):
                part.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open_journal(self) -> Journal:
        """Open the journal; several processes may."""
        return Journal(self.folder / "journal.sqlite")

    def lock(self) -> int:
        """Take the spool for this process; the file descriptor holds it. Raises ListenError (spool_taken)."""
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ListenError("spool_taken", f"{self.folder}: another listener works here; choose another") from error
        return descriptor

    @property
    def free_bytes(self) -> int:
        """Space that is left on its file system."""
        return shutil.disk_usage(self.folder).free

    def film(self, uid: str) -> Path:
        """Path of a film."""
        return self._films / f"{uid}.dcm"

    def object(self, uid: str, kind: str) -> Path:
        """Path of an object of a film."""
        return self._objects / uid / f"{kind}.dcm"

    def write_unnamed(self, data: bytes) -> Path:
        """Write a film that gets its name later, so that the disk has it when this returns."""
        return _write_synced(temporary_beside(self._films / "film"), data)

    def name_film(self, written: Path, uid: str) -> None:
        """Give a film that `write_unnamed` wrote its name, so that the disk has that, too."""
        written.replace(self.film(uid))
        _sync_folder(self._films)

    def write_objects(self, uid: str, objects: Mapping[str, bytes]) -> None:
        """Write all objects of a film, kind -> file, in place of those that are there."""
        folder = self._objects / uid
        temporary = temporary_beside(folder)
        temporary.mkdir(mode=0o700)
        try:
            for kind, data in objects.items():
                _write_synced(temporary / f"{kind}.dcm", data)
            _sync_folder(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_folder(self._objects)

    def remove_film(self, uid: str) -> None:
        """Remove a film; one that has gone is no error."""
        self.film(uid).unlink(missing_ok=True)

    def remove_objects(self, uid: str) -> None:
        """Remove the objects of a film; such as have gone are no error."""
        shutil.rmtree(self._objects / uid, ignore_errors=True)

    def clean(self, journal: Journal) -> None:
        """Remove what a crash left unfinished: nothing of it was ever acknowledged. Only with the lock."""
        for part in (self._films, self._objects):
            for entry in part.iterdir():
                if entry.match(TEMPORARY) or not journal.find(name=entry.name.removesuffix(".dcm"), limit=1):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _write_synced(path: Path, data: bytes) -> Path:
    """Write a file, and wait for the disk to have it; nothing is left of one that could not be written."""
    try:
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _sync_folder(folder: Path) -> None:
    """Wait for the disk to have a folder's names (fsync(2): a file's own fsync does not include them)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
