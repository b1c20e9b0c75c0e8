"""msloc-edge train: a run folder with checkpoints, and the bundle at its end."""

from __future__ import annotations

from pathlib import Path

import click

from msloc_edge.errors import BackendError

NEEDS = "pip install 'msloc-edge[train,export]'"


@click.command("train")
@click.option(
    "--data", multiple=True, default=["phantom"], show_default=True, help="phantom, nih:DIR or csv:FILE; repeatable."
)
@click.option("--backbone", type=click.Choice(["edge", "densenet121"]), default="edge", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out after its last whole epoch.")
@click.option(
    "--init", type=click.Path(path_type=Path), help="Backbone weights: torchvision, CheXNet-style, or our own."
)
@click.option("--size", type=int, default=256, show_default=True, help="Input size in pixels, a multiple of 32.")
@click.option("--pool", type=click.Choice(["avg", "lse", "pcam"]), default="avg", show_default=True)
@click.option("--stages", type=click.Choice(["all", "last"]), default="all", show_default=True)
@click.option("--films", type=click.IntRange(1), default=4000, show_default=True, help="Training phantoms.")
@click.option("--val-films", type=click.IntRange(1), default=600, show_default=True, help="Validation phantoms.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=2e-3, show_default=True)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.02, show_default=True)
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="A positive label weighs (negatives / positives) to this power.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Threads that load films.")
@click.option(
    "--progressive/--no-progressive", default=True, show_default=True, help="Early epochs on smaller films (faster)."
)
def command(
    data: tuple[str, ...],
    backbone: str,
    out: Path,
    resume: bool,
    init: Path | None,
    size: int,
    pool: str,
    stages: str,
    films: int,
    val_films: int,
    epochs: int,
    batch: int,
    lr: float,
    weight_decay: float,
    balance: float,
    seed: int,
    workers: int,
    progressive: bool,
) -> None:
    """Train a model from image-level labels.

    OUT gets config.json, history.csv, last.pt, best.pt and, at the end, the calibrated bundle in OUT/bundle. A run that
    was stopped goes on with --resume, as if it had not been.
    """
    try:
        from msloc_edge.model import ModelConfig
        from msloc_edge.train import TrainConfig, fit
        from msloc_edge.train.checkpoint import Run
        from msloc_edge.train.data import source_classes
    except ImportError as error:
        raise BackendError("backend_missing", f"training needs {error.name}; install it with: {NEEDS}") from error
    from msloc_edge.cli.export import write_bundle

    try:
        model = ModelConfig(source_classes(data), backbone, size, pool, stages)
        config = TrainConfig(
            model,
            data=data,
            films=films,
            val_films=val_films,
            epochs=epochs,
            batch=batch,
            lr=lr,
            weight_decay=weight_decay,
            balance=balance,
            seed=seed,
            workers=workers,
            progressive=progressive,
            init=str(init) if init else None,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if resume:
        config = Run(out).config()
    state = fit(config, out, resume)
    write_bundle(state, out / "bundle", name=f"cxr-{config.model.backbone}", version="0.1")
