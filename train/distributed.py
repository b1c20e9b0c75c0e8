"""Several processes that train one network, each on its part of every batch (started by torchrun)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msloc_edge.errors import TrainError
from msloc_edge.model import CamNet
from msloc_edge.train.data import Films
from msloc_edge.train.losses import label_loss
from msloc_edge.train.validate import Validation, validate

PATIENCE = timedelta(hours=3)
"""Wait of a rank for the others: the first decodes a collection's films while they wait."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `world` ones, and its device. One process alone is rank 0 of 1; nothing is sent then."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True for the process that writes files and talks."""
        return self.rank == 0

    def part(self, indices: list[int]) -> list[int]:
        """This rank's part of a batch: the ranks' parts, one after the other, are the batch."""
        size = len(indices) // self.world
        return indices[self.rank * size : (self.rank + 1) * size]

    def wrap(self, net: CamNet) -> nn.Module:
        """The network with gradients averaged over the ranks; to be wrapped again when other weights are frozen."""
        if self.world == 1:
            return net
        # Stages that the head does not use have parameters without a gradient.
        unused = net.first_stage > 0
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(net, device_ids=devices, find_unused_parameters=unused)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the ranks."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def copy_buffers(self, net: nn.Module) -> None:
        """Give every rank the first one's batch statistics, which only it may keep where they are not averaged."""
        if self.world > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, src=0)

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The others enter when the first rank has left: it fills caches that they then read."""
        if self.world > 1 and not self.first:
            dist.barrier()
        yield
        if self.world > 1 and self.first:
            dist.barrier()

    def validate(self, net: CamNet, sources: Sequence[Films], size: int, batch: int) -> Validation:
        """`validate.validate` with the films parted among the ranks: every rank gets the figures of all films."""
        if self.world == 1:
            return validate(net, sources, size, batch)
        self.copy_buffers(net)
        parts = [every(source, self.rank, self.world) for source in sources]
        kept = [part for part in parts if len(part)]
        done = validate(net, kept, size, batch) if kept else None
        width = len(net.config.classes)
        logits = done.logits if done else np.empty((0, width), np.float32)
        whole = _interleaved(self.gather(logits), [len(source) for source in sources])
        labels = np.concatenate([source.labels for source in sources])
        loss = label_loss(torch.from_numpy(whole), torch.from_numpy(labels))
        return Validation(whole, labels, float(loss))


@contextmanager
def ranks_of_environment() -> Iterator[Ranks]:
    """The ranks that torchrun started, connected by nccl on CUDA and by gloo elsewhere; or this process alone."""
    rank, world, local = (
        int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    cuda = torch.cuda.is_available()
    if cuda and world > 1 and local >= torch.cuda.device_count():
        raise TrainError(
            "option_invalid", f"expected a GPU for each process, got {torch.cuda.device_count()}; start fewer"
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank, world, device)
    finally:
        if world > 1:
            dist.destroy_process_group()


def every(source: Films, rank: int, world: int) -> Films:
    """The films rank, rank + world, rank + 2 world .. of a source, without its masks."""
    step = slice(rank, None, world)
    return replace(
        source,
        pixels=source.pixels[step],
        labels=source.labels[step],
        names=source.names[step],
        patients=source.patients[step],
        masks=None,
    )


def _interleaved(parts: Sequence[NDArray[np.float32]], lengths: Sequence[int]) -> NDArray[np.float32]:
    """Rows of `every` rank's films, source after source, back in the order of the films: lengths are the sources'."""
    world = len(parts)
    whole = np.empty((sum(lengths), parts[0].shape[1]), np.float32)
    used, start = [0] * world, 0
    for length in lengths:
        for rank, part in enumerate(parts):
            count = len(range(rank, length, world))
            whole[start + rank : start + length : world] = part[used[rank] : used[rank] + count]
            used[rank] += count
        start += length
    return whole
