"""Dataclasses as configurations: a field carries its meaning and its range, and one check holds for all of them.

@dataclass(frozen=True)
class Schedule:
    epochs: int = option(10, "Passes over the films.", min=1)

    def __post_init__(self) -> None:
        check(self)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any, get_type_hints

_BOUNDS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "min": ("at least {}", operator.ge),
    "above": ("above {}", operator.gt),
    "max": ("at most {}", operator.le),
    "below": ("below {}", operator.lt),
    "multiple": ("a multiple of {}", lambda value, bound: value % bound == 0),
}

_KINDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    str | None: "a text",
    int | str: "a whole number or a text",
    tuple[str, ...]: "a list of texts",
}


def option(
    default: Any, meaning: str, *, choices: tuple[str, ...] = (), distinct: bool = False, **bounds: float
) -> Any:
    """Declare a field of a configuration, with the sentence that `--help` shows.

    choices   texts that it may be, or be in place of a number within the bounds
    distinct  a tuple: not empty, no name twice
    bounds    of a number: min and max belong to the range, above and below do not; multiple

    A default of MISSING makes the field one that has to be given.
    """
    return field(
        default=default, metadata={"help": meaning, "choices": choices, "distinct": distinct, "bounds": bounds}
    )


def check(config: Any) -> None:
    """Raise ValueError for the first field of a dataclass whose value is not one that its `option` allows."""
    for f in fields(config):
        choices, bounds = f.metadata.get("choices", ()), f.metadata.get("bounds", {})
        value = getattr(config, f.name)
        if f.metadata.get("distinct") and not 0 < len(value) == len(set(value)):
            raise ValueError(f"expected {f.name} to be distinct names, at least one, got {value}")
        if not (choices or bounds) or value in choices:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected {f.name} to be finite, got {value}")
        if isinstance(value, str) or not all(_BOUNDS[name][1](value, bound) for name, bound in bounds.items()):
            raise ValueError(f"expected {f.name} to be {_allowed(choices, bounds)}, got {value!r}")


def _allowed(choices: tuple[str, ...], bounds: Mapping[str, float]) -> str:
    within = [" and ".join(_BOUNDS[name][0].format(bound) for name, bound in bounds.items())] if bounds else []
    return " or ".join([*within, *([("one of " * (len(choices) > 1)) + ", ".join(choices)] if choices else [])])


def from_plain(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values as JSON and TOML give them to the types of the fields of `cls`, where nothing is lost by it.

    Raises ValueError for a name that is not a field, a field without default that is missing, a value of another type.
    """
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ValueError(f"unknown option {name!r}; expected one of {', '.join(sorted(hints))}")
    for f in fields(cls):
        if f.default is MISSING and f.name not in values:
            raise ValueError(f"expected {f.name!r}, which is missing")
    return {name: as_type(name, value, hints[name]) for name, value in values.items()}


def as_type(name: str, value: Any, kind: Any) -> Any:
    """Convert one value to its field's type: TOML writes 1 for 1.0 and knows no tuples. Raises ValueError for another.

    as_type("lr", 1, float) -> 1.0
    """
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
    raise ValueError(f"expected {name} to be {_KINDS[kind]}, got {value!r}")
