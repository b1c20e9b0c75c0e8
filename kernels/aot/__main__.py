"""`python -m msloc_edge.kernels.aot --out DIR`: every kernel for every device, without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from msloc_edge.cuda.compiled import Compiled
from msloc_edge.errors import DependencyError, MslocError, OutputError


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for kernels.json and its files.")
@click.option("--sm", default="all", show_default=True, help="Devices, such as 87 or 80,90; or all.")
@click.option("--operation", default=None, help="Only this operation, such as fuse_cams.")
def main(out: Path, sm: str, operation: str | None) -> None:
    """Compile the kernels to PTX and cubins; one line per kernel on stderr says what it uses.

    Exit 1 when a kernel is refused, spills, or needs too many registers.
    """
    try:
        from msloc_edge.kernels.aot.build import DEVICES, MOST_REGISTERS, build, heavy
        from msloc_edge.kernels.aot.variants import variants
    except ImportError as error:
        sentence = f"compiling kernels needs {error.name}; install it with: pip install 'msloc-edge[gpu]'"
        _end(DependencyError("package_missing", sentence))
    names = {str(device): device for device in DEVICES}
    if sm != "all" and (unknown := set(sm.split(",")) - set(names)):
        raise click.BadParameter(f"expected all, or some of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    chosen = [v for v in variants() if operation in (None, v.operation)]
    if not chosen:
        known = ", ".join(sorted({v.operation for v in variants()}))
        raise click.BadParameter(f"expected an operation of {known}, got {operation}")
    devices = DEVICES if sm == "all" else tuple(names[name] for name in sm.split(","))
    try:
        kernels = build(chosen, devices, out, lambda k: click.echo(_line(k), err=True))
    except OSError as error:
        _end(OutputError("out_unwritable", f"{out}: cannot be written ({error.strerror})"))
    except MslocError as error:
        _end(error)
    click.echo(f"{len(kernels)} kernels in {out}", err=True)
    if failed := [kernel for kernel in kernels if heavy(kernel)]:
        click.echo(f"expected no spills and up to {MOST_REGISTERS} registers; not so:", err=True)
        click.echo("\n".join(map(_line, failed)), err=True)
        sys.exit(1)


def _line(kernel: Compiled) -> str:
    name = ".".join(filter(None, (kernel.operation, kernel.variant, kernel.dtype)))
    where = "portable" if kernel.portable else f"sm_{kernel.sm}"
    return (
        f"{name:<40} {where:<8} {kernel.registers:>3} registers, {kernel.spills} bytes spilled, {kernel.shared} shared"
    )


def _end(error: MslocError) -> NoReturn:
    click.echo(f"msloc-edge: [{error.reason}] {error.message}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
