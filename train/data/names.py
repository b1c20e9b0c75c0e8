"""Films by the names that tables and folders give them, and findings as they are spelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from msloc_edge._files import film_stem


class FilmNames:
    """Names of films, found also without their folder and with another suffix or none, where that means one film alone.

    >>> names = FilmNames(["sub/1.2.840.7", "a.png"])
    >>> names.find("1.2.840.7"), names.find("a.jpg"), names.find("1.2.840.8"), names.find("other/a.png")
    ('sub/1.2.840.7', 'a.png', None, None)
    """

    def __init__(self, films: Iterable[str]) -> None:
        self._films = frozenset(films)
        meant: dict[str, set[str]] = defaultdict(set)
        for film in self._films:
            stem = film_stem(film)
            meant[stem].add(film)
            meant[PurePosixPath(stem).name].add(film)
        self._meant = {name: film for name, (film, *others) in meant.items() if not others}

    def find(self, name: str) -> str | None:
        """Give the film that a name means; None where it means none, or one of several."""
        return name if name in self._films else self._meant.get(film_stem(name))


def plain_label(label: str) -> str:
    """Put underscores for blanks, as labels are compared: "Pleural Thickening" is Pleural_Thickening."""
    return label.replace(" ", "_")


def speller(known: Iterable[str]) -> Callable[[str], str]:
    """Make a function that gives a label as one of `known` spells it, and any other label as it is."""
    spellings: dict[str, str] = {}
    for label in known:
        spellings.setdefault(plain_label(label), label)
        spellings[label] = label
    return lambda label: spellings.get(label, spellings.get(plain_label(label), label))
