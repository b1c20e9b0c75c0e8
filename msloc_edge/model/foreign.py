"""A backbone of somebody else's code, for our head: its stages are the outputs of modules that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msloc_edge.errors import TrainError
from msloc_edge.model.densenet import IMAGENET_RGB
from msloc_edge.model.factory import input_channels, make_network


class ForeignBackbone(nn.Module):
    """[B, 1, H, W], grey normalised by `grey` -> S stages [B, C_s, h_s, w_s], as the network gives them.

    A network that reads three channels gets the grey one in each, normalised as ImageNet's.

    channels, strides  of each stage, found by a run at `size` pixels

    Raises TrainError (option_invalid) for modules that are not there, or whose outputs are no maps that get coarser.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, factory: str, stages_at: Sequence[str], size: int, grey: tuple[float, float]) -> None:
        super().__init__()
        self.network = make_network(factory)
        self.stages_at = tuple(stages_at)
        self.inputs = input_channels(self.network)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET_RGB)
        self.register_buffer("scale", grey[1] / std, persistent=False)
        self.register_buffer("offset", (grey[0] - mean) / std, persistent=False)
        known = [name for name, _ in self.network.named_children()]
        for name in self.stages_at:
            try:
                self.network.get_submodule(name)
            except AttributeError as error:
                raise TrainError(
                    "option_invalid", f"{factory} has no module {name!r}; the outermost are {', '.join(known)}"
                ) from error
        if not self.stages_at:
            raise TrainError("option_invalid", f"{factory}: expected stages_at to name modules, as {', '.join(known)}")
        self.channels, self.strides = self._look(factory, size)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found: dict[str, Tensor] = {}
        # Hooks for this run alone: those that stay would be the same ones in every copy of the network.
        hooks = [
            self.network.get_submodule(name).register_forward_hook(partial(_note, found, name))
            for name in self.stages_at
        ]
        try:
            self.network(x * self.scale + self.offset if self.inputs == 3 else x)
        finally:
            for hook in hooks:
                hook.remove()
        return tuple(found[name] for name in self.stages_at)

    @torch.no_grad()
    def _look(self, factory: str, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        training = self.network.training
        try:
            stages = self.eval()(torch.zeros(1, 1, size, size))
        except Exception as error:  # somebody else's code
            raise TrainError("option_invalid", f"{factory} fails on {size} x {size} pixels: {error}") from error
        self.train(training)
        shapes = [tuple(stage.shape) for stage in stages]
        strides = tuple(size // shape[2] if len(shape) == 4 else 0 for shape in shapes)
        fits = all(
            s and shape[2:] == (size // s, size // s) and not size % s for s, shape in zip(strides, shapes, strict=True)
        )
        if not fits or sorted(set(strides)) != list(strides):
            raise TrainError(
                "option_invalid",
                f"{factory}: expected stages_at to give maps [B, C, h, w], shallow to deep, whose grids divide {size} "
                f"pixels, got {shapes}",
            )
        return tuple(shape[1] for shape in shapes), strides


class StageNorms(nn.ModuleList):
    """Normalise and rectify each stage, so that class maps share one scale: S tensors [B, C_s, h_s, w_s] both."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(nn.BatchNorm2d(c) for c in channels)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(F.relu(norm(stage)) for norm, stage in zip(self, stages, strict=True))


def _note(found: dict[str, Tensor], name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
    found[name] = output
