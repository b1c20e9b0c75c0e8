"""msloc-edge models: which models are here, what they are, whether they are whole; more from files and URLs."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msloc_edge.cli import model_views as views
from msloc_edge.cli import signing, wrap
from msloc_edge.errors import MslocError

if TYPE_CHECKING:
    from msloc_edge.bundle import Bundle

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.+")


@click.group("models")
def command() -> None:
    """List, look into, verify, sign, add, wrap and remove models.

    A model is known by its name if it ships with msloc-edge or is installed, and by its folder otherwise.

    Each is one JSON line (schema msloc-edge/model/1) on stdout, which stays silent where stdout and stderr are one
    terminal, unless --quiet.
    """


command.add_command(signing.verify)
command.add_command(signing.sign)
command.add_command(wrap.command)


@command.command("list")
@views.quiet_option
def list_models(quiet: bool) -> None:
    """List the models that this machine knows.

    A damaged model is among them, with its reason.
    """
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.bundle import DEFAULT_MODEL, Bundle, store_folder
    from msloc_edge.bundle.store import known_models
    from msloc_edge.cli.console import people

    models = known_models()
    records = [views.record(known) for known in models]
    for record in records:
        views.say(record, quiet)
    if quiet:
        return
    table = Table("model", "version", "findings", "input", "MB", "sha256", "where", "state", "signature")
    for known, record in zip(models, records, strict=True):
        opened, name = known.opened, known.name
        if name == DEFAULT_MODEL:
            name += " (default)"
        elif isinstance(opened, Bundle) and opened.name != name:
            name += f" ({opened.name})"  # as results call it
        if isinstance(opened, MslocError):
            row = [name, "", "", "", f"{views.size_of(known.path) / 1e6:.1f}", "", known.where, opened.reason, ""]
        else:
            height, width = opened.input_size
            row = [name, opened.version, str(len(opened.classes)), f"{height} x {width}"]
            row += [f"{record['bytes'] / 1e6:.1f}", opened.sha256[:12], known.where, "whole"]
            row.append(views.signature_words(record))
        style = "red" if isinstance(opened, MslocError) else ""
        table.add_row(*(Text(views.clean(cell), style) for cell in row))
    console = people()
    console.print(table)
    console.print(f"installed models are in {store_folder()}", highlight=False, markup=False, soft_wrap=True)


@command.command("show")
@click.argument("model", metavar="NAME|DIR")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write the weights as a PNG picture.")
@views.quiet_option
def show(model: str, picture: Path | None, quiet: bool) -> None:
    """Show a model's card, its measured rates and its relevance weights.

    A weight is the share that a depth of the network has in a finding's map and score.
    """
    from msloc_edge.bundle.store import look_at

    known = look_at(model)
    if isinstance(known.opened, MslocError):
        raise known.opened
    bundle = known.opened
    if picture:
        views.draw(bundle, picture)
    record = views.record(known) | views.facts(bundle)
    views.say(record, quiet)
    if quiet:
        return
    from rich.markdown import Markdown

    from msloc_edge.cli.console import people

    console = people()
    if card := views.card(bundle):
        console.print(Markdown(card))
    for table in [*views.rates(bundle), views.weights(bundle)]:
        console.print(table)
    console.print(f"signature: {views.signature_words(record)}", highlight=False, markup=False)
    if picture:
        console.print(f"picture: {picture}", highlight=False, markup=False, soft_wrap=True)


def _sha256(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise click.BadParameter(f"expected 64 hexadecimal digits, got {value!r}")
    return value


@command.command("add")
@click.argument("source")
@click.option("--sha256", metavar="HEX", callback=_sha256, help="Hash of the archive; a URL needs it.")
@click.option("--name", default=None, help="Name to know the model by.  [default: its own]")
@click.option("--replace", is_flag=True, help="Replace an installed model of this name.")
@click.option("--allow-rollback", is_flag=True, help="Take a version older than one that was here.")
@views.quiet_option
def add(source: str, sha256: str | None, name: str | None, replace: bool, allow_rollback: bool, quiet: bool) -> None:
    """Install a model, from then on known by its name.

    SOURCE is a bundle folder, a .zip, .tar.gz or .tar.xz file with one bundle in it, or an https, http or file URL of
    such a file. An archive is checked against its hash before it is opened, and the bundle before it has a name. Where
    this machine trusts a key, the bundle must be signed by one.
    """
    from msloc_edge.bundle.store import Known, add_archive, add_folder

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped add ends as Ctrl-C does: nothing left behind
    url = _URL.fullmatch(source)
    if url and url["scheme"].lower() not in ("https", "http", "file"):
        raise click.UsageError(f"expected an https, http or file URL, got {source}")
    if url and not sha256:
        raise click.UsageError(f"{source}: expected --sha256 HEX of the archive; the server's word is not enough")
    if url and sha256:
        bundle = _fetch(source, sha256, name, replace, allow_rollback, quiet)
    elif Path(source).is_dir():
        if sha256:
            raise click.UsageError(
                "--sha256 is the hash of an archive; the files of a folder have theirs in its manifest"
            )
        bundle = add_folder(Path(source), name, replace, allow_rollback)
    else:
        bundle = add_archive(Path(source), sha256, name, replace, allow_rollback)
    views.say(views.record(Known(bundle.path.name, "installed", bundle.path, bundle)), quiet)
    if not quiet:
        click.echo(f"installed {bundle.path.name}: {bundle.path}", err=True)


@command.command("remove")
@click.argument("name")
@views.quiet_option
def remove(name: str, quiet: bool) -> None:
    """Remove an installed model."""
    from msloc_edge.bundle import store

    path = store.remove(name)
    if not quiet:
        click.echo(f"removed {name}: {path}", err=True)


def _fetch(url: str, sha256: str, name: str | None, replace: bool, allow_rollback: bool, quiet: bool) -> Bundle:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from msloc_edge.bundle.store import add_url
    from msloc_edge.cli.console import people

    console = people()
    columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("download", total=None)
        return add_url(
            url,
            sha256,
            name,
            replace,
            allow_rollback,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
