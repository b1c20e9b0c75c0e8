"""Which accesses race: pairs of them, and more than two.

PTX ISA, "Memory Consistency Model": accesses conflict when they overlap and one of them writes; they race unless one
happens before the other, or both are strong and within each other's scope.
"""

from __future__ import annotations

import numpy as np
import pytest
from interpreter.races import Accesses, who

BLOCK = 64


def by(*threads: int, barriers: int = 0) -> np.ndarray:
    """Threads counted over blocks of BLOCK, after so many barriers."""
    numbers = np.array(threads)
    return who(np.full(len(threads), barriers), numbers // BLOCK, numbers % BLOCK)


def access(accesses: Accesses, kind: str, thread: int, barriers: int = 0) -> bool:
    """Access unit 1 of 3; whether that races."""
    strong, unit = kind in ("atomic", "volatile"), np.array([1])
    if kind in ("load", "volatile"):
        return bool(accesses.read(unit, by(thread, barriers=barriers), strong)[0])
    return bool(accesses.write(unit, by(thread, barriers=barriers), strong, np.array([[7]]))[0])


@pytest.mark.parametrize(
    ("first", "second", "same_block", "other_block"),
    [
        ("load", "load", False, False),
        ("load", "store", True, True),
        ("store", "load", True, True),
        ("store", "store", True, True),
        ("load", "atomic", True, True),
        ("atomic", "load", True, True),
        ("store", "atomic", True, True),
        ("atomic", "store", True, True),
        ("atomic", "atomic", False, True),
        ("volatile", "atomic", False, True),
        ("atomic", "volatile", False, True),
        ("volatile", "store", True, True),
        ("volatile", "load", False, False),
    ],
)
def test_pairs(first: str, second: str, same_block: bool, other_block: bool) -> None:
    for thread, barriers, expected in ((9, 0, same_block), (9, 1, False), (70, 0, other_block), (70, 1, other_block)):
        accesses = Accesses(3)
        assert not access(accesses, first, 5)
        assert access(accesses, second, thread, barriers) == expected, (thread, barriers)
    alone = Accesses(3)
    assert not access(alone, first, 5)
    assert not access(alone, second, 5), "a thread's own accesses are in order"


def test_many_readers_are_remembered() -> None:
    accesses = Accesses(3)
    for thread in (1, 2, 3):
        access(accesses, "load", thread)
    assert access(accesses, "store", 3), "threads 1 and 2 have read, too"
    accesses = Accesses(3)
    for thread in (1, 2, 3):
        access(accesses, "load", thread)
    assert not access(accesses, "store", 3, barriers=1)


def test_readers_of_several_blocks_are_remembered() -> None:
    accesses = Accesses(3)
    for thread in (1, 70):
        access(accesses, "load", thread)
    assert access(accesses, "store", 1, barriers=5), "a barrier orders nothing between blocks"


def test_readers_of_one_instruction_are_remembered() -> None:
    for threads, barriers, expected in (((1, 2, 2), 0, True), ((1, 2, 3), 1, False), ((1, 2, 70), 1, True)):
        accesses = Accesses(3)
        assert not accesses.read(np.array([1, 1, 1]), by(*threads), strong=False).any()
        assert access(accesses, "store", 2, barriers) == expected


def test_stores_of_one_instruction() -> None:
    """At one place, of one warp the same value is no race; another value is, and so is another warp."""
    for threads, values, expected in (
        ((3, 4), (7, 7), False),
        ((3, 4), (7, 8), True),
        ((3, 40), (7, 7), True),
        ((3, 67), (7, 7), True),
    ):
        races = Accesses(3).write(np.array([1, 1]), by(*threads), False, np.array(values)[:, None])
        assert races.any() == expected
    assert not Accesses(3).write(np.array([1, 2]), by(3, 40), False, np.array([[7], [8]])).any()


def test_atomics_of_one_instruction() -> None:
    assert not Accesses(3).write(np.array([1, 1]), by(3, 40), True, np.array([[7], [8]])).any()
    assert Accesses(3).write(np.array([1, 1]), by(3, 67), True, np.array([[7], [8]])).any()
