"""A cache of what is costly to make and to hold, such as a CUDA graph for each batch size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LRUCache(Generic[Key, Value]):
    """Values by key, of which the `max_size` most recently used are kept.

    make  makes the value of a key that is not there
    free  called with a value that has to go
    """

    def __init__(
        self, max_size: int, make: Callable[[Key], Value], free: Callable[[Value], None] = lambda value: None
    ) -> None:
        self._max_size, self._make, self._free = max_size, make, free
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __getitem__(self, key: Key) -> Value:
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self._values[key] = self._make(key)
            if len(self._values) > self._max_size:
                self._free(self._values.popitem(last=False)[1])
        return self._values[key]

    def clear(self) -> None:
        """Free all values."""
        while self._values:
            self._free(self._values.popitem()[1])
