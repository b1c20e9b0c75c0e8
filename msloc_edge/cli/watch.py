"""Folders that are watched: each film once it has arrived whole."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msloc_edge.cli.inputs import Look, Search, look_at

INTERVAL_S = 0.5
"""Seconds between two looks into a watched folder."""

SETTLED_S = 2.0
"""Seconds for which a file must not change before it counts as whole: a slow sender pauses."""


def arrivals(folders: Sequence[str], search: Search) -> Iterator[list[str]]:
    """Yield the films that are there and do not change any more, at each look, without end.

    A film that changes after that is yielded again: its sender had only paused for longer.
    """
    since: dict[str, tuple[Look, float]] = {}
    taken: dict[str, Look] = {}
    while True:
        now = {
            path: look
            for folder in folders
            for path in search.films_in(Path(folder))
            if (look := look_at(path)) and look[0]
        }
        moment = time.monotonic()
        since = {
            path: since[path] if path in since and since[path][0] == look else (look, moment)
            for path, look in now.items()
        }
        ready = [path for path, look in now.items() if look != taken.get(path) and moment - since[path][1] >= SETTLED_S]
        taken = {path: look for path, look in taken.items() if path in now} | {path: now[path] for path in ready}
        if ready:
            yield ready
        time.sleep(INTERVAL_S)
