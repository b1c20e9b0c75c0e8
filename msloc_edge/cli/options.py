"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from msloc_edge.types import PRECISIONS


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
