"""`export --target` and `export --check`: a bundle in the form that a device or a server runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.cli.console import people
from msloc_edge.errors import BackendError
from msloc_edge.export.choices import PLUGINS

if TYPE_CHECKING:
    from rich.progress import Progress

    from msloc_edge.bundle import Bundle
    from msloc_edge.export.mixed import Films
    from msloc_edge.export.tensorrt import EngineChoices

GATE_FILMS, CHECK_FILMS = 96, 24
"""At most so many films of each source for the localization gate, and for each engine in --check."""

ENGINE_OPTIONS = {
    "tensorrt": ("--plugin", "--plugin-library", "--workspace", "--version-compatible", "--hardware-compatible"),
    "tensorrt-rtx": ("--workspace",),
}
"""Target -> the options that its library has."""


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `export` that belong to engines; the command gets them together, as `engine`."""
    for option in reversed(
        (
            click.option("--plugin", type=click.Choice(PLUGINS), help="How the heatmap is computed.  [default: auto]"),
            click.option("--plugin-library", type=click.Path(path_type=Path), help="libmsloc_camfuse.so."),
            click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Scratch memory of a layer."),
            click.option("--version-compatible", is_flag=True, help="The plan also runs in later TensorRT."),
            click.option(
                "--hardware-compatible", is_flag=True, help="The plan also runs on other GPUs from Ampere on."
            ),
        )
    ):
        command = option(command)
    return command


def write(
    model: str,
    out: Path,
    target: str,
    precision: str | None,
    batch: str | None,
    calibration: Sequence[str],
    keep: Sequence[str],
    engine: Mapping[str, Any],
) -> None:
    """Write the folder of a target, and say on stderr what is in it. The report is a JSON line on stdout."""
    import onnx

    from msloc_edge.bundle import Bundle
    from msloc_edge.cli.output import print_line
    from msloc_edge.export.mixed import Converted, convert
    from msloc_edge.export.targets import require, write_target

    choices = _choices(target, batch, engine)
    bundle = Bundle.open(model)
    require(bundle, out, target, choices)
    with _progress() as progress:
        films = None
        done = Converted(onnx.load(bundle.onnx), "fp32")
        if precision and precision != "fp32":
            films = _films(bundle, calibration, progress, GATE_FILMS)
            done = convert(bundle, precision, films, keep)
        report = write_target(bundle, out, target, done, films, choices, progress)
    print_line(json.dumps(report))
    click.echo(f"{out}: {target}, {done.precision}, of {bundle.name} {bundle.version}", err=True)
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


def _choices(target: str, batch: str | None, engine: Mapping[str, Any]) -> EngineChoices:
    from msloc_edge.backends.tensorrt.builder import Settings
    from msloc_edge.backends.tensorrt.key import Batch
    from msloc_edge.export.tensorrt import EngineChoices

    given = [f"--{name.replace('_', '-')}" for name, value in engine.items() if value]
    fitting = ENGINE_OPTIONS.get(target, ())
    if foreign := [option for option in given if option not in fitting]:
        raise click.UsageError(f"{', '.join(foreign)}: not of --target {target}")
    try:
        sizes = Batch.parse(batch) if batch else Batch()
    except ValueError as error:
        raise click.UsageError(f"--batch: {error}") from error
    settings = Settings(sizes, engine["workspace"], engine["version_compatible"], engine["hardware_compatible"])
    return EngineChoices(settings, engine["plugin"] or "auto", engine["plugin_library"])


def check(model: str, calibration: Sequence[str]) -> bool:
    """Compare everything that a bundle can become; each comparison is a JSON line. Returns whether all agree."""
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.bundle import Bundle
    from msloc_edge.cli.output import print_line
    from msloc_edge.cli.selftest import STYLES
    from msloc_edge.export.check import check_everything

    bundle = Bundle.open(model)
    figures = ("logits", "maps", "boxes, IoU", "peaks, widths", "AUROC drop")
    table = Table("what", "engine", "precision", "state", *figures, "")
    states = []
    with _progress() as progress:
        films = _films(bundle, calibration, progress, CHECK_FILMS)
        task = progress.add_task("comparing", total=None)
        for row in check_everything(bundle, films):
            states.append(row["state"])
            if not (sys.stdout.isatty() and sys.stderr.isatty()):
                print_line(json.dumps(row))
            state = Text(row["state"], STYLES[row["state"]])
            table.add_row(row["what"], row["engine"], row["precision"], state, *_cells(row))
        progress.remove_task(task)
    people(width=180).print(f"{bundle.name} {bundle.version} against torch", table, sep="\n")
    return "failed" not in states


def _cells(row: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    if "logit" not in row:
        return ["-"] * 5 + [Text(row["message"])]
    drop = "-" if row["auroc_drop"] is None else f"{row['auroc_drop']:.4f}"
    kept = len(row.get("kept_fp32", ()))
    words = ", ".join(row["classes"]) or (f"{kept} convolutions in fp32" if kept else "")
    figures = [f"{row['logit']:.1e}", f"{row['map']:.1e}", f"{row['box_iou']:.4f}", f"{row['peak_shift']:.4f}", drop]
    return [*figures, Text(words)]


def _films(bundle: Bundle, calibration: Sequence[str], progress: Progress, count: int) -> Films:
    try:
        from msloc_edge.cli.gate_films import gate_films

        return gate_films(bundle, calibration, progress, count)
    except ImportError as error:
        from msloc_edge.cli.train import NEEDS

        raise BackendError("backend_missing", f"the gate needs {error.name}; install it with: {NEEDS}") from error


def _progress() -> Progress:
    from rich.progress import Progress

    return Progress(transient=True, disable=not sys.stderr.isatty())
