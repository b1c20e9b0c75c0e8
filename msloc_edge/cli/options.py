"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from msloc_edge.types import PRECISIONS


class NumberOrAll(click.ParamType):
    """A whole number of at least 0, or "all", which is None."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "all":
            return None
        if not str(value).isdecimal():
            self.fail(f"expected a whole number of at least 0, or all, got {value!r}", param, ctx)
        return int(value)


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --device and --precision: where a backend runs the network, and in which arithmetic."""
    for option in (
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="fp32",
            show_default=True,
            help="Arithmetic of the network, where the backend has it.",
        ),
        click.option("--device", default=None, help="Device as the backend names it.  [default: cpu]"),
    ):
        command = option(command)
    return command
