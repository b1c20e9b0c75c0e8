"""msloc-edge models: which models are here, what they are, whether they are whole; more from files and URLs."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.errors import BundleError, OutputError

if TYPE_CHECKING:
    from rich.table import Table

    from msloc_edge.bundle import Bundle
    from msloc_edge.store import Known

SCHEMA = "msloc-edge/model/1"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.+")
_quiet = click.option("-q", "--quiet", is_flag=True, help="Nothing for people on stderr; problems are still named.")


@click.group("models")
def command() -> None:
    """List, look into, verify, add and remove models.

    A model is known by its name if it ships with msloc-edge or is installed, and by its folder otherwise.

    Each is one JSON line (schema msloc-edge/model/1) on stdout, which stays silent where stdout and stderr are one
    terminal, unless --quiet.
    """


@command.command("list")
@_quiet
def list_models(quiet: bool) -> None:
    """List the models that this machine knows.

    A damaged model is among them, with its reason.
    """
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.bundle import DEFAULT_MODEL, Bundle, store_folder
    from msloc_edge.cli.console import people
    from msloc_edge.store import known_models

    models = known_models()
    for known in models:
        _data(_record(known), quiet)
    if quiet:
        return
    table = Table("model", "version", "findings", "input", "MB", "sha256", "where", "state")
    for known in models:
        opened, name = known.opened, known.name
        if name == DEFAULT_MODEL:
            name += " (default)"
        elif isinstance(opened, Bundle) and opened.name != name:
            name += f" ({opened.name})"  # as results call it
        if isinstance(opened, BundleError):
            row = [name, "", "", "", f"{_bytes(known.path) / 1e6:.1f}", "", known.where, opened.reason]
        else:
            height, width = opened.input_size
            row = [name, opened.version, str(len(opened.classes)), f"{height} x {width}"]
            row += [f"{_bytes(known.path) / 1e6:.1f}", opened.sha256[:12], known.where, "whole"]
        style = "red" if isinstance(opened, BundleError) else ""
        table.add_row(*(Text(_clean(cell), style) for cell in row))
    console = people()
    console.print(table)
    console.print(f"installed models are in {store_folder()}", highlight=False, markup=False, soft_wrap=True)


@command.command("show")
@click.argument("model", metavar="NAME|DIR")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write the weights as a PNG picture.")
@_quiet
def show(model: str, picture: Path | None, quiet: bool) -> None:
    """Show a model's card and its layer relevance weights.

    A weight is the share that a depth of the network has in a finding's map and score.
    """
    from msloc_edge.store import look_at

    known = look_at(model)
    if isinstance(known.opened, BundleError):
        raise known.opened
    bundle = known.opened
    if picture:
        _draw(bundle, picture)
    _data(_record(known) | _facts(bundle), quiet)
    if quiet:
        return
    from rich.markdown import Markdown

    from msloc_edge.cli.console import people

    console = people()
    if card := _card(bundle):
        console.print(Markdown(card))
    console.print(_weights(bundle))
    if picture:
        console.print(f"picture: {picture}", highlight=False, markup=False, soft_wrap=True)


@command.command("verify")
@click.argument("models", nargs=-1, metavar="[NAME|DIR]...")
@_quiet
def verify(models: tuple[str, ...], quiet: bool) -> None:
    """Check every file of models against its hash.

    All known models are verified if none is named.
    """
    from msloc_edge.store import known_models, look_at

    failed = False
    for known in map(look_at, models) if models else known_models():
        _data(_record(known), quiet)
        if isinstance(known.opened, BundleError):
            failed = True
            click.echo(f"msloc-edge: [{known.opened.reason}] {known.opened.message}", err=True)
        elif not quiet:
            click.echo(f"{known.name}: whole, sha256 {known.opened.sha256}", err=True)
    if failed:
        sys.exit(1)


def _sha256(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise click.BadParameter(f"expected 64 hexadecimal digits, got {value!r}")
    return value


@command.command("add")
@click.argument("source")
@click.option("--sha256", metavar="HEX", callback=_sha256, help="Hash of the archive; a URL needs it.")
@click.option("--name", default=None, help="Name to know the model by.  [default: its own]")
@click.option("--replace", is_flag=True, help="Replace an installed model of this name.")
@_quiet
def add(source: str, sha256: str | None, name: str | None, replace: bool, quiet: bool) -> None:
    """Install a model, from then on known by its name.

    SOURCE is a bundle folder, a .zip, .tar.gz or .tar.xz file with one bundle in it, or an https, http or file URL of
    such a file. An archive is checked against its hash before it is opened, and the bundle before it has a name.
    """
    from msloc_edge.store import Known, add_archive, add_folder

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped add ends as Ctrl-C does: nothing left behind
    url = _URL.fullmatch(source)
    if url and url["scheme"].lower() not in ("https", "http", "file"):
        raise click.UsageError(f"expected an https, http or file URL, got {source}")
    if url and not sha256:
        raise click.UsageError(f"{source}: expected --sha256 HEX of the archive; the server's word is not enough")
    if url and sha256:
        bundle = _fetch(source, sha256, name, replace, quiet)
    elif Path(source).is_dir():
        if sha256:
            raise click.UsageError(
                "--sha256 is the hash of an archive; the files of a folder have theirs in its manifest"
            )
        bundle = add_folder(Path(source), name, replace)
    else:
        bundle = add_archive(Path(source), sha256, name, replace)
    _data(_record(Known(bundle.path.name, "installed", bundle.path, bundle)), quiet)
    if not quiet:
        click.echo(f"installed {bundle.path.name}: {bundle.path}", err=True)


@command.command("remove")
@click.argument("name")
@_quiet
def remove(name: str, quiet: bool) -> None:
    """Remove an installed model."""
    from msloc_edge import store

    path = store.remove(name)
    if not quiet:
        click.echo(f"removed {name}: {path}", err=True)


def _fetch(url: str, sha256: str, name: str | None, replace: bool, quiet: bool) -> Bundle:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from msloc_edge.cli.console import people
    from msloc_edge.store import add_url

    console = people()
    columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("download", total=None)
        return add_url(
            url, sha256, name, replace, lambda done, total: progress.update(task, completed=done, total=total)
        )


def _record(known: Known) -> dict[str, Any]:
    """The JSON line of a model."""
    record = {"schema": SCHEMA, "name": known.name, "where": known.where, "path": str(known.path)}
    if isinstance(known.opened, BundleError):
        return record | {"whole": False, "reason": known.opened.reason, "message": known.opened.message}
    height, width = known.opened.input_size
    return record | {
        "whole": True,
        "model": dataclasses.asdict(known.opened.id),
        "classes": list(known.opened.classes),
        "input_size": {"height": height, "width": width},
        "bytes": _bytes(known.path),
    }


def _facts(bundle: Bundle) -> dict[str, Any]:
    """What `show` adds to the line."""
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


def _card(bundle: Bundle) -> str:
    from msloc_edge.bundle import CARD

    if CARD not in bundle.manifest["files"]:  # what no hash speaks for is not shown
        return ""
    return "\n".join(map(_clean, (bundle.path / CARD).read_text("utf-8", "replace").splitlines()))


def _weights(bundle: Bundle) -> Table:
    """The relevance weights as a heat map of the terminal."""
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.render.colors import heat, ink, palette

    table = Table(title=Text(_clean(f"layer relevance weights of {bundle.name} {bundle.version}")), box=None)
    table.add_column("finding")
    for number, stage in enumerate(bundle.stages, 1):
        table.add_column(f"stage {number} (1/{stage.stride})", justify="center")
    colors = palette(bundle.classes)
    for label, row in zip(bundle.classes, bundle.relevance.tolist(), strict=True):
        cells = [Text(f"{weight:.2f}".center(14), f"{ink(heat(weight))} on {heat(weight)}") for weight in row]
        table.add_row(Text.assemble(("● ", colors[label]), _clean(label)), *cells)
    return table


def _draw(bundle: Bundle, picture: Path) -> None:
    from msloc_edge.files import atomic_write
    from msloc_edge.render.heatmap import encode
    from msloc_edge.render.relevance import relevance_picture

    strides = [stage.stride for stage in bundle.stages]
    drawn = relevance_picture(f"{bundle.name} {bundle.version}", bundle.classes, strides, bundle.relevance)
    try:
        atomic_write(picture, encode(".png", drawn))
    except OSError as error:
        raise OutputError(
            "out_unwritable", f"{picture}: cannot be written ({error.strerror}); choose another --picture"
        ) from error


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0


def _clean(text: str) -> str:
    """One line of somebody else's words: nothing in it can steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _data(record: dict[str, Any], quiet: bool) -> None:
    from msloc_edge.cli.output import print_line

    if quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        print_line(json.dumps(record))
