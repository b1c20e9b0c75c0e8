"""msloc-edge listen: films in over DICOM, their objects out to the nodes that want them."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msloc_edge.cli.console import needing

if TYPE_CHECKING:
    from msloc_edge.listen.config import ListenConfig

INSTALL = "pip install 'msloc-edge[listen]'"


@click.command("listen")
@click.argument("config_file", metavar="CONFIG", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--check", "action", flag_value="check", help="Check CONFIG, its certificates, its model.")
@click.option("--failed", "action", flag_value="failed", help="List what could not be delivered, as JSON Lines.")
@click.option("--retry", "action", flag_value="retry", help="Try all of that again.")
@click.option("--pull", "dates", metavar="DATES", help="Have the archive send films: 20260101-20260131, or one day.")
def command(config_file: Path, action: str | None, dates: str | None) -> None:
    """Receive films, localize them, send the results on; nothing that was acknowledged is lost.

    CONFIG is a TOML file: docs/listen.md lists its options, examples/deploy/listen.toml is one. The log goes to stdout
    as JSON Lines. SIGTERM ends the service, and its queue stays for the next start. --failed, --retry and --pull work
    beside the running service, which is sent what is pulled.
    """
    from msloc_edge.listen.config import read_config

    config = read_config(config_file)
    if action in ("failed", "retry"):
        _show_failed(config, retry=action == "retry")
        return
    if dates is not None:
        _pull(config, dates)
        return
    with needing("listen", INSTALL):
        from msloc_edge.listen.log import Log
        from msloc_edge.listen.service import Service, check

    if action == "check":
        check(config)
        click.echo(f"{config_file}: as it should be", err=True)
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Service(config, Log(sys.stdout)).run(stop)


def _show_failed(config: ListenConfig, retry: bool) -> None:
    """Print films and deliveries that were given up, a JSON line each; with `retry`, let them be tried again."""
    from msloc_edge.cli.output import print_line
    from msloc_edge.listen.spool import Spool

    with Spool(Path(config.spool)).open_journal() as journal:
        for item in journal.find(failed=True):
            where = {name: item.facts[name] for name in ("film", "object", "kind", "node") if name in item.facts}
            facts = {"reason": item.reason, "message": item.message, "attempts": item.attempts}
            print_line(json.dumps({**(where or {"film": item.name}), **facts}))
            if retry:
                journal.retry(item)


def _pull(config: ListenConfig, dates: str) -> None:
    """Have the archive send films to the running service; exit 1 where it could not send all."""
    with needing("listen", INSTALL):
        from msloc_edge.listen.log import Log, silence_libraries
        from msloc_edge.listen.pull import days_of, pull
    from msloc_edge.listen.spool import Spool

    if config.archive is None:
        raise click.UsageError("--pull needs a table [archive] in CONFIG, which names the archive")
    try:
        days = days_of(dates)
    except ValueError:
        raise click.UsageError(f"expected days such as 20260101-20260131, got {dates!r}") from None
    silence_libraries()
    with Spool(Path(config.spool)).open_journal() as journal:
        if pull(config, config.archive, days, journal, Log(sys.stdout)):
            sys.exit(1)
