"""Subgroups of films: view, sex and age."""

from __future__ import annotations

from collections.abc import Sequence

from msloc_edge.train.data import Record

AGE_BANDS = ((40.0, "under 40"), (60.0, "40-59"), (120.0, "60 and over"))
"""End and name of each band, years."""


def subgroups(records: Sequence[Record]) -> dict[str, list[str | None]]:
    """Name each film's group by view, sex and age; None where it is not known.

    >>> from pathlib import Path
    >>> subgroups([Record("a.png", Path("a.png"), "1", {}, view="PA", age=40)])
    {'view': ['PA'], 'sex': [None], 'age': ['40-59']}
    """
    return {
        "view": [record.view for record in records],
        "sex": [record.sex for record in records],
        "age": [None if record.age is None else band(record.age, AGE_BANDS) for record in records],
    }


def band(value: float, bands: Sequence[tuple[float, str]]) -> str:
    """Name the first band whose end lies above a value, or the last."""
    return next((name for end, name in bands if value < end), bands[-1][1])


def in_order(names: set[str]) -> list[str]:
    """Sort the names of a subgroup's groups: ages by age, others by name."""
    ages = [name for _, name in AGE_BANDS]
    return sorted(names, key=lambda name: (ages.index(name) if name in ages else -1, name))
