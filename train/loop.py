"""The training loop: image-level labels in, a calibrated checkpoint out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from msloc_edge.errors import TrainError
from msloc_edge.model import CamNet, build, load_backbone
from msloc_edge.train.calibrate import calibrate
from msloc_edge.train.checkpoint import SCHEMA, Run, load_state
from msloc_edge.train.config import TrainConfig
from msloc_edge.train.data import Films, training_films, validation_films
from msloc_edge.train.loader import epoch_batches
from msloc_edge.train.losses import balanced_weight, label_frequency, label_loss
from msloc_edge.train.validate import real, validate

HEAD_LR = 3.0
"""The head's learning rate over the backbone's: the map of a small finding, averaged over a film, has far to rise, and
a softmax over four relevance weights moves slowly."""

WARM_UP = 0.05
GRADIENT_NORM = 5.0
PROBLEMS_SHOWN = 5


def fit(config: TrainConfig, out: Path, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train by `config` into the run folder `out` and return the calibrated state of its best epoch.

    With `resume` the run goes on after its last whole epoch, exactly as if it had not stopped. Raises TrainError when
    the folder holds another run, the weights of `init` do not fit, or the loss is not finite.
    """
    run = Run(out)
    if not resume:
        run.start(config)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build(config.model)
    if config.init and not (resume and run.last.exists()):
        load_backbone(net, Path(config.init))
    net.to(device)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        classes, size = config.model.classes, config.model.size
        sources = training_films(config.data, classes, size, config.films, config.seed, progress)
        validation = validation_films(config.data, classes, size, config.val_films, progress)
        for source in [*sources, *validation]:
            _tell_problems(source, console)
        frequency = label_frequency(sources)
        weight = balanced_weight(frequency, config.balance).to(device)
        _start_at_prevalence(net, frequency)
        optimizer = _optimizer(net, config)
        count = sum(len(source) for source in sources)
        steps = max(1, count // min(config.batch, count))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _Schedule(steps * config.epochs))
        first, best = 0, -math.inf
        if resume and run.last.exists():
            state = load_state(run.last)
            net.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            first, best = state["epoch"] + 1, state["best"]
        for epoch in range(first, config.epochs):
            started = time.perf_counter()
            batches = epoch_batches(
                sources,
                size=config.size_at(epoch),
                seed=config.seed,
                epoch=epoch,
                batch=config.batch,
                workers=config.workers,
            )
            task = progress.add_task(f"epoch {epoch + 1}/{config.epochs}", total=steps)
            loss = float(np.mean([*_train_epoch(net, batches, weight, optimizer, schedule, device, progress, task)]))
            progress.remove_task(task)
            checked = validate(net, real(validation), size, config.batch)
            score = checked.macro_auroc
            row = {
                "epoch": epoch + 1,
                "size": config.size_at(epoch),
                "loss": round(loss, 5),
                "val_loss": round(checked.loss, 5),
                "val_auroc": round(score, 5),
                "seconds": round(time.perf_counter() - started, 1),
            }
            run.log(row)
            if not quiet:
                console.print("  ".join(f"{name} {value}" for name, value in row.items()), highlight=False)
            state = {
                "schema": SCHEMA,
                "config": config.to_dict(),
                "epoch": epoch,
                "best": max(best, score),
                "model": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            if score >= best:
                run.save(state, run.best)  # before `last`: a crash between the two repeats the epoch, and loses nothing
            run.save(state, run.last)
            best = max(best, score)
        state = load_state(run.best)
        net.load_state_dict(state["model"])
        state |= calibrate(net, validation, config.batch, progress)
        run.save(state, run.best)
        return state


class _Schedule:
    """Linear warm-up, then a half cosine to zero; a class, because a lambda cannot be saved."""

    def __init__(self, steps: int) -> None:
        self.steps, self.warm_up = steps, max(1, round(WARM_UP * steps))

    def __call__(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - self.warm_up) / max(1, self.steps - self.warm_up)))


def _tell_problems(source: Films, console: Console) -> None:
    if source.problems:
        shown = "".join(f"\n  {problem}" for problem in source.problems[:PROBLEMS_SHOWN])
        console.print(f"{source.source}: {len(source.problems)} left out:{shown}", markup=False, highlight=False)


@torch.no_grad()
def _start_at_prevalence(net: CamNet, frequency: Tensor) -> None:
    """Begin with each class's frequency as its probability, so that the first epochs need not learn it."""
    net.head.bias.copy_(torch.logit(frequency))


def _optimizer(net: CamNet, config: TrainConfig) -> torch.optim.AdamW:
    backbone = list(net.backbone.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in backbone if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in backbone if p.ndim < 2], "weight_decay": 0.0},
        {"params": list(net.head.parameters()), "weight_decay": 0.0, "lr": HEAD_LR * config.lr},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


def _train_epoch(
    net: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    weight: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    device: torch.device,
    progress: Progress,
    task: Any,
) -> Iterator[float]:
    net.train()
    for number, (images, labels) in enumerate(batches):
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        loss = label_loss(net(images).logits, labels.to(device), weight)
        if not torch.isfinite(loss):
            raise TrainError("loss_not_finite", f"the loss is {loss.item()} in batch {number}; try a lower --lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        progress.advance(task)
        yield loss.item()
