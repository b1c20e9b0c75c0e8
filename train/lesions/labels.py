"""What an inserted lesion does to a film's labels, and the films that training gives lesions to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import TrainError
from msloc_edge.train.lesions.insertion import KINDS, insert, smallest
from msloc_edge.train.lesions.lungs import lung_fields

LABELS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "Nodule": MappingProxyType({"Nodule": 1.0}),
        "Mass": MappingProxyType({"Mass": 1.0}),
        "Opacity": MappingProxyType({"Infiltration": 1.0, "Consolidation": math.nan, "Pneumonia": math.nan}),
    }
)
"""Kind -> label -> what it becomes: 1 present, nan unknown (a reader could as well have called the opacity that).

Labels that are not named keep their value.
"""


def shown(kind: str) -> tuple[str, ...]:
    """The labels that a lesion of a kind makes 1."""
    return tuple(label for label, value in LABELS[kind].items() if value == 1)


_SECOND = 0.15  # share of the films with a lesion that get another one


class Inserter:
    """Puts lesions into a share of the normal films of a training set, and tells the labels.

    classes: the labels' names, in order; kinds of lesion whose label is not among them are never inserted
    share: the probability that a film without any finding gets a lesion (some get two)

    Raises TrainError `option_invalid` if there is nothing to insert or the share is no probability.
    """

    def __init__(self, classes: Sequence[str], share: float = 0.3) -> None:
        if not 0 <= share <= 1:
            raise TrainError("option_invalid", f"expected a share of films with lesions from 0 to 1, got {share:g}.")
        named = {kind: shown(kind)[0] for kind in KINDS}
        self.share = share
        self.kinds = tuple(kind for kind in KINDS if named[kind] in classes)
        if not self.kinds:
            raise TrainError(
                "option_invalid",
                f"expected one of {', '.join(named.values())} among the classes, got {', '.join(classes)}; "
                "train without inserted lesions.",
            )
        # Kind -> (index of the label, value)
        self._changes = {
            kind: [(classes.index(label), value) for label, value in LABELS[kind].items() if label in classes]
            for kind in self.kinds
        }

    def __call__(
        self, film: NDArray[np.uint8], labels: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """(film [H, W] uint8, labels [K] float32: 1, 0 or nan for unknown) with a lesion, or the very same arrays.

        A film counts as normal if it has known labels and all of them are 0.
        """
        chance = rng.random()  # drawn for every film, so that what a film is given hangs on its own seed alone
        known = labels[~np.isnan(labels)]
        kinds = [kind for kind in self.kinds if smallest(kind, film.shape) is not None]
        if chance >= self.share or not kinds or known.size == 0 or known.any():
            return film, labels
        labels, free = labels.copy(), lung_fields(film)
        for _ in range(1 + (rng.random() < _SECOND)):
            kind = kinds[int(rng.integers(len(kinds)))]
            film, lesion = insert(film, rng, kind, lungs=free)
            for index, value in self._changes[kind]:
                if labels[index] != 1:
                    labels[index] = value
            x, y, width, height = lesion.box
            free = free.copy()
            free[y : y + height, x : x + width] = False
            if not free.any():
                break
        return film, labels
