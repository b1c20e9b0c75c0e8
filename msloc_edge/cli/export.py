"""msloc-edge export: a checkpoint becomes the bundle that devices run, and a bundle what an engine or a server runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from msloc_edge.cli import targets
from msloc_edge.errors import BackendError
from msloc_edge.export.choices import PRECISIONS, TARGETS

PARITY_SEED = 3_000_000


@click.command("export")
@click.argument("source", metavar="CHECKPOINT|BUNDLE")
@click.argument("out", type=click.Path(path_type=Path), required=False)
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
@click.option("--target", type=click.Choice(TARGETS), help="Turn BUNDLE into the folder OUT for this.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of the target.  [default: fp32]")
@click.option("--batch", metavar="MIN:OPT:MAX", help="Batch sizes of the target.  [default: 1:1:8]")
@click.option(
    "--calibration",
    multiple=True,
    help="Films for int8 and the gate: nih:DIR, csv:FILE, a folder; repeatable.  [default: phantoms]",
)
@click.option("--keep-fp32", "keep", metavar="PATTERN", multiple=True, help="Layers to keep in fp32; repeatable.")
@targets.engine_options
@click.option("--check", is_flag=True, help="Compare all engines, graphs and precisions of BUNDLE; write nothing.")
def command(
    source: str,
    out: Path | None,
    name: str | None,
    metrics: tuple[Path, ...],
    data: str | None,
    boxes: Path | None,
    model_version: str,
    target: str | None,
    precision: str | None,
    batch: str | None,
    calibration: tuple[str, ...],
    keep: tuple[str, ...],
    check: bool,
    **engine: Any,
) -> None:
    """Turn CHECKPOINT (a run folder or a .pt file) into the bundle folder OUT; with --target, BUNDLE (a folder or the
    name of a model) into what an engine or a server runs.

    The bundle is written only if torch and onnxruntime agree on logits, maps and boxes over phantoms of every kind.
    Figures that `eval` has measured of the same network (--metrics) become part of its model card. With --fit-boxes its
    map thresholds are no longer found without boxes, which manifest and card say.

    A target in fp16 or int8 is written only if boxes, peaks and AUROC stay what they are in fp32. What it became is a
    JSON line on stdout, and with --check each comparison.
    """
    if boxes and not data:
        raise click.UsageError("--boxes belongs to --fit-boxes")
    if (target or check) and (name or metrics or data):
        raise click.UsageError("--name, --metrics and --fit-boxes belong to a CHECKPOINT, not to --target or --check")
    reduced = precision in ("fp16", "int8")
    if (calibration and not (reduced or check)) or (keep and not reduced):
        raise click.UsageError("--calibration and --keep-fp32 belong to --precision fp16 or int8")
    if not target and (precision or batch or any(engine.values())):
        raise click.UsageError("--precision, --batch and the options of engines belong to --target")
    if check:
        if target or out:
            raise click.UsageError("--check writes nothing: leave out OUT and --target")
        sys.exit(0 if targets.check(source, calibration) else 1)
    if out is None:
        raise click.UsageError("Missing argument 'OUT'.")
    if target:
        targets.write(source, out, target, precision, batch, calibration, keep, engine)
        return
    try:
        from msloc_edge.train.boxfit import fit_to_boxes
        from msloc_edge.train.checkpoint import load_state
        from msloc_edge.train.evaluate.write import read_metrics
    except ImportError as error:
        from msloc_edge.cli.train import NEEDS

        raise BackendError("backend_missing", f"export needs {error.name}; install it with: {NEEDS}") from error
    measured = [read_metrics(path) for path in metrics]
    state = load_state(Path(source))
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
