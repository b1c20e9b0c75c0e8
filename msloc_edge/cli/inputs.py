"""Inputs as the user names them, and the films in them: files, folders, globs, "-"."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msloc_edge._files import film_stem, is_film_name

STDIN = "-"

_OURS = re.compile(
    r".*\.(overlay\.png|heatmap\.png|heatmap\.npy|(sr|seg|pm|gsps|sc)\.dcm)|(results|failures)\.jsonl|report(-\d+)?\.html|journal\.sqlite.*"
)
"""What a run writes: it may stand in the folder that is searched, and is neither a film nor passed over."""

Look = tuple[int, int]
"""Size and time of change of a file, in bytes and nanoseconds."""


@dataclass(frozen=True, slots=True)
class Source:
    """A film to read: its path (or "-"), the name that its output files begin with, unique in their folder, and what
    the file looked like before it was read."""

    path: str
    stem: str
    look: Look | None = None


def look_at(path: str) -> Look | None:
    """Size and time of change of a file; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


class Search:
    """Finds the films that inputs name, and keeps what it passed over in their folders: `passed_over`, path -> why."""

    def __init__(self) -> None:
        self.passed_over: dict[str, str] = {}
        self._verdicts: dict[str, tuple[Look | None, str]] = {}

    def expand(self, inputs: Iterable[str]) -> Iterator[str]:
        """Yield the paths of the films that `inputs` name: folders whole and globs, both sorted, the rest as given.

        A folder or a glob that holds no film is given on as it is, so that reading it names what is wrong.
        """
        for item in inputs:
            if item == STDIN or os.path.isfile(item):
                yield item
            elif os.path.isdir(item):
                yield from self.films_in(Path(item)) or [item]
            else:
                yield from sorted(filter(os.path.isfile, glob.iglob(item, recursive=True))) or [item]

    def films_in(self, folder: Path) -> list[str]:
        """List the films in a folder and below, sorted, and the folders that cannot be opened, which reading names.

        A film is what has a film's suffix or a UID as its name; of other files, their content decides, and a name
        without a suffix is given the benefit of the doubt unless it is a text. What is hidden, DICOMDIR, links to
        folders and the rest are passed over.
        """
        films, closed = [], list[OSError]()
        for parent, folders, names in os.walk(folder, onerror=closed.append):
            for name in [
                name for name in folders if name.startswith(".") or os.path.islink(os.path.join(parent, name))
            ]:
                folders.remove(name)
                self.passed_over[os.path.join(parent, name)] = (
                    "hidden" if name.startswith(".") else "a link to a folder"
                )
            for name in names:
                if not _OURS.fullmatch(name):
                    path = str(Path(parent, name))
                    if why := self._why_not(path, name):
                        self.passed_over[path] = why
                    else:
                        films.append(Path(path))
        films += [Path(error.filename) for error in closed if os.path.isdir(error.filename)]
        return [str(film) for film in sorted(films)]

    def _why_not(self, path: str, name: str) -> str:
        """Why a file in a folder is no film to read; "" for one that is."""
        if name.startswith("."):
            return "hidden"
        if name == "DICOMDIR":
            return "a directory of DICOM files"
        if not os.path.isfile(path):
            return "no file, or a link to none"
        if is_film_name(name):
            return ""
        look = look_at(path)
        if self._verdicts.get(path, (None, ""))[0] != look:  # a watched folder is searched again and again
            self._verdicts[path] = look, _why_no_content(path, doubt=not os.path.splitext(name)[1])
        return self._verdicts[path][1]


def _why_no_content(path: str, *, doubt: bool) -> str:
    """Why the content of a file is no film; with `doubt` only a text is none."""
    from msloc_edge.imaging.reading import begins_as_film

    try:
        if begins_as_film(path) or (doubt and not _is_text(path)):
            return ""
    except OSError:
        return ""  # reading it names what is wrong
    return "neither a film's name nor its content"


def _is_text(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(1024)
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)  # a cut last character is no error
    except UnicodeDecodeError:
        return False


class Names:
    """Gives every film its own output name: the file's name without its suffix, with "-2", "-3" where it was taken.

    given  (path, name) of earlier runs: a path keeps its name
    """

    def __init__(self, given: Iterable[tuple[str, str]] = ()) -> None:
        self._given = dict(given)
        self._taken = set(self._given.values())
        self._numbers: Counter[str] = Counter()

    def source(self, path: str) -> Source:
        if path == STDIN:  # each time another film
            return Source(path, self._new("stdin"))
        if path not in self._given:
            self._given[path] = self._new(film_stem(Path(path).name) or "film")
        return Source(path, self._given[path], look_at(path))

    def _new(self, stem: str) -> str:
        name = stem
        while name in self._taken:
            self._numbers[stem] += 1
            name = f"{stem}-{self._numbers[stem] + 1}"
        self._taken.add(name)
        return name
