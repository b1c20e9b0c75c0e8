"""msloc-edge selftest: does this device's engine still give the golden result of the model's maker?"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.backends import BACKENDS
from msloc_edge.cli.options import device_options
from msloc_edge.errors import MslocError

if TYPE_CHECKING:
    from msloc_edge.bundle import Bundle

SCHEMA = "msloc-edge/selftest/1"
STYLES = {"passed": "green", "failed": "bold red", "absent": "dim"}


@click.command("selftest")
@click.option("--model", default="cxr-edge", show_default=True, help="Bundle folder, or the name of a model.")
@click.option(
    "--backend",
    "backends",
    type=click.Choice(list(BACKENDS)),
    multiple=True,
    help="Engine to test; repeatable. One that is named must be there.  [default: all that are installed]",
)
@device_options
@click.option("-q", "--quiet", is_flag=True, help="No table on stderr; failures are still named.")
def command(model: str, backends: tuple[str, ...], device: str | None, precision: str, quiet: bool) -> None:
    """Localize a built-in film and compare with the golden result in the model's bundle.

    Each backend is one JSON line on stdout (schema msloc-edge/selftest/1): how far its logits, maps, peaks and boxes
    are from those of PyTorch on the day of the export. Exit status 1 if one is beyond the limits, or fails.
    """
    from rich.table import Table
    from rich.text import Text

    from msloc_edge.bundle import Bundle
    from msloc_edge.cli.console import people
    from msloc_edge.cli.output import print_line

    bundle = Bundle.open(model)
    named = tuple(dict.fromkeys(backends))
    rows = [_test(bundle, backend, device, precision, bool(named)) for backend in named or BACKENDS]
    table = Table("backend", "state", "logits", "maps", "peaks, widths", "boxes, IoU", "ms", "")
    for row in rows:
        if quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
            print_line(json.dumps(row))
        found = row.get("deviation")
        cells = [f"{found[key]:.1e}" for key in ("logit", "value", "shift")] if found else ["-"] * 3
        cells += [f"{found['iou']:.4f}", f"{row['ms']:.0f}"] if found else ["-", "-"]
        words = row.get("message") or ", ".join(row.get("beyond", ()))
        table.add_row(row["backend"], Text(row["state"], STYLES[row["state"]]), *cells, Text(words))
        if row["state"] == "failed":
            reason = row.get("reason", "parity")
            click.echo(f"msloc-edge: [{reason}] {row['backend']}: {words or 'beyond the limits'}", err=True)
    if not quiet:
        people().print(f"{bundle.name} {bundle.version}", table, sep="\n")
    if any(row["state"] == "failed" for row in rows):
        sys.exit(1)


def _test(bundle: Bundle, backend: str, device: str | None, precision: str, asked_for: bool) -> dict[str, Any]:
    """The JSON line of one backend. One that is not installed, or lacks its GPU, fails only if it was asked for."""
    from msloc_edge import selftest
    from msloc_edge.pipeline import Localizer

    record: dict[str, Any] = {"schema": SCHEMA, "model": asdict(bundle.id), "backend": backend}
    try:
        golden = selftest.golden_of(bundle.manifest, bundle.name)
        with Localizer(bundle.path, backend, device, all_classes=True, precision=precision) as localizer:
            localizer.backend.wait()
            begin = time.perf_counter()
            deviation = selftest.compare(selftest.result(localizer), golden)
            ms = round((time.perf_counter() - begin) * 1e3, 3)
    except MslocError as error:
        absent = error.reason == "backend_missing" or (error.reason == "backend_device" and device is None)
        state = "absent" if absent and not asked_for else "failed"
        return record | {"state": state, "reason": error.reason, "message": error.message}
    state = "failed" if deviation.beyond else "passed"
    return record | {"state": state, "deviation": asdict(deviation), "beyond": list(deviation.beyond), "ms": ms}
