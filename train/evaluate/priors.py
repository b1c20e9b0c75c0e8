"""Maps that know nothing of the film: what a method has to beat.

    random          noise on a 16 x 16 grid, enlarged as class maps are, seeded by film and finding
    centre_prior    a Gaussian in the middle of the film, its deviation a quarter of the side
    class_mean_box  the mean true box of the finding, position and size
    box_frequency   how many true boxes of the finding cover each place

The last two are taken from the true boxes of all other patients (leave one patient out), so that none is fitted on the
box that it is scored on. They still know the boxes of the test films, which no trained model here does.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.maps.boxes import Boxes, as_boxes
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.truth import Truth

SIDE = 256
"""Priors are drawn on a square grid over the film, whatever its shape: overlaps do not depend on it."""

ROWS = ("random", "centre_prior", "class_mean_box", "box_frequency")
_NOISE, _BINS = 16, 64


class Priors:
    """The prior maps of every film with boxes.

    patients  film name -> patient
    """

    def __init__(self, truth: Truth, patients: Mapping[str, str], seed: int = 0) -> None:
        self._seed, self._patients = seed, patients
        self._boxes: dict[str, Boxes] = {}  # label -> [N, 4] as shares of the film
        self._owners: dict[str, NDArray[np.str_]] = {}
        for label in truth.labels:
            rows = [
                (np.array(region.box) / np.tile(truth.sizes[film][::-1], 2), patients[film])
                for film, found in truth.regions.items()
                for region in found.get(label, ())
            ]
            self._boxes[label] = as_boxes([box for box, _ in rows])
            self._owners[label] = np.array([owner for _, owner in rows])
        self._centre = Evidence.half_range(_centre())

    def evidence(self, film: str, label: str) -> dict[str, Evidence]:
        """Row -> its map [256, 256]; without the last two where no other patient has a box of the finding."""
        found = {"random": Evidence.half_range(self._random(film, label)), "centre_prior": self._centre}
        others = self._boxes[label][self._owners[label] != self._patients[film]]
        if len(others):
            found["class_mean_box"] = Evidence.half_range(box_map(others.mean(axis=0)))
            found["box_frequency"] = Evidence.half_range(frequency_map(others))
        return found

    def _random(self, film: str, label: str) -> NDArray[np.float32]:
        rng = np.random.default_rng([self._seed, zlib.crc32(f"{film}\n{label}".encode())])
        return _enlarge(rng.random((_NOISE, _NOISE), np.float32))


def box_map(box: NDArray[np.float64]) -> NDArray[np.float32]:
    """[256, 256]: 1 within a box (shares of the film) and 0 outside; a faint slope puts the peak at its centre."""
    across, down = (np.arange(SIDE) + 0.5) / SIDE, (np.arange(SIDE) + 0.5) / SIDE
    x = np.abs(across - box[0] - box[2] / 2) / max(box[2] / 2, 0.5 / SIDE)
    y = np.abs(down - box[1] - box[3] / 2) / max(box[3] / 2, 0.5 / SIDE)
    away = np.maximum(x[None], y[:, None])
    return np.where(away <= 1, 1 - 1e-3 * away, 0).astype(np.float32)


def frequency_map(boxes: Boxes) -> NDArray[np.float32]:
    """[256, 256]: the number of boxes [N, 4] (shares of the film) over each cell of a 64 x 64 grid, enlarged."""
    centres = (np.arange(_BINS) + 0.5) / _BINS
    x = (boxes[:, :1] <= centres) & (centres < boxes[:, :1] + boxes[:, 2:3])
    y = (boxes[:, 1:2] <= centres) & (centres < boxes[:, 1:2] + boxes[:, 3:])
    return _enlarge(y.astype(np.float32).T @ x.astype(np.float32))


def _centre() -> NDArray[np.float32]:
    line = np.exp(-(((np.arange(SIDE) + 0.5) / SIDE - 0.5) ** 2) / (2 * 0.25**2))
    return np.outer(line, line).astype(np.float32)


def _enlarge(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    return cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
