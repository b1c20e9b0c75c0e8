"""Work in threads whose results come in the order of what was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


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
