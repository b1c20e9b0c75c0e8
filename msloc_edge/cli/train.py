"""msloc-edge train: a run folder with checkpoints, and the bundle at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from msloc_edge.errors import BackendError
from msloc_edge.train.choices import Choice, choices, read_recipe, resolve, resume_with

NEEDS = "pip install 'msloc-edge[train,export]'"

Command = TypeVar("Command", bound=Callable[..., None])


def _chosen(command: Command) -> Command:
    """An option for each choice of a run; one that is not given is None, so that recipe and defaults have their say."""
    for choice in reversed(choices()):
        command = _option(choice)(command)
    return command


def _option(choice: Choice) -> Callable[[Command], Command]:
    flag = f"--{choice.name.replace('_', '-')}"
    shown = choice.default not in (None, ())
    many = isinstance(choice.default, tuple)
    if isinstance(choice.default, bool):
        return click.option(f"{flag}/--no{flag[1:]}", default=None, help=f"{choice.help}  [default: {choice.default}]")
    return click.option(
        flag,
        type=click.Choice(choice.allowed) if choice.allowed else _TYPES.get(choice.type, str),
        multiple=many,
        help=choice.help + f"  [default: {', '.join(choice.default) if many else choice.default}]" * shown,
    )


def number_or_word(text: str) -> int | str:
    """The value of an option that takes either."""
    return int(text) if text.isdecimal() else text


_TYPES: Mapping[Any, Any] = {int: int, float: float, int | str: number_or_word}


@click.command("train")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out after its last whole epoch.")
@click.option("--config", "recipe", type=click.Path(path_type=Path), help="Recipe (TOML); flags win over it.")
@_chosen
def command(out: Path, resume: bool, recipe: Path | None, **chosen: Any) -> None:
    """Train a model from image-level labels.

    OUT gets config.json, history.csv, last.pt, best.pt and, at the end, the calibrated bundle in OUT/bundle. A run that
    was stopped goes on with --resume, as if it had not been.

    torchrun --nproc-per-node N -m msloc_edge.train OPTIONS does the same on N GPUs.
    """
    try:
        from msloc_edge.train import fit
        from msloc_edge.train.checkpoint import Run
        from msloc_edge.train.data import source_classes
    except ImportError as error:
        raise BackendError("backend_missing", f"training needs {error.name}; install it with: {NEEDS}") from error
    from msloc_edge.cli.export import write_bundle

    flags = {name: value for name, value in chosen.items() if value not in (None, ())}
    table = read_recipe(recipe) if recipe else {}
    try:
        config = resume_with(Run(out).config(), table, flags) if resume else resolve(table, flags, source_classes)
    except ValueError as error:
        raise click.UsageError(f"{recipe} and the options: {error}" if recipe else str(error)) from error
    state = fit(config, out, resume)
    if state is not None:
        write_bundle(state, out / "bundle", name=f"cxr-{config.model.backbone}", version="0.1")
