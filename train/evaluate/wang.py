"""The localization protocol of Wang et al. 2017 (ChestX-ray8, CVPR), and their tables.

A map is scaled to [0, 255] by its own minimum and maximum and thresholded by 60 and by 180, "individually": the boxes
around the isolated regions of both binary maps are pooled, and a box that both give counts once. A true box is hit
when any box has IoU (or IoBB = intersection / detected box) above T. The accuracy is over the class's boxes.

AFP is the number of detected boxes that match no true box, over the number of all evaluated boxes of every class (984
on the full release). Detected boxes are those of the class's maps on the films with a box of that class. The paper
does not say so, but no other reading fits its table: on every film each map, stretched to [0, 255], has at least one
box, so that Cardiomegaly, on 146 of the 880 films, could not have an AFP below (880 - 146) / 984 = 0.75; it has 0.35.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps import regions
from msloc_edge.maps.boxes import Boxes, as_boxes
from msloc_edge.train.data.nih import CHESTXRAY8

LEVELS = (60, 180)
IOU_T = (0.1, 0.3, 0.5, 0.7)
IOBB_T = (0.1, 0.25, 0.5, 0.75, 0.9)

PUBLISHED = {
    "iobb": {
        "0.1": {
            "accuracy": (0.7277, 0.9931, 0.7124, 0.7886, 0.4352, 0.1645, 0.7500, 0.4591),
            "afp": (0.8323, 0.3506, 0.7998, 0.5589, 0.6423, 0.6047, 0.9055, 0.4776),
        },
        "0.25": {"accuracy": (0.5500, 0.9794, 0.5424, 0.5772, 0.2823, 0.0506, 0.5583, 0.3469)},
        "0.5": {"accuracy": (0.2833, 0.8767, 0.3333, 0.4227, 0.1411, 0.0126, 0.3833, 0.1836)},
    },
    "iou": {
        "0.1": {"accuracy": (0.6888, 0.9383, 0.6601, 0.7073, 0.4000, 0.1392, 0.6333, 0.3775)},
        "0.3": {"accuracy": (0.2444, 0.4589, 0.3006, 0.2764, 0.1529, 0.0379, 0.1666, 0.1326)},
        "0.5": {"accuracy": (0.0500, 0.1780, 0.1111, 0.0650, 0.0117, 0.0126, 0.0333, 0.0306)},
    },
}
"""Figures that Wang et al. 2017 report, in the order of CHESTXRAY8."""


def published(overlap: str, threshold: str, figure: str) -> dict[str, float]:
    """Label -> the published value; empty where the table has none. "iou"|"iobb", T as text, "accuracy"|"afp"."""
    values = PUBLISHED[overlap].get(threshold, {}).get(figure)
    return dict(zip(CHESTXRAY8, values, strict=True)) if values else {}


def detected_boxes(map: NDArray[np.float32]) -> Boxes:
    """Find the boxes [N, 4] of a map [h, w] by the protocol, in its pixels; none where the map is constant."""
    low, high = float(map.min()), float(map.max())
    if not high > low:
        return as_boxes([])
    found = {region.box for level in LEVELS for region in regions(map, low + (high - low) * level / 255)}
    return as_boxes(sorted(found))


def count_hits(overlap: Boxes, thresholds: tuple[float, ...]) -> tuple[Boxes, Boxes]:
    """Count the true boxes that are hit and the detected boxes that match none, both [T], from overlaps [N, M]."""
    if not len(overlap):
        return np.zeros(len(thresholds)), np.zeros(len(thresholds))
    above = overlap[None] > np.array(thresholds)[:, None, None]
    return above.any(axis=1).sum(axis=1).astype(float), (~above.any(axis=2)).sum(axis=1).astype(float)
