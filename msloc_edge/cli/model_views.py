"""Views of a model for `models`: its JSON line, card, signature and relevance weights."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.errors import MslocError

if TYPE_CHECKING:
    from rich.table import Table

    from msloc_edge.bundle import Bundle
    from msloc_edge.bundle.store import Known

SCHEMA = "msloc-edge/model/1"

quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Nothing for people on stderr; problems are still named."
)


def record(known: Known, keys: Sequence[Path] | None = None) -> dict[str, Any]:
    """Make the JSON line of a model; its signature is held against `keys`, by default the trusted ones."""
    line = {"schema": SCHEMA, "name": known.name, "where": known.where, "path": str(known.path)}
    if isinstance(known.opened, MslocError):
        return line | {"whole": False, "reason": known.opened.reason, "message": known.opened.message}
    from msloc_edge.bundle import MANIFEST
    from msloc_edge.bundle.signature import state

    height, width = known.opened.input_size
    key, found = state(known.path, (known.path / MANIFEST).read_bytes(), keys)
    return line | {
        "whole": True,
        "model": dataclasses.asdict(known.opened.id),
        "classes": list(known.opened.classes),
        "input_size": {"height": height, "width": width},
        "bytes": size_of(known.path),
        "signature": {"key": key, "state": found},
    }


def facts(bundle: Bundle) -> dict[str, Any]:
    """Collect the facts that `show` adds to the line."""
    return {
        "intended_use": bundle.manifest.get("intended_use", ""),
        "architecture": bundle.manifest.get("architecture", {}),
        "stages": [dataclasses.asdict(stage) for stage in bundle.stages],
        "relevance": {label: row.tolist() for label, row in zip(bundle.classes, bundle.relevance, strict=True)},
        "temperature": bundle.temperature,
        "profiles": {name: dataclasses.asdict(profile) for name, profile in bundle.profiles.items()},
        "default_profile": bundle.default_profile,
        "files": bundle.manifest["files"],
    }


def card(bundle: Bundle) -> str:
    from msloc_edge.bundle import CARD

    if CARD not in bundle.manifest["files"]:  # what no hash speaks for is not shown
        return ""
    return "\n".join(map(clean, (bundle.path / CARD).read_text("utf-8", "replace").splitlines()))


def weights(bundle: Bundle) -> Table:
    """Draw the relevance weights as a heat map of the terminal."""
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.render.colors import heat, ink, palette

    table = Table(title=Text(clean(f"layer relevance weights of {bundle.name} {bundle.version}")), box=None)
    table.add_column("finding")
    for number, stage in enumerate(bundle.stages, 1):
        table.add_column(f"stage {number} (1/{stage.stride})", justify="center")
    colors = palette(bundle.classes)
    for label, row in zip(bundle.classes, bundle.relevance.tolist(), strict=True):
        cells = [Text(f"{weight:.2f}".center(14), f"{ink(heat(weight))} on {heat(weight)}") for weight in row]
        table.add_row(Text.assemble(("● ", colors[label]), clean(label)), *cells)
    return table


def rates(bundle: Bundle) -> list[Table]:
    """Make tables of what was measured at the model's profiles; none where nobody measured."""
    from msloc_edge.bundle.rates import rate_grids

    return [
        dataclasses.replace(
            grid, note=clean(grid.note), rows=tuple(tuple(map(clean, row)) for row in grid.rows)
        ).table()
        for grid in rate_grids(bundle.manifest)
    ]


def draw(bundle: Bundle, picture: Path) -> None:
    from msloc_edge._files import atomic_write, writing
    from msloc_edge.render.heatmap import encode
    from msloc_edge.render.relevance import relevance_picture

    strides = [stage.stride for stage in bundle.stages]
    drawn = relevance_picture(f"{bundle.name} {bundle.version}", bundle.classes, strides, bundle.relevance)
    with writing(picture, "or choose another --picture"):
        atomic_write(picture, encode(".png", drawn))


def signature_words(record: dict[str, Any]) -> str:
    """Say in a word, from the line of a model that opens, who signed it, or what is wrong."""
    key, state = record["signature"]["key"], record["signature"]["state"]
    by = {"verified": f"by {key}"[:15], "key_unknown": f"by {key}"[:15] + ", unknown", "signature_missing": "unsigned"}
    return by.get(state, state)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0


def clean(text: str) -> str:
    """Make a line of somebody else's words harmless: nothing in it can steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def say(record: dict[str, Any], quiet: bool) -> None:
    """Print the JSON line on stdout, unless stdout and stderr are one terminal and people have the same in words."""
    from msloc_edge.cli.output import print_line

    if quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        print_line(json.dumps(record))
