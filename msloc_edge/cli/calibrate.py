"""msloc-edge calibrate: thresholds fitted again on other films, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msloc_edge._files import require_writable
from msloc_edge._tables import counted
from msloc_edge.cli import model_views as views
from msloc_edge.cli.console import needing, people
from msloc_edge.train.config import FORMS

if TYPE_CHECKING:
    from rich.progress import Progress

    from msloc_edge.bundle import Bundle
    from msloc_edge.train.data import Films

_PATH = click.Path(path_type=Path)
BATCH = 8
PHANTOMS = 600
"""Phantoms that a bundle is calibrated on where --data names them."""


@click.command("calibrate")
@click.argument("source", metavar="BUNDLE|RUN")
@click.option("--data", multiple=True, help=f"Films and labels: {FORMS}; repeatable.  [default, of a RUN: its own]")
@click.option(
    "--split",
    default=None,
    help="train, validation, train_val, test or all.  [default: validation; for a BUNDLE all without a test]",
)
@click.option("--exclude", multiple=True, type=_PATH, help="Text file that names films to leave out; repeatable.")
@click.option("--out", required=True, type=_PATH, help="Folder for the new bundle.")
@click.option(
    "--version", default=None, help="Version of the new bundle.  [default: the old one and .1; of a RUN: 0.1]"
)
@views.quiet_option
def command(
    source: str,
    data: tuple[str, ...],
    split: str | None,
    exclude: tuple[Path, ...],
    out: Path,
    version: str | None,
    quiet: bool,
) -> None:
    """Fit thresholds on your own films, and measure what they do.

    BUNDLE is a folder or the name of a model, RUN a run folder or a checkpoint, also of a run that could not be
    calibrated. OUT becomes a new bundle of the same network; BUNDLE stays as it is. Of a BUNDLE the film gate and the
    score thresholds are fitted, and its map thresholds kept; of a RUN everything is.

    Rates are measured by cross-validation over patients. Few films give wide intervals; a class that they do not show
    keeps the thresholds that it had.
    """
    from msloc_edge.bundle import MANIFEST, Bundle

    path = Path(source)
    is_run = path.is_file() or (path.is_dir() and not (path / MANIFEST).exists())
    if not data and not is_run:
        raise click.UsageError("Missing option '--data': a bundle does not say which films are yours.")
    with needing("calibrate"):
        import msloc_edge.export
        import msloc_edge.train.calibration.calibrate  # noqa: F401 - both, before anything is read
    from rich.progress import Progress

    require_writable(out)
    console = people()
    with Progress(console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        if is_run:
            bundle = _of_run(path, data, split, exclude, out, version, progress)
        else:
            bundle = _of_bundle(Bundle.open(source), data, split, exclude, out, version, progress)
    tell(bundle, quiet)


def tell(bundle: Bundle, quiet: bool) -> None:
    """Print a bundle's line on stdout, and its rates and remarks for people."""
    from msloc_edge.bundle.store import Known

    views.say(views.record(Known(bundle.name, "folder", bundle.path, bundle)) | views.facts(bundle), quiet)
    if quiet:
        return
    for table in views.rates(bundle):
        people().print(table)
    for line in _remarks(bundle):
        click.echo(f"msloc-edge: {line}", err=True)
    click.echo(f"{bundle.path}: {bundle.name} {bundle.version}, sha256 {bundle.sha256[:12]}...", err=True)


def _of_bundle(
    bundle: Bundle,
    data: Sequence[str],
    split: str | None,
    exclude: Sequence[Path],
    out: Path,
    version: str | None,
    progress: Progress,
) -> Bundle:
    from msloc_edge.backends import DEFAULT_BACKEND, load_backend
    from msloc_edge.export import recalibrate_bundle
    from msloc_edge.train.calibration.calibrate import recalibrate

    films = films_of(bundle, data, split, exclude, progress)
    found = recalibrate(bundle, load_backend(DEFAULT_BACKEND, bundle), films, BATCH, progress)
    return recalibrate_bundle(bundle, found, out, version or f"{bundle.version}.1")


def films_of(
    bundle: Bundle, data: Sequence[str], split: str | None, exclude: Sequence[Path], progress: Progress
) -> list[Films]:
    """Load the films that a bundle is calibrated on, and name on stderr what cannot be read."""
    from msloc_edge.train.data import excluded_names, split_films
    from msloc_edge.train.data.sources import default_split

    excluded = excluded_names(list(map(str, exclude)))
    films: list[Films] = []
    for spec in data:
        part = split or default_split(spec, "validation")
        films += split_films([spec], part, bundle.classes, bundle.input_size[0], PHANTOMS, progress, excluded)
    _tell_problems(films)
    return films


def _of_run(
    path: Path,
    data: Sequence[str],
    split: str | None,
    exclude: Sequence[Path],
    out: Path,
    version: str | None,
    progress: Progress,
) -> Bundle:
    from msloc_edge.cli.export import write_bundle
    from msloc_edge.train.calibration.calibrate import calibrate_run
    from msloc_edge.train.checkpoint import load_state, model_name
    from msloc_edge.train.config import TrainConfig
    from msloc_edge.train.data import excluded_names, split_films

    state = load_state(path)
    config = TrainConfig.from_dict(state["config"])
    excluded = excluded_names([*config.exclude, *map(str, exclude)])
    model = config.model
    films = split_films(
        data or config.data, split or "validation", model.classes, model.size, config.val_films, progress, excluded
    )
    _tell_problems(films)
    state = calibrate_run(state, films, BATCH, progress)
    bundle, _ = write_bundle(state, out, name=model_name(state, path), version=version or "0.1")
    return bundle


def _tell_problems(films: Sequence[Films]) -> None:
    for source in films:
        for problem in source.problems:
            click.echo(f"msloc-edge: {problem}", err=True)


def _remarks(bundle: Bundle) -> list[str]:
    """Word what a user must know of how the thresholds came about."""
    told = bundle.manifest["calibration"]
    lines = [
        f"{label}: no film with it, or none without; its thresholds are guesses, or those of before"
        for label in told.get("guessed", ())
    ]
    if about := told.get("coarse"):
        used = "used, too" if about["used"] else "left out"
        lines.append(f"{counted(about['films'], 'film')} coarser than the network's input: {used}")
    return lines
