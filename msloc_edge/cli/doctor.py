"""msloc-edge doctor: what this machine can run, and what fixes what it cannot."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from msloc_edge.doctor import Report

STYLES = {"ok": "green", "absent": "dim", "warning": "yellow", "failing": "bold red"}


@click.command("doctor")
@click.option("--model", default=None, metavar="BUNDLE", help="A bundle to check beside the models that ship.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object (schema msloc-edge/doctor/2) on stdout.")
def command(model: str | None, as_json: bool) -> None:
    """Show what this machine can run, and what is in the way.

    Every line is ok, absent (optional, and not here), warning or failing, with the command that fixes it. Nothing is
    changed, nothing leaves the machine. Exit status 1 if a line is failing: the default way, a film on this
    machine's CPU, does not work.
    """
    from msloc_edge.doctor import examine

    report = examine(model)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        from msloc_edge.cli.console import people

        _show(report, people())
    if not report.ok:
        sys.exit(1)


def _show(report: Report, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for wrap in (False, False, False, True):
        table.add_column(no_wrap=not wrap, overflow="fold")
    group = ""
    for check in report.checks:
        status = Text(check.status, STYLES[check.status])
        table.add_row(Text("" if check.group == group else check.group), Text(check.name), status, Text(check.found))
        if check.fix:
            table.add_row("", "", "", Text(f"fix: {check.fix}", "cyan"))
        group = check.group
    console.print(table)
    counts = {status: sum(check.status == status for check in report.checks) for status in STYLES}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count), highlight=False)
