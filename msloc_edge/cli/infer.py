"""msloc-edge infer: films in, findings with boxes out."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.cli.inputs import STDIN, Names, Search
from msloc_edge.cli.options import device_options
from msloc_edge.cli.watch import arrivals
from msloc_edge.types import SHOWN


def _number_or_all(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """A whole number of at least 0; None for "all"."""
    if value == "all":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"expected a whole number of at least 0, or all, got {value!r}")
    return int(value)


@click.command("infer")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--model", default=None, help="Name of a model that is here, or bundle folder.  [default: cxr-edge]")
@click.option("--backend", type=click.Choice(list(BACKENDS)), default=DEFAULT_BACKEND, show_default=True)
@device_options
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="Folder for files.")
@click.option(
    "--write",
    "write",
    default=None,
    metavar="KINDS",
    help="What to write into --out, with commas: json,overlay,heatmap,report, which is the default, and DICOM objects: "
    "sr,seg,pm,gsps,sc.",
)
@click.option("--profile", default=None, help="Threshold profile, such as normal-90; `models show` lists them.")
@click.option(
    "--show",
    metavar="N|all",
    default=str(SHOWN),
    show_default=True,
    callback=_number_or_all,
    help="Findings drawn on a film.",
)
@click.option("--all-classes", is_flag=True, help="Localize every class, not only the positive ones.")
@click.option("--input-gate/--no-input-gate", default=True, help="Refuse what is no frontal chest film.  [default: on]")
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Films per engine call.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that read ahead.")
@click.option(
    "--threads", type=click.IntRange(1), default=None, help="Threads of the network on a CPU.  [default: all]"
)
@click.option("--frame", type=click.IntRange(1), default=None, help="Which frame of a multi-frame file, from 1.")
@click.option("--no-uids", is_flag=True, help="Leave the UIDs of DICOM films out of the result lines.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first input that fails.")
@click.option("--watch", is_flag=True, help="Go on: localize new films in the INPUT folders as they arrive.")
@click.option("--overwrite", is_flag=True, help="Begin --out anew.  [default: go on with what is done there]")
@click.option("-v", "--verbose", is_flag=True, help="Name the files in folders that were passed over.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table on stderr; failures are still named.")
def command(
    inputs: tuple[str, ...],
    model: str | None,
    backend: str,
    device: str | None,
    precision: str,
    out: Path | None,
    write: str | None,
    profile: str | None,
    show: int | None,
    all_classes: bool,
    input_gate: bool,
    batch: int,
    workers: int,
    threads: int | None,
    frame: int | None,
    no_uids: bool,
    fail_fast: bool,
    watch: bool,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Localize findings on chest films.

    INPUT is a PNG, JPEG, TIFF or DICOM file, a folder (searched whole), a glob, or "-" for one film on stdin.

    Results are JSON Lines (schema msloc-edge/result/1) on stdout; with --out they are also in DIR/results.jsonl, and
    stdout stays silent if it is a terminal. A run into a DIR that has results goes on there: films that are done are
    not done again. Boxes are x, y, width, height in pixels of the stored image.
    """
    from rich.progress import Progress

    from msloc_edge.bundle import DEFAULT_MODEL
    from msloc_edge.cli.console import people
    from msloc_edge.cli.output import OutputFolder
    from msloc_edge.cli.session import Session
    from msloc_edge.pipeline import Localizer

    kinds = _kinds(write, out, watch)
    if watch and (STDIN in inputs or not all(Path(item).is_dir() for item in inputs)):
        raise click.UsageError("--watch expects folders that exist as INPUT")
    if overwrite and out is None:
        raise click.UsageError("--overwrite needs a folder: add --out DIR")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped service ends as Ctrl-C does: whole files
    console, search = people(), Search()
    with ExitStack() as stack:
        localizer = stack.enter_context(
            Localizer(model or DEFAULT_MODEL, backend, device, profile, all_classes, threads, precision, input_gate)
        )
        settings = {
            "model": localizer.bundle.sha256,
            "profile": localizer.operating_point.profile,
            "precision": precision,
            "--all-classes": all_classes,
            "--input-gate": input_gate,
            "--frame": frame,
            "--show": show,
            "--write": list(kinds),
            "--no-uids": no_uids,
        }
        folder = stack.enter_context(OutputFolder(out, kinds, localizer, settings, show, overwrite)) if out else None
        progress = stack.enter_context(
            Progress(console=console, disable=quiet or watch or not console.is_terminal, transient=True)
        )
        session = Session(localizer, folder, progress, batch, workers, frame, fail_fast, uids=not no_uids)
        names = Names(folder.names() if folder else ())
        try:
            for paths in arrivals(inputs, search) if watch else [search.expand(inputs)]:
                session.localize([names.source(path) for path in paths])
                if session.stopped:
                    break
        except KeyboardInterrupt:
            if watch and not quiet:  # that is how it ends
                session.show(console, search.passed_over, verbose)
            raise
    if not quiet:
        session.show(console, search.passed_over, verbose)
    if session.failed or session.refused or session.lacking:
        sys.exit(1)


def _kinds(write: str | None, out: Path | None, watch: bool) -> tuple[str, ...]:
    from msloc_edge.cli.output import KINDS
    from msloc_edge.objects import KINDS as OBJECTS

    if write is None:
        return tuple(kind for kind in KINDS if not (watch and kind == "report"))
    kinds = tuple(kind.strip() for kind in write.split(",") if kind.strip())
    known = (*KINDS, *OBJECTS)
    if not kinds or not set(kinds) <= set(known):
        raise click.BadParameter(f"expected some of {', '.join(known)}, got {write!r}", param_hint="--write")
    if out is None and kinds != ("json",):
        raise click.UsageError(f"--write {write} needs a folder: add --out DIR")
    if watch and "report" in kinds:
        raise click.UsageError("--watch never ends, and a report is whole only at the end of a run: leave it out")
    return kinds
