"""msloc-edge export: a checkpoint becomes the bundle that devices run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from msloc_edge.errors import BackendError

PARITY_SEED = 3_000_000


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Name in the manifest.  [default: cxr-BACKBONE]")
@click.option(
    "--metrics",
    multiple=True,
    type=click.Path(path_type=Path),
    help="metrics.json of `eval`, for the card; repeatable.",
)
@click.option(
    "--fit-boxes",
    "data",
    default=None,
    help="Fit map thresholds on the true boxes of nih:DIR or csv:FILE, half of the patients.",
)
@click.option(
    "--boxes", type=click.Path(path_type=Path), default=None, help="With --fit-boxes: a csv with image,label,x,y,w,h."
)
@click.option("--model-version", default="0.1", show_default=True, help="Version in the manifest.")
def command(
    checkpoint: Path,
    out: Path,
    name: str | None,
    metrics: tuple[Path, ...],
    data: str | None,
    boxes: Path | None,
    model_version: str,
) -> None:
    """Turn CHECKPOINT (a run folder or a .pt file) into the bundle folder OUT.

    The bundle is written only if torch and onnxruntime agree on logits, maps and boxes over phantoms of every kind.
    Figures that `eval` has measured of the same network (--metrics) become part of its model card. With --fit-boxes its
    map thresholds are no longer found without boxes, which manifest and card say.
    """
    if boxes and not data:
        raise click.UsageError("--boxes belongs to --fit-boxes")
    try:
        from msloc_edge.train.boxfit import fit_to_boxes
        from msloc_edge.train.checkpoint import load_state
        from msloc_edge.train.evaluate.write import read_metrics
    except ImportError as error:
        from msloc_edge.cli.train import NEEDS

        raise BackendError("backend_missing", f"export needs {error.name}; install it with: {NEEDS}") from error
    measured = [read_metrics(path) for path in metrics]
    state = load_state(checkpoint)
    if data:
        from rich.progress import Progress

        with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
            state = fit_to_boxes(state, data, "all" if data.startswith("csv:") else "test", boxes, progress)
    write_bundle(state, out, name or f"cxr-{state['config']['model']['backbone']}", model_version, measured)


def write_bundle(
    state: Mapping[str, Any], out: Path, name: str, version: str, metrics: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Export, and say on stderr what came out."""
    from msloc_edge.export import Measured, export_bundle
    from msloc_edge.train.evaluate.tables import markdown
    from msloc_edge.train.phantom import FINDINGS, generate

    kinds: list[tuple[str, ...]] = [(), *((finding,) for finding in FINDINGS)]
    films = [generate(PARITY_SEED + n, 512, kind).display() for n, kind in enumerate(kinds)]
    films.append(generate(PARITY_SEED, (700, 560)).display())  # not square: the letterbox takes part

    def _measured(found: Mapping[str, Any]) -> Measured:
        return Measured(str(found["run"]["what"].get("onnx_sha256")), markdown(found))

    bundle, parity = export_bundle(state, out, films, name, version, [_measured(found) for found in metrics])
    size = sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6
    click.echo(
        f"{bundle.path}: {bundle.name} {bundle.version}, {size:.1f} MB, sha256 {bundle.sha256[:12]}...\n"
        f"torch and onnxruntime agree over {parity.films} films: logits {parity.logit:.1e}, maps {parity.map:.1e}, "
        f"{parity.boxes} boxes with IoU >= {parity.iou:.4f}",
        err=True,
    )
