"""Pictures of a release, by the names that its tables call them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msloc_edge.errors import TrainError

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


def find_pictures(folders: Iterable[Path]) -> dict[str, Path]:
    """Find the pictures in some folders, of which some may not be there: stem -> file.

    Raises TrainError (data_missing) when there is none.
    """
    folders = list(folders)
    found = {
        file.stem: file
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES
    }
    if not found:
        places = " or ".join(str(folder) for folder in folders)
        raise TrainError("data_missing", f"expected pictures ({', '.join(SUFFIXES)}) in {places}, found none")
    return found
