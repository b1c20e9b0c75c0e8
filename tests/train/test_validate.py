"""Validation by hand: AUROC of what is known, and the share of true regions that hold their map's peak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from msloc_edge.model import CamNet, ModelConfig
from msloc_edge.model.head import RelevanceHead
from msloc_edge.model.network import Prediction
from msloc_edge.train.data import Films
from msloc_edge.train.loop import Judged
from msloc_edge.train.validate import Validation, pointing

CLASSES, SIDE, GRID = ("Mass", "Nodule"), 64, 16


class Drawn(torch.nn.Module):
    """A network of two classes whose finest maps are drawn: 1 at one cell of each film, by its brightest pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig(CLASSES, size=SIDE)
        self.head = RelevanceHead((1, 1), 2, "avg")

    def forward(self, images: Tensor) -> Prediction:
        fine = torch.zeros(len(images), 2, GRID, GRID)
        for film, image in enumerate(images):
            row, column = divmod(int(image.argmax()), SIDE)
            fine[film, 0, row // 4, column // 4] = 1  # Mass: at the bright pixel
            fine[film, 1, GRID - 1 - row // 4, column // 4] = 1  # Nodule: at its mirror image, upside down
        return Prediction(torch.zeros(len(images), 2), (fine, torch.zeros(len(images), 2, GRID // 2, GRID // 2)))


def films(bright: list[tuple[int, int]], masks: list[Mapping[str, tuple[slice, slice]]]) -> Films:
    """Black films with one bright pixel each, and true regions as rows and columns."""
    pixels = np.zeros((len(bright), SIDE, SIDE), np.uint8)
    for index, at in enumerate(bright):
        pixels[index][at] = 255

    def regions(index: int) -> Mapping[str, NDArray[np.bool_]]:
        found = {}
        for label, place in masks[index].items():
            found[label] = np.zeros((SIDE, SIDE), bool)
            found[label][place] = True
        return found

    names = tuple(map(str, range(len(bright))))
    labels = np.array([[label in own for label in CLASSES] for own in masks], np.float32)
    return Films("drawn", CLASSES, pixels, labels, names, names, masks=regions)


@pytest.mark.parametrize("batch", [1, 3])
def test_pointing_by_hand(batch: int) -> None:
    # The bright pixel of row 9, column 41 lies in the cell of rows 8-11, columns 40-43, whose centre is (10, 42).
    inside, beside = (slice(10, 11), slice(42, 43)), (slice(10, 11), slice(41, 42))
    mirrored = (slice(54, 55), slice(42, 43))  # of row 52-55: its centre
    at = (9, 41)
    found = films(
        [at, at, at, at, at],
        [{"Mass": inside}, {"Mass": beside}, {"Nodule": mirrored}, {"Mass": inside, "Nodule": inside}, {}],
    )
    net = cast(CamNet, Drawn())
    assert pointing(net, found, batch) == pytest.approx(3 / 5)  # of five regions on four films


def test_the_column_of_lesions_in_the_history() -> None:
    net, inside = cast(CamNet, Drawn()), (slice(10, 11), slice(42, 43))
    lesions = films([(9, 41), (30, 30), (50, 50)], [{"Mass": inside}] * 3)
    assert Judged([], lesions).pointing(net, 2, first=True) == {"lesion_pointing": 0.3333}
    assert Judged([], lesions).pointing(net, 2, first=False) == {}, "one rank is enough"
    assert Judged([], None).pointing(net, 2, first=True) == {}, "a run that inserts none"


def test_auroc_of_what_is_known() -> None:
    rng = np.random.default_rng(1)
    logits = rng.integers(0, 6, (40, 3)).astype(np.float32)
    labels = rng.integers(0, 2, (40, 3)).astype(np.float32)
    labels[:10, 0], labels[:, 2] = np.nan, 1
    found = Validation(logits, labels, 0.0)
    expected = [roc_auc_score(labels[10:, 0], logits[10:, 0]), roc_auc_score(labels[:, 1], logits[:, 1])]
    assert found.auroc[:2].tolist() == pytest.approx(expected)
    assert np.isnan(found.auroc[2])
    assert found.macro_auroc == pytest.approx(np.mean(expected))
    assert Validation(logits, np.full_like(labels, np.nan), 0.0).macro_auroc == 0
