"""What is costly to make and to hold, by batch size for example: the most recently used are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


class Recent(Generic[Key, Kept]):
    """`make` makes what is asked for and not there; `free` gets what has to go, when there are more than `most`."""

    def __init__(
        self, most: int, make: Callable[[Key], Kept], free: Callable[[Kept], None] = lambda kept: None
    ) -> None:
        self._most, self._make, self._free = most, make, free
        self._kept: OrderedDict[Key, Kept] = OrderedDict()

    def __getitem__(self, key: Key) -> Kept:
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = self._make(key)
            if len(self._kept) > self._most:
                self._free(self._kept.popitem(last=False)[1])
        return self._kept[key]

    def clear(self) -> None:
        """Free all."""
        while self._kept:
            self._free(self._kept.popitem()[1])
