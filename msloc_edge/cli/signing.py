"""msloc-edge models verify and sign: whether models are whole, and who vouches for them."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msloc_edge.cli import model_views as views
from msloc_edge.errors import BundleError, MslocError

if TYPE_CHECKING:
    from msloc_edge.bundle.store import Known


@click.command("verify")
@click.argument("models", nargs=-1, metavar="[NAME|DIR]...")
@click.option(
    "--trusted-key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key, one of which must have signed; may be repeated.",
)
@views.quiet_option
def verify(models: tuple[str, ...], keys: tuple[Path, ...], quiet: bool) -> None:
    """Check every file of models against its hash, and signatures.

    All known models are verified if none is named. A signature is needed where --trusted-key names who may give it, and
    of an installed model where this machine trusts a key; elsewhere a model may be unsigned, but not wrongly signed.
    """
    from msloc_edge.bundle.store import known_models, look_at

    failed = False
    for known in map(look_at, models) if models else known_models():
        known = _held_against(known, keys)
        record = views.record(known, keys or None)
        views.say(record, quiet)
        if isinstance(known.opened, MslocError):
            failed = True
            click.echo(f"msloc-edge: [{known.opened.reason}] {known.opened.message}", err=True)
        elif not quiet:
            click.echo(f"{known.name}: whole, {views.signature_words(record)}, sha256 {known.opened.sha256}", err=True)
    if failed:
        sys.exit(1)


def _held_against(known: Known, keys: tuple[Path, ...]) -> Known:
    """The model, or where its signature does not hold, the error that says so."""
    from msloc_edge.bundle import MANIFEST
    from msloc_edge.bundle.signature import signer, trusted_keys

    if isinstance(known.opened, MslocError):
        return known
    try:
        signer(known.path, (known.path / MANIFEST).read_bytes(), keys or trusted_keys())
    except MslocError as error:
        if keys or error.reason == "signature_wrong":
            return dataclasses.replace(known, opened=error)
    return known


@click.command("sign")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key: Ed25519, PEM. Its passphrase, if it has one, is in MSLOC_KEY_PASSPHRASE or asked for.",
)
@views.quiet_option
def sign(folder: Path, key: Path, quiet: bool) -> None:
    """Sign a bundle, which is verified first.

    An earlier signature is replaced. `openssl genpkey -algorithm ed25519 -out FILE` makes a key.
    """
    from msloc_edge._files import atomic_write, writing
    from msloc_edge.bundle import MANIFEST, Bundle, signature
    from msloc_edge.bundle.store import look_at

    Bundle.open(folder)
    signed = signature.sign((folder / MANIFEST).read_bytes(), key, _passphrase)
    if os.name == "posix" and key.stat().st_mode & 0o077:
        click.echo(f"msloc-edge: {key}: others on this machine may use it; chmod 600 {key}", err=True)
    file = folder / signature.SIGNATURE
    with writing(file, "or sign a copy"):
        atomic_write(file, signed)
    record = views.record(look_at(str(folder)))
    views.say(record, quiet)
    if not quiet:
        click.echo(f"signed {folder}: key {record['signature']['key']}", err=True)


def _passphrase() -> str:
    if passphrase := os.environ.get("MSLOC_KEY_PASSPHRASE"):
        return passphrase
    if not sys.stdin.isatty():
        raise BundleError(
            "key_unusable", "the key is locked; expected its passphrase in MSLOC_KEY_PASSPHRASE, or a terminal to ask"
        )
    passphrase = click.prompt("passphrase of the key", hide_input=True, err=True)
    return str(passphrase)
