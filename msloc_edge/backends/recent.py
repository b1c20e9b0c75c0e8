"""What is costly to make and to hold, for each batch size: the most recently used are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """`make` makes what is asked for and not there; `free` gets what has to go, when there are more than `most`."""

    def __init__(
        self, most: int, make: Callable[[int], Kept], free: Callable[[Kept], None] = lambda kept: None
    ) -> None:
        self._most, self._make, self._free = most, make, free
        self._kept: OrderedDict[int, Kept] = OrderedDict()

    def __getitem__(self, count: int) -> Kept:
        if count in self._kept:
            self._kept.move_to_end(count)
        else:
            self._kept[count] = self._make(count)
            if len(self._kept) > self._most:
                self._free(self._kept.popitem(last=False)[1])
        return self._kept[count]

    def clear(self) -> None:
        """Free all."""
        while self._kept:
            self._free(self._kept.popitem()[1])
