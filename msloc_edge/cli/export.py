"""msloc-edge export: a checkpoint as the bundle that devices run, and a bundle as what an engine or a server runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.cli.console import needing, people
from msloc_edge.export import ENGINES, GRAPHS, PLUGINS, TARGETS
from msloc_edge.types import PLAN_PRECISIONS

if TYPE_CHECKING:
    from rich.progress import Progress

    from msloc_edge.bundle import Bundle
    from msloc_edge.export.parity import Parity
    from msloc_edge.export.precision.convert import Converted, Films
    from msloc_edge.export.tensorrt import EngineChoices

GATE_FILMS, CHECK_FILMS = 96, 24
"""Films of each source, at most: for the localization gate, and for each comparison of `check`."""

ENGINE_OPTIONS = {
    "tensorrt": ("graph", "plugin", "plugin_library", "workspace", "version_compatible", "hardware_compatible", "dla"),
    "tensorrt-rtx": ("graph", "workspace"),
    "triton-server": ("engine", "workspace", "version_compatible", "hardware_compatible"),
}
"""Target -> the options that its library has."""

_PATH = click.Path(path_type=Path)


def _sizes(context: click.Context, parameter: click.Parameter, value: str) -> Batch:
    try:
        return Batch.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group("export")
def command() -> None:
    """Make of a checkpoint the bundle that devices run, and of a bundle what an engine or a server runs."""


@command.command("bundle")
@click.argument("run", metavar="RUN", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--name", default=None, help="Name in the manifest.  [default: that of the run]")
@click.option("--model-version", default="0.1", show_default=True, help="Version in the manifest.")
@click.option("--metrics", multiple=True, type=_PATH, help="metrics.json of `eval`, for the card; repeatable.")
@click.option(
    "--fit-boxes",
    "data",
    help="Fit map thresholds on the true boxes of a collection, as nih:DIR, half of the patients.",
)
@click.option("--boxes", type=_PATH, help="With --fit-boxes: a csv with image,label,x,y,w,h.")
@click.option(
    "--input-gate",
    metavar="FILE|none",
    help="Numbers of the gate before the model, by python -m msloc_edge.train.gate.  [default: of chest films]",
)
def bundle_command(
    run: Path,
    out: Path,
    name: str | None,
    model_version: str,
    metrics: tuple[Path, ...],
    data: str | None,
    boxes: Path | None,
    input_gate: str | None,
) -> None:
    """Turn RUN (a run folder or a .pt file) into the bundle folder OUT.

    The bundle is written only if torch and onnxruntime agree on logits, maps and boxes over phantoms of every kind.
    Figures that `eval` has measured of the same network (--metrics) become part of its model card. With --fit-boxes its
    map thresholds are no longer found without boxes, which manifest and card say.
    """
    if boxes and not data:
        raise click.UsageError("--boxes belongs to --fit-boxes")
    with needing("export"):
        from msloc_edge.train.boxfit import fit_to_boxes
        from msloc_edge.train.checkpoint import load_state, model_name
        from msloc_edge.train.data.sources import default_split
        from msloc_edge.train.evaluate.write import read_metrics
    measured = [read_metrics(path) for path in metrics]
    state = load_state(run)
    if data:
        with _progress() as progress:
            state = fit_to_boxes(state, data, default_split(data, "test"), boxes, progress)
    tell_export(*write_bundle(state, out, name or model_name(state, run), model_version, measured, input_gate))


def write_bundle(
    state: Mapping[str, Any],
    out: Path,
    name: str,
    version: str,
    metrics: Sequence[Mapping[str, Any]] = (),
    input_gate: str | None = None,
) -> tuple[Bundle, Parity]:
    """Export a calibrated checkpoint: the bundle, and how well the engines agree. Raises as `export_bundle` does.

    input_gate  file of its numbers, or "none"; None: this program's own
    """
    from msloc_edge.cli.export_films import parity_films
    from msloc_edge.export import Measured, export_bundle
    from msloc_edge.imaging.gate import default_gate, read_gate
    from msloc_edge.train.evaluate.tables import markdown

    gate = None if input_gate == "none" else read_gate(Path(input_gate)) if input_gate else default_gate()
    measured = [Measured(str(found["run"]["what"].get("onnx_sha256")), markdown(found)) for found in metrics]
    return export_bundle(state, out, parity_films(), name, version, measured, gate)


def tell_export(bundle: Bundle, parity: Parity) -> None:
    """Say on stderr what came out of an export."""
    size = sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6
    click.echo(
        f"{bundle.path}: {bundle.name} {bundle.version}, {size:.1f} MB, sha256 {bundle.sha256[:12]}...", err=True
    )
    click.echo(agreement(parity), err=True)


def agreement(parity: Parity) -> str:
    """Word how well the engines agree on a new bundle."""
    return (
        f"engines agree over {parity.films} films: logits {parity.logit:.1e}, maps {parity.map:.1e}, {parity.boxes} "
        f"boxes with IoU >= {parity.iou:.4f}"
    )


@command.command("target")
@click.argument("model", metavar="BUNDLE")
@click.argument("out", type=_PATH)
@click.option("--target", type=click.Choice(TARGETS), required=True, help="Device or server that OUT is for.")
@click.option(
    "--precision",
    type=click.Choice(PLAN_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Arithmetic of the network.",
)
@click.option(
    "--batch", metavar="MIN:OPT:MAX", default="1:1:8", show_default=True, callback=_sizes, help="Batch sizes."
)
@click.option(
    "--calibration",
    multiple=True,
    help="Films for int8 and the gate: nih:DIR, csv:FILE, a folder; repeatable.  [default: phantoms]",
)
@click.option("--keep-fp32", "keep", metavar="PATTERN", multiple=True, help="Layers to keep in fp32; repeatable.")
@click.option("--graph", type=click.Choice(GRAPHS), help="Last outputs of the engine.  [default: network]")
@click.option("--plugin", type=click.Choice(PLUGINS), help="How the heatmap is computed.  [default: auto]")
@click.option("--plugin-library", type=_PATH, help="libmsloc_camfuse.so.")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Scratch memory of a layer.")
@click.option("--version-compatible", is_flag=True, help="The plan also runs in later TensorRT.")
@click.option("--hardware-compatible", is_flag=True, help="The plan also runs on other GPUs from Ampere on.")
@click.option(
    "--engine", type=click.Choice(ENGINES), help="What a server runs the network with.  [default: onnxruntime]"
)
@click.option("--dla", type=click.IntRange(min=0), metavar="CORE", help="Orin's accelerator takes what it can.")
def target_command(
    model: str,
    out: Path,
    target: str,
    precision: str,
    batch: Batch,
    calibration: tuple[str, ...],
    keep: tuple[str, ...],
    **engine: Any,
) -> None:
    """Turn BUNDLE (a folder or the name of a model) into the folder OUT that an engine or a server runs.

    fp16 and int8 are written only if boxes, peaks and AUROC stay what they are in fp32. The report is a JSON line on
    stdout (schema msloc-edge/export/1), and in OUT.
    """
    if precision == "fp32" and (calibration or keep):
        raise click.UsageError("--calibration and --keep-fp32 belong to --precision fp16 or int8")
    with needing("export"):
        import onnx

        from msloc_edge.export.precision.convert import Converted, convert
        from msloc_edge.export.targets import require, write_target
    from msloc_edge.bundle import ONNX, Bundle
    from msloc_edge.cli.output import print_line

    choices = _choices(target, batch, engine)
    bundle = Bundle.open(model)
    require(bundle, out, target, choices, precision)
    with _progress() as progress:
        films = None
        done = Converted(onnx.load_model_from_string(bundle.read(ONNX)), precision)
        if precision != "fp32":
            films = _films(bundle, calibration, progress, GATE_FILMS)
            done = convert(bundle, precision, films, keep)
        report = write_target(bundle, out, target, done, films, choices, progress)
    print_line(json.dumps(report))
    _tell(bundle, out, done, report)


def _choices(target: str, batch: Batch, engine: Mapping[str, Any]) -> EngineChoices:
    from msloc_edge.backends.tensorrt.builder import Settings
    from msloc_edge.export.tensorrt import EngineChoices

    foreign = [name for name in _given(engine) if name not in ENGINE_OPTIONS.get(target, ())]
    if foreign:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise click.UsageError(f"{given}: not of --target {target}")
    graph = engine["graph"] or "network"
    if target == "triton-server" and engine["engine"] != "tensorrt" and (set(_given(engine)) - {"engine"}):
        raise click.UsageError("--workspace and --...-compatible belong to --engine tensorrt")
    if graph == "network" and (engine["plugin"] or engine["plugin_library"]):
        raise click.UsageError("--plugin and --plugin-library belong to --graph heatmap")
    names = ("workspace", "version_compatible", "hardware_compatible", "dla")
    settings = Settings(batch, **{name: engine[name] for name in names})
    return EngineChoices(
        settings, graph, engine["plugin"] or "auto", engine["plugin_library"], engine["engine"] or ENGINES[0]
    )


def _given(engine: Mapping[str, Any]) -> list[str]:
    """Names of the options that were given."""
    return [name for name, value in engine.items() if value is not None and value is not False]


def _tell(bundle: Bundle, out: Path, done: Converted, report: Mapping[str, Any]) -> None:
    """Say on stderr what is in the folder, and how far it is from fp32."""
    click.echo(f"{out}: {report['target']}, {done.precision}, of {bundle.name} {bundle.version}", err=True)
    for name in report["files"]:
        click.echo(f"  {name}  {(out / name).stat().st_size / 1e6:.2f} MB", err=True)
    if "plugin" in report:
        click.echo(f"  heatmap: {report['plugin']['route']} ({report['plugin']['reason']})", err=True)
    if done.figures:
        drops = [row.auroc_drop for row in done.figures if row.auroc_drop is not None]
        click.echo(
            f"  against fp32, worst class: AUROC drop {max(drops, default=0):.4f}, box IoU "
            f"{min(row.box_iou for row in done.figures):.3f}, peak shift "
            f"{max(row.peak_shift for row in done.figures):.2%}; in fp32: {', '.join(done.kept) or 'no convolution'}",
            err=True,
        )


@command.command("check")
@click.argument("model", metavar="BUNDLE")
@click.option("--calibration", multiple=True, help="Films for int8 and the gate, as of `target`; repeatable.")
def check_command(model: str, calibration: tuple[str, ...]) -> None:
    """Compare all that BUNDLE can become with torch: backends, graphs, precisions. Nothing is written.

    Each comparison is a JSON line on stdout (schema msloc-edge/export-check/1). Exit status 1 if one fails.
    """
    from rich.table import Table
    from rich.text import Text

    with needing("export"):
        from msloc_edge.export.parity import check_all
    from msloc_edge.bundle import Bundle
    from msloc_edge.cli.output import print_line
    from msloc_edge.cli.selftest import STYLES

    bundle = Bundle.open(model)
    figures = ("logits", "maps", "boxes, IoU", "peaks, widths", "AUROC drop")
    table = Table("what", "engine", "precision", "state", *figures, "")
    states = []
    with _progress() as progress:
        films = _films(bundle, calibration, progress, CHECK_FILMS)
        task = progress.add_task("comparing", total=None)
        for row in check_all(bundle, films):
            states.append(row["state"])
            if not (sys.stdout.isatty() and sys.stderr.isatty()):
                print_line(json.dumps(row))
            state = Text(row["state"], STYLES[row["state"]])
            table.add_row(row["what"], row["engine"], row["precision"], state, *_cells(row))
        progress.remove_task(task)
    people(width=180).print(f"{bundle.name} {bundle.version} against torch", table, sep="\n")
    if "failed" in states:
        sys.exit(1)


def _cells(row: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    if "logit" not in row:
        return ["-"] * 5 + [Text(row["message"])]
    drop = "-" if row["auroc_drop"] is None else f"{row['auroc_drop']:.4f}"
    kept = len(row.get("kept_fp32", ()))
    words = ", ".join(row["classes"]) or (f"{kept} convolutions in fp32" if kept else "")
    figures = [f"{row['logit']:.1e}", f"{row['map']:.1e}", f"{row['box_iou']:.4f}", f"{row['peak_shift']:.4f}", drop]
    return [*figures, Text(words)]


def _films(bundle: Bundle, calibration: Sequence[str], progress: Progress, count: int) -> Films:
    with needing("the gate"):
        from msloc_edge.cli.export_films import gate_films

        return gate_films(bundle, calibration, progress, count)


def _progress() -> Progress:
    from rich.progress import Progress

    return Progress(transient=True, disable=not sys.stderr.isatty())
