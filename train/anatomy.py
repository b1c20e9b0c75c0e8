"""Zones of a frontal film in which a finding can be: known from anatomy, without a box of any film.

Digital phantoms have an anatomy, and exact regions of their findings. Drawn over many of them, with a margin for how
real films differ in framing, these regions are a finding's *zone*. A finding without phantoms has the zone of all
others together: the thorax.

What training makes of it is multiple-instance learning (Dietterich et al. 1997): the cells of a class map outside the
zone are a bag that is negative on every film.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from msloc_edge.train.phantom import FINDINGS, generate

GRID = 64
"""Side of the zones, cells."""

FIRST_SEED, PHANTOMS = 5_000_000, 48
"""Phantoms that each zone is drawn from: seeds of their own."""

MARGIN = 0.03
"""Reach of a zone beyond what the phantoms show, as a share of the film. Their framing varies, too."""


@cache
def phantom_zones() -> dict[str, NDArray[np.bool_]]:
    """Finding -> its zone [GRID, GRID]."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(MARGIN * GRID) + 1,) * 2)
    zones = {}
    for n, label in enumerate(FINDINGS):
        shown = np.zeros((GRID, GRID), np.uint8)
        for seed in range(FIRST_SEED + n * PHANTOMS, FIRST_SEED + (n + 1) * PHANTOMS):
            for region in generate(seed, GRID, (label,)).regions:
                shown |= region.mask
        zones[label] = np.asarray(cv2.dilate(shown, kernel) > 0)
    return zones


def zones(classes: Sequence[str]) -> Tensor:
    """The zones of these findings, [K, GRID, GRID] float32 of 0 and 1."""
    known = phantom_zones()
    thorax = np.logical_or.reduce(list(known.values()))
    return torch.from_numpy(np.stack([np.asarray(known.get(label, thorax)) for label in classes])).float()


def outside(zones: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mark the cells of a class map [h, w] that lie wholly outside the zone: [K, h, w] float32 of 0 and 1."""
    return 1 - F.adaptive_max_pool2d(zones, grid)
