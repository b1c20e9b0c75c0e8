"""Work in threads whose results come in the order of what was asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from itertools import islice, takewhile
from typing import Generic, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

OVERTAKE_S = 5.0
"""Seconds after which an item that is not done no longer holds back those after it."""


def map_ahead(
    pool: Executor, work: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Generator[tuple[Item, Made], None, None]:
    """Run `work` over items in a pool, and yield (item, result) in their order; what `work` raises comes through.

    At most `ahead` items are taken before their turn, however many there are. When it is closed early, what was not
    begun is cancelled.
    """
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    source = iter(items)
    try:
        waiting.extend((item, pool.submit(work, item)) for item in islice(source, ahead))
        while waiting:
            item, future = waiting.popleft()
            made = future.result()
            waiting.extend((item, pool.submit(work, item)) for item in islice(source, 1))
            yield item, made
    finally:
        for _, future in waiting:
            future.cancel()


class Ahead(Generic[Item, Made]):
    """Work on items ahead of their need, in a pool. They are taken in their order, as long as none takes too long."""

    def __init__(self, pool: Executor, work: Callable[[Item], Made], items: Iterable[Item]) -> None:
        self._pool, self._work, self._items = pool, work, iter(items)
        self._begun: dict[Future[Made], tuple[Item, float]] = {}

    @property
    def running(self) -> list[Future[Made]]:
        """What is not done yet."""
        return [future for future in self._begun if not future.done()]

    def fill(self, room: int) -> None:
        """Begin new items until `room` of them are begun and not taken."""
        for item in islice(self._items, max(0, room - len(self._begun))):
            self._begun[self._pool.submit(self._work, item)] = item, time.monotonic()

    def take(self) -> list[tuple[Item, Made]]:
        """Take what is done, up to the first that is not; all that is done, when that one is older than OVERTAKE_S."""
        done = list(takewhile(Future.done, self._begun))
        if not done and self._begun and time.monotonic() - next(iter(self._begun.values()))[1] > OVERTAKE_S:
            done = [future for future in self._begun if future.done()]
        return [(self._begun.pop(future)[0], future.result()) for future in done]

    def close(self) -> None:
        """Cancel what was not begun."""
        for future in self._begun:
            future.cancel()
