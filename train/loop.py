"""The training loop: image-level labels in, a calibrated checkpoint out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msloc_edge.errors import TrainError
from msloc_edge.model import CamNet, build, load_weights
from msloc_edge.train.calibration.calibrate import calibrate, check_films
from msloc_edge.train.calibration.network import TorchNetwork
from msloc_edge.train.checkpoint import SCHEMA, Run, load_state, weights_file
from msloc_edge.train.config import TrainConfig
from msloc_edge.train.data import Films, excluded_names, real, training_films, validation_films
from msloc_edge.train.distributed import Ranks, ranks_of_environment
from msloc_edge.train.learner import Learner
from msloc_edge.train.loader import Insert, batch_indices, epoch_batches, epoch_films, film_names
from msloc_edge.train.logs import Journal
from msloc_edge.train.losses import balanced_weight, label_frequency
from msloc_edge.train.precision import reproducible
from msloc_edge.train.validate import pointing


def fit(config: TrainConfig, out: Path, resume: bool = False, quiet: bool = False) -> dict[str, Any] | None:
    """Train by `config` into the run folder `out` and return the calibrated state of its best epoch.

    With `resume` the run goes on after its last whole epoch, exactly as if it had not stopped. Of processes that
    torchrun started each trains on its part of every batch; the first returns the state, the others None. Raises
    TrainError when the folder holds another run, the weights of `init` do not fit, or the loss is not finite.
    """
    run = Run(out)
    with ranks_of_environment() as ranks, reproducible(config.deterministic):
        if ranks.first and not resume:
            run.start(config)
        resumed = load_state(run.last) if resume and run.last.exists() else None
        with Journal(run, quiet, ranks.first) as journal:
            net = _network(config, fresh=resumed is None).to(ranks.device)
            training, validation = _films(config, ranks, journal)
            lesions = _lesions(config, validation)
            _train(config, net, training, Judged(real(validation), lesions), run, resumed, ranks, journal)
            if not ranks.first:
                return None
            state = load_state(run.best)
            net = build(config.model).to(ranks.device)
            net.load_state_dict(state["model"])
            state |= calibrate(TorchNetwork(net), validation, lesions, config.batch, journal.progress)
            state["films"] = {source.source: len(source) for source in training}
            run.save(state, run.best)
            return state


class Judged(NamedTuple):
    """Films that an epoch is judged on: validation films, and such films with lesions whose place is known."""

    films: Sequence[Films]
    lesions: Films | None

    def pointing(self, net: CamNet, batch: int, first: bool) -> dict[str, float]:
        """Compute the column `lesion_pointing` of the history, on the first rank of a run that inserts lesions."""
        return {"lesion_pointing": round(pointing(net, self.lesions, batch), 4)} if self.lesions and first else {}


def _network(config: TrainConfig, fresh: bool) -> CamNet:
    torch.manual_seed(config.seed)
    net = build(config.model)
    if config.init and fresh:
        load_weights(net, weights_file(Path(config.init)))
    return net


def _films(config: TrainConfig, ranks: Ranks, journal: Journal) -> tuple[list[Films], list[Films]]:
    """Load the training and validation films of every source."""
    classes, size = config.model.classes, config.model.size
    with ranks.first_goes_ahead():
        excluded = excluded_names(config.exclude)
        training = training_films(config.data, classes, size, config.films, config.seed, journal.progress, excluded)
        validation = validation_films(config.data, classes, size, config.val_films, journal.progress, excluded)
    journal.problems([*training, *validation])
    for remark in check_films(validation):  # what the end of the run needs, before hours of training
        journal.say(remark)
    return training, validation


def _train(
    config: TrainConfig,
    net: CamNet,
    training: Sequence[Films],
    judged: Judged,
    run: Run,
    resumed: dict[str, Any] | None,
    ranks: Ranks,
    journal: Journal,
) -> None:
    """Train all epochs that are left; each is judged by the averaged weights, and saved."""
    count = epoch_films(training, config.per_source)
    batch = _batch_size(config.batch, count, ranks.world)
    frequency = label_frequency(training)
    if not net.head.bias.any():  # not where --init brought a head
        _start_at_prevalence(net, label_frequency(real(training)))
    weight = balanced_weight(frequency, config.balance).to(ranks.device)
    learner = Learner(net, config, ranks, weight, count // batch * config.epochs)
    first, best, stale = 0, -math.inf, 0
    if resumed is not None:
        learner.load_state_dict(resumed)
        first, best, stale = resumed["epoch"] + 1, resumed["best"], resumed["stale"]
    for epoch in range(first, config.epochs):
        if config.patience and stale >= config.patience:
            journal.say(f"no better AUROC in {stale} epochs at full size: stopped before epoch {epoch + 1}")
            break
        if config.resized_at(epoch):
            best = -math.inf  # what was learned on smaller films is no match at full size, whatever chance made of it
        started = time.perf_counter()
        lr = learner.lr
        loss = _train_epoch(config, epoch, batch, learner, training, ranks, journal)
        trained = time.perf_counter()
        averaged = learner.average.net
        checked = ranks.validate(averaged, judged.films, config.model.size, config.batch)
        score = checked.macro_auroc
        better = score >= best
        best = max(best, score)
        if better:
            stale = 0
        elif config.size_at(epoch) == config.model.size:
            stale += 1
        row = {
            "epoch": epoch + 1,
            "size": config.size_at(epoch),
            "lr": float(f"{lr:.4g}"),
            "loss": round(loss, 5),
            "val_loss": round(checked.loss, 5),
            "val_auroc": round(score, 5),
            **judged.pointing(averaged, config.batch, ranks.first),
            "films_per_second": round(count // batch * batch / (trained - started), 1),
            "seconds": round(time.perf_counter() - started, 1),
        }
        journal.epoch(row, checked, averaged, judged.films)
        if ranks.first:
            about = {"schema": SCHEMA, "config": config.to_dict(), "epoch": epoch, "best": best}
            if better:  # before `last`: a crash between the two repeats the epoch, and loses nothing
                run.save({**about, "model": averaged.state_dict()}, run.best)
            run.save({**about, "stale": stale, **learner.state_dict()}, run.last)


def _train_epoch(
    config: TrainConfig,
    epoch: int,
    batch: int,
    learner: Learner,
    training: Sequence[Films],
    ranks: Ranks,
    journal: Journal,
) -> float:
    """Pass once over the training films: the mean loss of all ranks."""
    torch.manual_seed(config.seed * 100_003 + epoch)  # no state of a generator goes from one epoch to the next
    if config.resized_at(epoch):
        learner.average.restart()
    groups = batch_indices(training, config.seed, epoch, batch, config.per_source)
    batches = epoch_batches(
        training,
        size=config.size_at(epoch),
        seed=config.seed,
        epoch=epoch,
        groups=groups,
        workers=config.workers,
        insert=_inserter(config),
        part=ranks.part,
        pin=ranks.device.type == "cuda",
    )
    title = f"epoch {epoch + 1}/{config.epochs}"
    losses: list[float] = []
    for loss in journal.steps(learner.epoch(batches, config.frozen_at(epoch)), title, len(groups), batch):
        if not math.isfinite(loss):
            names = ", ".join(film_names(training, ranks.part(groups[len(losses)])))
            raise TrainError(
                "loss_not_finite",
                f"the loss is {loss} in batch {len(losses) + 1} of epoch {epoch + 1}; try a lower --lr, or look at the "
                f"films of the batch: {names}",
            )
        losses.append(loss)
    return float(np.mean(ranks.gather(float(np.mean(losses)))))


def _batch_size(wanted: int, count: int, world: int) -> int:
    """Choose the films per step over all ranks: as wanted, or all films where they are fewer."""
    if wanted % world:
        raise TrainError(
            "option_invalid", f"expected a batch that {world} processes share evenly, got {wanted}; change --batch"
        )
    if count < world:
        raise TrainError("option_invalid", f"expected a film for each of {world} processes, got {count}; start fewer")
    return min(wanted, count // world * world)


def _inserter(config: TrainConfig) -> Insert | None:
    if not config.insert:
        return None
    from msloc_edge.train.lesions import Inserter

    return Inserter(config.model.classes, config.insert)


def _lesions(config: TrainConfig, validation: Sequence[Films]) -> Films | None:
    """Insert lesions into normal validation films where training does so: map thresholds are fitted on them."""
    if not config.insert:
        return None
    from msloc_edge.train.lesions.films import lesion_films

    return lesion_films(validation, config.model.classes, config.model.size // 2)


@torch.no_grad()
def _start_at_prevalence(net: CamNet, frequency: Tensor) -> None:
    """Begin with each class's frequency as its probability, so that the first epochs need not learn it."""
    net.head.bias.copy_(torch.logit(frequency))
