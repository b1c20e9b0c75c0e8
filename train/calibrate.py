"""Calibration of a trained network: temperature, score thresholds, map thresholds. No box is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import CamNet
from msloc_edge.train.data import Films, real
from msloc_edge.train.loader import resized
from msloc_edge.train.thresholds import fit_temperature, map_threshold, profiles
from msloc_edge.train.validate import validate

MAP_STRIDE = 4
"""Map thresholds are fitted on the grid of the finest stage, one cell per 4 x 4 input pixels."""

Maps = list[NDArray[np.float32]]


def calibrate(
    net: CamNet, sources: Sequence[Films], lesions: Films | None, batch: int, progress: Progress
) -> dict[str, Any]:
    """Fit temperature and threshold profiles of a trained network: plain values, for the bundle.

    sources  validation films; scores are fitted on the real ones where there are any
    lesions  real films of them with inserted lesions and their masks, if there are any

    A map threshold is where the map agrees best with the true masks of films that have them, inserted lesions before
    phantoms. The maps of real films have another height than those of phantoms: the threshold is scaled by the height
    of the real positives' maps over that of the phantoms'. A class without any mask takes the mean share of the height
    of those that have one. `calibration` tells which it was.

    Raises TrainError when a class has no film, or no film without it, or when no film has a mask.
    """
    judged = real(sources)
    checked = validate(net, judged, net.config.size, batch)
    temperature = fit_temperature(checked.logits, checked.labels)
    scores = 1 / (1 + np.exp(-checked.logits.astype(np.float64) / temperature))
    classes = net.config.classes
    count = sum(len(source) for source in sources)
    try:
        thresholds, overlap, rules = _map_thresholds(net, sources, lesions, judged, progress)
        table = profiles(scores, checked.labels, thresholds)
    except ValueError as error:
        raise TrainError(
            "data_missing", f"cannot calibrate on {count} films: {error}; add films or raise val_films"
        ) from error
    auroc = [None if np.isnan(value) else round(float(value), 4) for value in checked.auroc]
    return {
        "temperature": temperature,
        "profiles": table,
        "calibration": {
            "scores": f"{len(checked.labels)} validation films of {', '.join(source.source for source in judged)}",
            "maps": dict(zip(classes, rules, strict=True)),
        },
        "validation": {
            "films": len(checked.labels),
            "sources": [source.source for source in judged],
            "auroc": dict(zip(classes, auroc, strict=True)),
            "map_iou": {classes[k]: round(iou, 4) for k, iou in overlap.items()},
        },
    }


@dataclass(frozen=True, slots=True)
class MapFit:
    """A class's threshold, its mean IoU with the masks, and the median height of the maps of those films."""

    threshold: float
    iou: float
    height: float

    @property
    def share(self) -> float:
        return self.threshold / self.height


def _map_thresholds(
    net: CamNet, sources: Sequence[Films], lesions: Films | None, judged: Sequence[Films], progress: Progress
) -> tuple[list[float], dict[int, float], list[str]]:
    """Fit each class: the threshold, the mean IoU with the masks where there are some, and the rule."""
    count = len(net.config.classes)
    by_lesions = fit_to_masks(net, [lesions] if lesions else [], progress)
    by_masks = fit_to_masks(net, [source for source in sources if source.masks], progress)
    fits = by_masks | by_lesions
    if not fits:
        raise ValueError("expected validation films with masks, got none; add --data phantom or --insert")
    overlap = {k: fit.iou for k, fit in fits.items()}
    if all(source.masks for source in judged):
        if len(by_masks) < count:
            raise ValueError("expected at least one validation film with each finding")
        return [by_masks[k].threshold for k in range(count)], overlap, ["true masks of validation films"] * count
    usual = float(np.mean([fit.share for fit in fits.values()]))
    peaks = _peaks(net, judged, progress)
    if not all(peaks):
        raise ValueError("expected at least one validation film with each finding")
    thresholds, rules = [], []
    for k in range(count):
        height = float(np.median(peaks[k]))
        if k in by_lesions:
            thresholds.append(by_lesions[k].threshold)
            rules.append("lesions inserted into normal validation films")
        elif k in by_masks:
            thresholds.append(by_masks[k].share * height)
            rules.append("phantoms' masks, scaled to the height of the maps of real positives")
        else:
            thresholds.append(usual * height)
            rules.append("the other findings' share of the height of the maps of real positives")
    return thresholds, overlap, rules


def fit_to_masks(net: CamNet, sources: Sequence[Films], progress: Progress) -> dict[int, MapFit]:
    """Class index -> its map threshold, for the classes that some film has a mask of."""
    maps: dict[int, Maps] = defaultdict(list)
    masks: dict[int, list[NDArray[np.bool_]]] = defaultdict(list)
    for k, found, mask in _maps_with_masks(net, sources, progress):
        maps[k].append(found)
        masks[k].append(mask)
    return {
        k: MapFit(*map_threshold(maps[k], masks[k]), float(np.median([found.max() for found in maps[k]]))) for k in maps
    }


def _maps_with_masks(
    net: CamNet, sources: Sequence[Films], progress: Progress
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """(class, map, mask) of every finding with a mask, on the finest stage's grid."""
    classes, grid = net.config.classes, net.config.size // MAP_STRIDE
    for source, index, maps in _positive_maps(net, sources, progress):
        assert source.masks is not None
        for label, mask in source.masks(index).items():
            k = classes.index(label)
            shrunk = resized(mask.astype(np.uint8) * np.uint8(255), grid) > 127
            if k in maps and shrunk.any():
                yield k, maps[k], shrunk


def _peaks(net: CamNet, sources: Sequence[Films], progress: Progress) -> list[list[float]]:
    """The heights of the maps of each class's positive films."""
    peaks: list[list[float]] = [[] for _ in net.config.classes]
    for _, _, maps in _positive_maps(net, sources, progress):
        for k, found in maps.items():
            peaks[k].append(float(found.max()))
    return peaks


@torch.no_grad()
def _positive_maps(
    net: CamNet, sources: Sequence[Films], progress: Progress
) -> Iterator[tuple[Films, int, dict[int, NDArray[np.float32]]]]:
    """(source, index, class -> map on the finest stage's grid) of every film with a finding."""
    net.eval()
    size, device = net.config.size, net.head.bias.device
    grid = size // MAP_STRIDE
    task = progress.add_task("map thresholds", total=sum(len(source) for source in sources))
    for source in sources:
        for index, labels in enumerate(source.labels):
            progress.advance(task)
            present = np.flatnonzero(labels > 0.5)
            if present.size:
                film = resized(source.pixels[index], size).astype(np.float32) / 255
                cams = net(torch.from_numpy(film)[None, None].to(device)).cams
                maps = fuse_cams(cams, net.head.relevance, (grid, grid))[0].cpu().numpy()
                yield source, index, {int(k): maps[k] for k in present}
    progress.remove_task(task)
