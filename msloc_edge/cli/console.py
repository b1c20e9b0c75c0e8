"""Words for people: they go to stderr, as wide as the terminal, or as wide as asked where there is none."""

from __future__ import annotations

from rich.console import Console


def people(width: int = 120, quiet: bool = False) -> Console:
    """A console on stderr."""
    console = Console(stderr=True, quiet=quiet)
    return console if console.is_terminal else Console(stderr=True, quiet=quiet, width=width)
