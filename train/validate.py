"""Validation: a network over films that it does not train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msloc_edge._statistics import auroc
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import CamNet
from msloc_edge.train.data import Films
from msloc_edge.train.loader import plain_batches
from msloc_edge.train.losses import label_loss


@dataclass(frozen=True, slots=True)
class Validation:
    """Logits and labels [N, K] of N films, labels nan where unknown, and the mean loss."""

    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    loss: float

    @property
    def auroc(self) -> NDArray[np.float64]:
        """Area under the ROC curve per class [K]; nan for a class with one kind of film only."""
        known = ~np.isnan(self.labels)
        columns = zip(self.logits.T.astype(float), self.labels.T == 1, known.T, strict=True)
        return np.concatenate([auroc(z[some], positive[some]) for z, positive, some in columns])

    @property
    def macro_auroc(self) -> float:
        """Mean over the classes that have an AUROC; 0 when none has."""
        found = self.auroc
        return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0


@torch.no_grad()
def validate(net: CamNet, sources: Sequence[Films], size: int, batch: int) -> Validation:
    """Run a network over all films at `size` pixels, not augmented."""
    net.eval()
    device = net.head.bias.device
    logits, labels = [], []
    for source in sources:
        for images, targets in plain_batches(source, size, batch):
            logits.append(net(images.to(device).contiguous(memory_format=torch.channels_last)).logits.float().cpu())
            labels.append(targets)
    z, y = torch.cat(logits), torch.cat(labels)
    return Validation(z.numpy(), y.numpy(), float(label_loss(z, y)))


@torch.no_grad()
def pointing(net: CamNet, films: Films, batch: int) -> float:
    """Compute the share of the true regions of `films` that hold the peak of their class's map.

    A peak is the centre of the highest cell on the finest stage's grid. `films` have masks.
    """
    assert films.masks is not None
    net.eval()
    size, device = net.config.size, net.head.bias.device
    hits: list[bool] = []
    index = 0
    for images, _ in plain_batches(films, size, batch):
        cams = net(images.to(device).contiguous(memory_format=torch.channels_last)).cams
        grid = cams[0].shape[-1]
        for maps in fuse_cams(cams, net.head.relevance, (grid, grid)).cpu().numpy():
            for label, mask in films.masks(index).items():
                row, column = divmod(int(maps[net.config.classes.index(label)].argmax()), grid)
                y, x = ((at + 0.5) * films.side / grid for at in (row, column))
                hits.append(bool(mask[int(y), int(x)]))
            index += 1
    return float(np.mean(hits))
