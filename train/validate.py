"""A network over validation films: its figures, and the calibration that goes into the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from msloc_edge.errors import TrainError
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import CamNet
from msloc_edge.train.films import PhantomFilms
from msloc_edge.train.loader import plain_batches
from msloc_edge.train.thresholds import fit_temperature, map_threshold, profiles

MAP_STRIDE = 4
"""Map thresholds are fitted on the grid of the finest stage, one cell per 4 x 4 input pixels."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Logits and labels [N, K] of N films, and the mean loss."""

    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    loss: float

    @property
    def auroc(self) -> NDArray[np.float64]:
        """Area under the ROC curve per class [K]; nan for a class with one kind of film only."""
        columns = zip(self.labels.T, self.logits.T, strict=True)
        return np.array([roc_auc_score(y, z) if 0 < y.sum() < len(y) else np.nan for y, z in columns])

    @property
    def macro_auroc(self) -> float:
        """The mean over the classes that have an AUROC; 0 when none has."""
        auroc = self.auroc
        return float(auroc[np.isfinite(auroc)].mean()) if np.isfinite(auroc).any() else 0.0


@torch.no_grad()
def validate(net: CamNet, films: PhantomFilms, batch: int) -> Validation:
    """Logits of all films, not augmented."""
    net.eval()
    device = net.head.bias.device
    logits, labels = [], []
    for images, targets in plain_batches(films, batch):
        logits.append(net(images.to(device).contiguous(memory_format=torch.channels_last)).logits.cpu())
        labels.append(targets)
    z, y = torch.cat(logits), torch.cat(labels)
    return Validation(z.numpy(), y.numpy(), float(F.binary_cross_entropy_with_logits(z, y)))


def calibrate(net: CamNet, films: PhantomFilms, batch: int, progress: Progress) -> dict[str, Any]:
    """Temperature, threshold profiles and validation figures of a trained network: plain values, for the bundle.

    Raises TrainError when a class has no film, or no film without it.
    """
    checked = validate(net, films, batch)
    temperature = fit_temperature(checked.logits, checked.labels)
    scores = 1 / (1 + np.exp(-checked.logits.astype(np.float64) / temperature))
    maps: list[list[NDArray[np.float32]]] = [[] for _ in films.classes]
    masks: list[list[NDArray[np.bool_]]] = [[] for _ in films.classes]
    for k, localization_map, mask in _positive_maps(net, films, progress):
        maps[k].append(localization_map)
        masks[k].append(mask)
    try:
        fitted = [map_threshold(*pair) for pair in zip(maps, masks, strict=True)]
        table = profiles(scores, checked.labels, [threshold for threshold, _ in fitted])
    except ValueError as error:
        raise TrainError(
            "calibration", f"cannot calibrate on {len(films)} films: {error}; raise --val-films"
        ) from error
    return {
        "temperature": temperature,
        "profiles": table,
        "validation": {
            "films": len(films),
            "auroc": dict(zip(films.classes, np.round(checked.auroc, 4).tolist(), strict=True)),
            "map_iou": {name: round(iou, 4) for name, (_, iou) in zip(films.classes, fitted, strict=True)},
        },
    }


@torch.no_grad()
def _positive_maps(
    net: CamNet, films: PhantomFilms, progress: Progress
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """(class, map, mask) of every finding in the films, on the finest stage's grid."""
    net.eval()
    device, grid = net.head.bias.device, films.size // MAP_STRIDE
    task = progress.add_task("map thresholds", total=len(films))
    for index, labels in enumerate(films.labels):
        progress.advance(task)
        present = np.flatnonzero(labels > 0.5)
        if not present.size:
            continue
        image = torch.from_numpy(np.array(films.pixels[index], np.float32) / 255)[None, None].to(device)
        maps = fuse_cams(net(image).cams, net.head.relevance, (grid, grid))[0].cpu().numpy()
        masks = films.masks(index).reshape(-1, grid, MAP_STRIDE, grid, MAP_STRIDE).mean((2, 4)) >= 0.5
        for k in present:
            if masks[k].any():
                yield int(k), maps[k], masks[k]
    progress.remove_task(task)
