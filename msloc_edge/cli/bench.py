"""msloc-edge bench: latency and throughput of a model on this machine, as a device engineer wants to see them."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.bench import SCOPES
from msloc_edge.cli.options import device_options
from msloc_edge.errors import DependencyError, InputError

if TYPE_CHECKING:
    from rich.console import Console

GENERATED, DEFAULT_FILM = 8, "2500x2048x12"


@click.command("bench")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option("--model", default="cxr-edge", show_default=True, help="Bundle folder, or the name of a model.")
@click.option("--backend", type=click.Choice(list(BACKENDS)), default=DEFAULT_BACKEND, show_default=True)
@device_options
@click.option(
    "--threads", type=click.IntRange(1), default=None, help="Threads of the network on a CPU.  [default: cores]"
)
@click.option("--profile", default=None, help="Threshold profile of the bundle.")
@click.option("--all-classes", is_flag=True, help="Localize every class, not only the positive ones.")
@click.option(
    "--generate",
    default=None,
    metavar="WxHxBITS",
    help=f"Without INPUT: films of this size and depth, 8 bits as PNG, 10-16 as DICOM.  [default: {DEFAULT_FILM}]",
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What is timed; device: stored pixels to regions, all on the GPU.  [default: all that the backend has]",
)
@click.option(
    "--films", type=click.IntRange(1), default=200, show_default=True, help="Films of a measurement, at most."
)
@click.option("--seconds", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Its seconds, at most.")
@click.option(
    "--warmup", type=click.IntRange(0), default=10, show_default=True, help="Films before it that do not count."
)
@click.option(
    "--streams",
    type=click.IntRange(1, 64),
    multiple=True,
    help="Measure so many clients at the same time; repeatable.  [default: 1, without --batch and --rate]",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1, 1024),
    multiple=True,
    help="Measure throughput in batches of so many films (offline); repeatable.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="With --batch: threads that read ahead."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Measure films that arrive so often a second.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    help="With --rate: ms since arrival.  [default: 1000 / RATE]",
)
@click.option(
    "--compare-classifier", is_flag=True, help="Interleave the bare classifier of the same backbone: needs onnx."
)
@click.option(
    "--cold", type=click.IntRange(0, 100), default=3, show_default=True, help="Fresh processes for the cold start."
)
@click.option("--against", type=click.Path(path_type=Path), default=None, help="An earlier --json; exit 1 if slower.")
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.1, show_default=True, help="How much slower is still well."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Result file.")
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Page with pictures."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no tables on stderr.")
def command(
    inputs: tuple[str, ...],
    model: str,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    profile: str | None,
    all_classes: bool,
    generate: str | None,
    scopes: tuple[str, ...],
    films: int,
    seconds: float,
    warmup: int,
    streams: tuple[int, ...],
    batches: tuple[int, ...],
    workers: int,
    rate: float | None,
    deadline: float | None,
    compare_classifier: bool,
    cold: int,
    against: Path | None,
    tolerance: float,
    json_file: Path | None,
    html_file: Path | None,
    quiet: bool,
) -> None:
    """Measure latency and throughput on INPUT films (files, folders, globs), or on generated ones.

    Films come one after the other, or as --streams, --batch and --rate ask. Cold start, first film and steady state are
    measured apart; each film's time is parted into stages.

    The result (schema msloc-edge/bench/1) goes into the file of --json, or to stdout if that is no terminal; tables to
    stderr. Exit status 1 if --against finds a measurement slower than --tolerance allows.
    """
    from msloc_edge.bench.compare import compare, read_bench
    from msloc_edge.bench.page import bench_page
    from msloc_edge.bench.run import Plan, bench
    from msloc_edge.bench.scenarios import Effort
    from msloc_edge.cli.console import people
    from msloc_edge.cli.output import print_line

    if deadline and not rate:
        raise click.UsageError("--deadline belongs to --rate")
    if inputs and generate:
        raise click.UsageError("--generate makes films, and INPUT names some: choose one of the two")
    earlier = read_bench(against) if against else None
    console = people(160, quiet)
    plan = Plan(
        *(model, backend, device, precision, threads, profile, all_classes),
        scopes=tuple(dict.fromkeys(scopes)),
        effort=Effort(films, seconds, warmup),
        batches=tuple(dict.fromkeys(batches)),
        streams=tuple(dict.fromkeys(streams)) or ((1,) if not batches and not rate else ()),
        workers=workers,
        rate=rate,
        deadline_ms=deadline,
        compare_classifier=compare_classifier,
        cold=cold,
    )
    with ExitStack() as stack:
        status = stack.enter_context(console.status("films"))
        if inputs:
            files, what = _films(inputs), f"{len(inputs)} inputs: {' '.join(inputs)}"
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            files, what = generated(generate or DEFAULT_FILM, Path(folder))
        result = bench(plan, files, what, " ".join(["msloc-edge", *sys.argv[1:]]), status.update)
    if earlier:
        result["against"] = {"file": str(against), **compare(result, earlier, tolerance)}
    if json_file:
        _write(json_file, json.dumps(result, indent=1) + "\n")
    elif not sys.stdout.isatty():
        print_line(json.dumps(result))
    if html_file:
        _write(html_file, bench_page(result))
    _show(result, console)
    if earlier and result["against"]["failed"]:
        slower = [row["what"] for row in result["against"]["rows"] if row["failed"]]
        click.echo(f"msloc-edge: more than {tolerance:.0%} slower than {against}: {'; '.join(slower)}", err=True)
        sys.exit(1)


def _films(inputs: Sequence[str]) -> list[Path]:
    from msloc_edge.cli.inputs import STDIN, Search

    if STDIN in inputs:
        raise click.UsageError('bench reads each film many times: expected files, got "-"')
    files = [Path(path) for path in Search().expand(inputs)]
    if not files:
        raise InputError("missing", f"{' '.join(inputs)}: expected films, found none; check the path")
    return files


def generated(kind: str, folder: Path) -> tuple[list[Path], str]:
    """Phantoms of a kind WxHxBITS as files in `folder`, and what they are. Raises click.UsageError, BackendError."""
    from msloc_edge.train.phantom import MAX_SIDE, MIN_SIDE, generate, write_dicom, write_png

    found = re.fullmatch(r"(\d+)x(\d+)x(8|1[0-6])", kind)
    if not found or not all(MIN_SIDE <= int(side) <= MAX_SIDE for side in found.groups()[:2]):
        raise click.UsageError(
            f"--generate expects WxHxBITS such as {DEFAULT_FILM}, with sides of {MIN_SIDE} to {MAX_SIDE} and 8 or 10 "
            f"to 16 bits, got {kind!r}"
        )
    width, height, bits = (int(number) for number in found.groups())
    files = []
    for seed in range(GENERATED):
        phantom = generate(seed, (height, width))
        if bits == 8:
            files.append(folder / f"{seed}.png")
            write_png(phantom, files[-1], bits=8)
            continue
        files.append(folder / f"{seed}.dcm")
        try:
            write_dicom(phantom, files[-1], bits)
        except ImportError as error:
            raise DependencyError(
                "package_missing",
                f"films of {bits} bits are made as DICOM: expected {error.name}, got none; pip install "
                "'msloc-edge[dicom]', or ask for 8 bits",
            ) from error
    form = "PNG" if bits == 8 else "DICOM, not compressed"
    return files, f"{GENERATED} generated films of {width} x {height} pixels, {bits} bits, {form}"


def _write(file: Path, text: str) -> None:
    from msloc_edge._files import atomic_write, writing

    with writing(file, "or choose another file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, text.encode("utf-8", "replace"))


def _show(result: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.bench.tables import tables

    for one in tables(result):
        table = Table(title=one.title, title_justify="left", caption=one.note, caption_justify="left")
        for at, name in enumerate(one.head):
            table.add_column(name, overflow="fold", justify="left" if at == 0 else "right")
        for row in one.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    if "localization_overhead_ratio" in result:
        console.print(f"localization overhead ratio: {result['localization_overhead_ratio']:.3f}", highlight=False)
