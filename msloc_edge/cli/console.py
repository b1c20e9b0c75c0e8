"""Words for people on stderr: the console, and the error that names a package which is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msloc_edge.errors import DependencyError

if TYPE_CHECKING:
    from rich.console import Console

TRAINING = "pip install 'msloc-edge[train,export]'"


def people(width: int = 120, quiet: bool = False) -> Console:
    """A console on stderr, as wide as the terminal, or `width` columns where there is none."""
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet)
    return console if console.is_terminal else Console(stderr=True, quiet=quiet, width=width)


@contextmanager
def needing(what: str, install: str = TRAINING) -> Iterator[None]:
    """Turn an ImportError in the block into DependencyError (package_missing), which names the command that helps."""
    try:
        yield
    except ImportError as error:
        raise DependencyError("package_missing", f"{what} needs {error.name}; install it with: {install}") from error
