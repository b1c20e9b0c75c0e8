"""msloc-edge train: a run folder with checkpoints, and the bundle at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from pathlib import Path
from typing import Any, TypeVar

import click

from msloc_edge.cli.console import needing
from msloc_edge.train.recipe import model_options, read_recipe, resolve, resume_with, run_options

OPTIONS = model_options() | run_options()
FLAGS = ("data", "backbone", "stages_at", "size", "insert", "epochs", "batch", "lr", "init", "name", "seed", "workers")
"""Options that are flags, too; a recipe has them all."""

Command = TypeVar("Command", bound=Callable[..., None])


class _Train(click.Command):
    """The command, whose help ends with the options that only a recipe has."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        of_model = model_options()
        for section, rows in (
            ("Only in a recipe", {name: f for name, f in OPTIONS.items() if name not in (*FLAGS, *of_model)}),
            ("Only in its table [model]", {name: f for name, f in of_model.items() if name not in FLAGS}),
        ):
            with formatter.section(section):
                formatter.write_dl([(name, _help(f)) for name, f in rows.items()])


def _help(option: Field[Any]) -> str:
    """The meaning of an option and its default, if it has one."""
    meaning: str = option.metadata["help"]
    default = ", ".join(option.default) if isinstance(option.default, tuple) else option.default
    return meaning if default in (None, "") else f"{meaning}  [default: {str(default).lower()}]"


def _flags(command: Command) -> Command:
    """Add a flag for each of FLAGS. One that is not given is None, so that recipe and defaults have their say."""
    for name in reversed(FLAGS):
        default, choices = OPTIONS[name].default, OPTIONS[name].metadata["choices"]
        kind = click.Choice(choices) if choices else type(default) if isinstance(default, (int, float)) else str
        many = isinstance(default, tuple)
        command = click.option(f"--{name.replace('_', '-')}", type=kind, multiple=many, help=_help(OPTIONS[name]))(
            command
        )
    return command


@click.command("train", cls=_Train)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out after its last whole epoch.")
@click.option("--config", "recipe", type=click.Path(path_type=Path), help="Recipe (TOML); flags win over it.")
@_flags
def command(out: Path, resume: bool, recipe: Path | None, **given: Any) -> None:
    """Train a model from image-level labels.

    OUT gets config.json, history.csv, last.pt, best.pt and, at the end, the calibrated bundle in OUT/bundle. A run that
    was stopped goes on with --resume, as if it had not been.

    torchrun --nproc-per-node N -m msloc_edge train OPTIONS does the same on N GPUs.
    """
    with needing("training"):
        from msloc_edge.train import fit
        from msloc_edge.train.checkpoint import Run, model_name
        from msloc_edge.train.data import source_classes
    from msloc_edge.cli.export import tell_export, write_bundle

    flags = {name: value for name, value in given.items() if value not in (None, ())}
    table = read_recipe(recipe) if recipe else {}
    try:
        config = resume_with(Run(out).config(), table, flags) if resume else resolve(table, flags, source_classes)
    except ValueError as error:
        raise click.UsageError(f"{recipe} and the options: {error}" if recipe else str(error)) from error
    state = fit(config, out, resume)
    if state is not None:
        tell_export(*write_bundle(state, out / "bundle", name=model_name(state, out), version="0.1"))
