"""Inputs as the user names them, and the films in them: files, folders, globs, "-"."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({"", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff"})
"""Suffixes of films in a folder; a file named by itself is read whatever its name."""

OUTPUTS = (".overlay.png", ".heatmap.png")
"""Names of pictures that an earlier run may have written into the same folder: they are no films."""

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """A film to read: its path (or "-"), and the name that its output files begin with, unique in the run."""

    path: str
    stem: str


def expand(inputs: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the films that `inputs` name: folders whole and globs, both sorted, the rest as given.

    A folder or a glob that holds no film is given on as it is, so that reading it names what is wrong.
    """
    for item in inputs:
        if item == STDIN or os.path.isfile(item):
            yield item
        elif os.path.isdir(item):
            yield from films_in(Path(item)) or [item]
        else:
            yield from sorted(filter(os.path.isfile, glob.iglob(item, recursive=True))) or [item]


def films_in(folder: Path) -> list[str]:
    """List the files in a folder and below that look like films by their suffix, sorted.

    Left out: what is hidden, DICOMDIR, our own pictures, and what vanishes while we look.
    """
    films = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        films += [Path(parent, name) for name in names if _is_film(name)]
    return [str(film) for film in sorted(films) if os.path.isfile(film)]


def _is_film(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return suffix in SUFFIXES and name != "DICOMDIR" and not name.startswith(".") and not name.endswith(OUTPUTS)


class Names:
    """Gives every film of a run its own output name: the file's stem, with "-2", "-3" where it was taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: Counter[str] = Counter()

    def source(self, path: str) -> Source:
        stem = "stdin" if path == STDIN else Path(path).stem or "film"
        name = stem
        while name in self._taken:
            self._numbers[stem] += 1
            name = f"{stem}-{self._numbers[stem] + 1}"
        self._taken.add(name)
        return Source(path, name)
