"""Tables of figures: one form for the terminal, for Markdown and for pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

NONE = "-"
"""Cell of what the data cannot tell."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table to show: title, one sentence, head, and rows of cells whose first is their name.

    strong  names of the rows that stand out
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[str, ...] = ()

    def markdown(self) -> list[str]:
        """Lines of Markdown: heading, sentence, table."""
        rows = [self.head, tuple("---" for _ in self.head), *self.rows]
        return [f"### {self.title}", "", self.note, "", *(f"| {' | '.join(row)} |" for row in rows)]

    def table(self) -> Table:
        """A table for the terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title), title_justify="left", caption=Text(self.note), caption_justify="left")
        for at, column in enumerate(self.head):
            table.add_column(Text(column), justify="right" if at else "left", no_wrap=at == 0)
        for row in self.rows:
            table.add_row(*map(Text, row), style="bold" if row[0] in self.strong else "")
        return table


def cell(figure: Mapping[str, Any] | None) -> str:
    """Word a figure {value, low, high}: its value, and its interval where it has one.

    >>> cell({"value": 0.524, "low": 0.47, "high": 0.566}), cell(None)
    ('0.52 (0.47-0.57)', '-')
    """
    if figure is None or figure["value"] is None:
        return NONE
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Word a number of things, several of which are `plural`, or `noun` with an s.

    >>> counted(1, "film"), counted(2, "film"), counted(2, "box", "boxes")
    ('1 film', '2 films', '2 boxes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
