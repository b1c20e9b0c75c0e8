"""A network while it learns: weights, their average, optimizer, schedule, and the step that moves them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msloc_edge.model import CamNet
from msloc_edge.train.anatomy import outside, zones
from msloc_edge.train.config import TrainConfig
from msloc_edge.train.distributed import Ranks
from msloc_edge.train.ema import WeightAverage
from msloc_edge.train.loader import Batch
from msloc_edge.train.losses import label_loss
from msloc_edge.train.precision import autocast_type
from msloc_edge.train.schedule import WarmUpCosine, adamw

GRADIENT_NORM = 5.0


class Learner:
    """A network on its device, trained by `config` for `steps` steps; positive_weight [K] as in label_loss."""

    def __init__(self, net: CamNet, config: TrainConfig, ranks: Ranks, positive_weight: Tensor, steps: int) -> None:
        self.net, self.ranks, self.positive_weight = net, ranks, positive_weight
        self.stage_loss, self.anatomy_loss = config.stage_loss, config.anatomy_loss
        self.zones = zones(config.model.classes).to(ranks.device) if config.anatomy_loss else None
        self.average = WeightAverage(net, config.ema)
        if ranks.world > 1 and ranks.device.type == "cuda":
            # In place: the parameters stay the same objects.
            nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        self.optimizer = adamw(net, config.lr, config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, WarmUpCosine(steps))
        self.arithmetic = autocast_type(config.precision, ranks.device)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.arithmetic is torch.float16)
        if config.compile:
            net.compile()
        self._wrapped: tuple[bool, nn.Module] | None = None

    @property
    def lr(self) -> float:
        """The backbone's learning rate in the next step."""
        return float(self.schedule.get_last_lr()[0])

    def epoch(self, batches: Iterable[Batch], frozen: bool) -> Iterator[float]:
        """Yield the loss of each batch, on this rank's films; with `frozen` the backbone stays as it is.

        A loss is looked at when the next step has been started, so that a GPU never waits for it.
        """
        net = self._network(frozen)
        before: Tensor | None = None
        for batch in batches:
            loss = self._step(net, batch)
            if before is not None:
                yield before.item()
            before = loss
        if before is not None:
            yield before.item()

    def _network(self, frozen: bool) -> nn.Module:
        if self._wrapped is None or self._wrapped[0] != frozen:
            self.net.backbone.requires_grad_(not frozen)
            self._wrapped = frozen, self.ranks.wrap(self.net)
        self._wrapped[1].train()
        if frozen:
            self.net.backbone.eval()  # its batch statistics stay, too
        return self._wrapped[1]

    def _step(self, net: nn.Module, batch: Batch) -> Tensor:
        device = self.ranks.device
        images, labels, prior = (part.to(device, non_blocking=True) for part in batch)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, self.arithmetic, enabled=self.arithmetic is not torch.float32):
            _, cams = net(images)
        head, cams = self.net.head, [cam.float() for cam in cams]
        loss = self._loss(head.pooled(cams), head.bias + prior, labels)
        if self.zones is not None:
            # Nothing is ever there, so every film's label of these cells is 0. It is the maps that shall learn it.
            elsewhere = head.pooled(cams, [outside(self.zones, cam.shape[2:]) for cam in cams])
            loss = loss + self.anatomy_loss * self._loss(elsewhere, head.bias.detach(), torch.zeros_like(labels))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.average.update(self.net)
        return loss.detach()

    def _loss(self, pooled: Sequence[Tensor], bias: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of the logit that the stages' pooled maps and a bias give, and of each stage's own."""
        # Divided by the mean count of the ranks, so that the mean of their gradients is that of the joint batch.
        known = self.ranks.total((~labels.isnan()).sum()) / self.ranks.world
        loss = label_loss(self.net.head.logits(pooled, bias), labels, self.positive_weight, known)
        if self.stage_loss:
            share = self.stage_loss / len(pooled)
            for stage in pooled:
                loss = loss + share * label_loss(bias + stage, labels, self.positive_weight, known)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Collect all that the next epoch depends on; `model` are the weights themselves, `average` their average."""
        return {
            "model": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict gave."""
        self.net.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
