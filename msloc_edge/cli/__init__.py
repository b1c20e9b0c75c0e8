"""The command line. Each command lives in a module of its own, which is imported when the command is used."""

from __future__ import annotations

import importlib
import os
import signal
import sys

import click

from msloc_edge import __version__
from msloc_edge.errors import MslocError

COMMANDS = {
    "infer": "Localize findings on chest films.",
    "score": "Score an archive of films into a dataset in Parquet.",
    "listen": "Receive films over DICOM, localize them, send the results on.",
    "train": "Train a model from image-level labels.",
    "calibrate": "Fit a model's thresholds on your own films, without training.",
    "eval": "Score a model, or a folder of heatmaps, against labels and boxes.",
    "export": "Turn a run into a bundle, a bundle into what an engine runs.",
    "selftest": "Compare the engines on this machine with the model's golden result.",
    "bench": "Measure latency and throughput on this machine.",
    "models": "List, look into, verify, sign, add and remove models.",
    "doctor": "Show what this machine can run, and what is in the way.",
}

INTERRUPTED = 130


class _Commands(click.Group):
    """Commands by name; help needs their summaries only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"msloc_edge.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="msloc-edge")
def group() -> None:
    """Localize findings on chest X-rays, where the X-ray is taken.

    Data goes to stdout as JSON Lines, words for people to stderr. Exit status: 0 all done, 1 something failed and is
    named with its reason, 2 wrong usage, 130 interrupted. MSLOC_TRACEBACK=1 shows the traceback of an error.
    """


def main() -> None:
    """The entry point: every error becomes one sentence and an exit status."""
    try:
        sys.exit(group.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more while Python shuts down: ends at once, silently
        click.echo("msloc-edge: interrupted; what was finished is whole", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("MSLOC_TRACEBACK"):
            raise
        click.echo(f"msloc-edge: {describe(error)}", err=True)
        sys.exit(1)


def describe(error: Exception) -> str:
    """Word an error in one line: the reason code of an expected one, or the kind of an unexpected one."""
    if isinstance(error, MslocError):
        return f"[{error.reason}] {error.message}"
    return (
        f"[internal_error] unexpected {type(error).__name__}: {error} (MSLOC_TRACEBACK=1 shows where; please report it)"
    )
