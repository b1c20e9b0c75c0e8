"""Plain values, as JSON and TOML give them, into the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` in the types of the fields of `cls`, where nothing is lost by it.

    Raises ValueError for a name that is not a field, a field without default that is missing, a value of another type.
    """
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ValueError(f"unknown choice {name!r}; expected one of {', '.join(sorted(hints))}")
    for f in fields(cls):
        if f.default is MISSING and f.name not in values:
            raise ValueError(f"expected {f.name!r}, which is missing")
    return {name: fitting(name, value, hints[name]) for name, value in values.items()}


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    str | None: "a text",
    int | str: "a whole number or a text",
    tuple[str, ...]: "a list of texts",
}


def fitting(name: str, value: Any, kind: Any) -> Any:
    """One value as its field's type: TOML writes 1 for 1.0 and knows no tuples. Raises ValueError for another."""
    if is_dataclass(kind):
        return value  # its own fields are checked where it is made
    if kind == tuple[str, ...]:
        if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"expected {name} to be {_WORDS[kind]}, got {value!r}")
