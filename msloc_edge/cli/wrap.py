"""msloc-edge models wrap: a bundle of a network that exists."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.cli import model_views as views
from msloc_edge.cli.calibrate import BATCH, films_of, tell
from msloc_edge.cli.console import needing, people

if TYPE_CHECKING:
    from msloc_edge.export.class_maps import Normalisation
    from msloc_edge.export.wrap import Original

_PATH = click.Path(path_type=Path)

NORMALISATIONS = {
    "none": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Name -> mean and deviation of the channels, of pixels in [0, 1]."""


def _normalisation(context: click.Context, parameter: click.Parameter, value: str) -> Normalisation:
    with needing("models wrap"):
        from msloc_edge.export.class_maps import Normalisation
    if value in NORMALISATIONS:
        return Normalisation(*NORMALISATIONS[value])
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in value.split("/"))
    except ValueError as error:
        expected = f"{', '.join(NORMALISATIONS)} or MEAN/STD, as 0.5/0.25 or 0.485,0.456,0.406/0.229,0.224,0.225"
        raise click.BadParameter(f"expected {expected}, got {value!r}") from error
    return Normalisation(mean, std)


@click.command("wrap")
@click.argument("source", metavar="FILE.onnx|PACKAGE.MODULE:FACTORY")
@click.argument("out", type=_PATH)
@click.option(
    "--classes", required=True, help="Names of the findings in the order of the network's outputs, by commas."
)
@click.option("--data", multiple=True, required=True, help="Films to fit thresholds on, as of `calibrate`; repeatable.")
@click.option("--split", default=None, help="As of `calibrate`.  [default: as there]")
@click.option("--exclude", multiple=True, type=_PATH, help="Text file that names films to leave out; repeatable.")
@click.option(
    "--normalisation",
    required=True,
    callback=_normalisation,
    help="Of the input: imagenet, none, or MEAN/STD of pixels in [0, 1].",
)
@click.option("--size", type=click.IntRange(32), default=None, help="Side of the input, pixels.  [default: the file's]")
@click.option("--weights", type=_PATH, default=None, help="Of a factory's network: .safetensors or torch file.")
@click.option("--logits", default=None, help="Output with the logits.  [default: the first]")
@click.option("--cams", multiple=True, help="Output with class maps, one for each stage; repeatable.")
@click.option(
    "--relevance", type=_PATH, default=None, help="Weights of the stages, JSON [S] or [K][S].  [default: alike]"
)
@click.option("--name", default=None, help="Name of the model.  [default: that of OUT]")
@click.option("--version", default="0.1", show_default=True, help="Version of the bundle.")
@views.quiet_option
def command(
    source: str,
    out: Path,
    classes: str,
    data: tuple[str, ...],
    split: str | None,
    exclude: tuple[Path, ...],
    normalisation: Normalisation,
    name: str | None,
    quiet: bool,
    weights: Path | None,
    size: int | None,
    relevance: Path | None,
    **given: Any,
) -> None:
    """Make a bundle of a network that exists.

    SOURCE is an ONNX file, or what makes a PyTorch classifier, called without arguments. A classifier that ends in
    global average pooling and one linear layer needs no more: its class maps are exact. Of an ONNX file that has class
    maps of its own, --cams names them. Thresholds and rates are fitted on --data, as `calibrate` does.

    The code of a factory runs as it is. On a device the bundle needs nothing of it.
    """
    with needing("models wrap"):
        from msloc_edge.export.bundle import require_replaceable
        from msloc_edge.export.wrap import wrap_bundle, write_draft
        from msloc_edge.train.calibration.calibrate import calibrate
        from msloc_edge.train.calibration.network import BundleNetwork
    from rich.progress import Progress

    from msloc_edge.backends import DEFAULT_BACKEND, load_backend
    from msloc_edge.cli.export import agreement
    from msloc_edge.cli.export_films import parity_films

    labels = [label.strip() for label in classes.split(",")]
    if not all(labels) or len(set(labels)) < len(labels):
        raise click.BadParameter(
            f"expected a name for each output, no two alike, got {classes!r}", param_hint="--classes"
        )
    require_replaceable(out)
    original = _original(source, weights, size)
    console = people()
    with (
        TemporaryDirectory(prefix="msloc-wrap-") as folder,
        Progress(console=console, disable=quiet or not console.is_terminal, transient=True) as progress,
    ):
        draft = write_draft(
            original,
            Path(folder) / "draft",
            labels,
            normalisation,
            name=name or out.resolve().name,
            size=size,
            relevance=_relevance(relevance) if relevance else None,
            **given,
        )
        films = films_of(draft, data, split, exclude, progress)
        network = BundleNetwork(draft, load_backend(DEFAULT_BACKEND, draft))
        found = calibrate(network, films, None, BATCH, progress)
        bundle, parity = wrap_bundle(draft, found, out, parity_films())
    tell(bundle, quiet)
    click.echo(agreement(parity), err=True)


def _original(source: str, weights: Path | None, size: int | None) -> Original:
    from msloc_edge.export.wrap import read_onnx, trace_classifier

    if Path(source).suffix == ".onnx" or ":" not in source:
        if weights:
            raise click.UsageError("--weights belongs to PACKAGE.MODULE:FACTORY; an ONNX file has its own")
        return read_onnx(Path(source))
    if size is None:
        raise click.UsageError("Missing option '--size': a factory does not say how large its films are.")
    return trace_classifier(source, weights, size)


def _relevance(path: Path) -> Any:
    import numpy as np

    try:
        return np.asarray(json.loads(path.read_text()), np.float64)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: expected JSON with weights [S] or [K][S] ({error})") from error
