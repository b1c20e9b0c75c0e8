"""From a Frame to the model's input: window, letterbox, and a look at whether the film is the right way round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.types import Frame

POLARITY_LIMIT = -0.3
"""Lowest credible difference of mediastinum and upper corners. Of 384 NIH films (every fifth of those at hand) the
lowest had -0.21, the median 0.48; a film shown in negative changes the sign."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A film ready for the engine.

    input  the model's input [h, w]: an array, or what numpy makes one of if it is on a device
    """

    frame: Frame
    input: ArrayLike
    geometry: Geometry
    timing_ms: dict[str, float]

    @property
    def batch(self) -> NDArray[np.float32]:
        """The input as a batch of one on the host: [1, 1, h, w]."""
        return np.asarray(self.input, np.float32)[None, None]


def looks_inverted(film: NDArray[np.float32]) -> bool:
    """Whether a displayed frontal film [H, W] seems to be a negative.

    Beside the neck the beam meets nothing and the film is black, while the mediastinum is white. A header with the
    wrong photometric interpretation turns this round. It is only reported: the header decides what is shown.
    """
    height, width = film.shape
    corner_height, corner_width = max(1, height // 8), max(1, width // 8)
    left, right = film[:corner_height, :corner_width], film[:corner_height, -corner_width:]
    mediastinum = film[height // 3 : height - height // 3, 2 * width // 5 : width - 2 * width // 5]
    return float(mediastinum.mean() - (left.mean() + right.mean()) / 2) < POLARITY_LIMIT
