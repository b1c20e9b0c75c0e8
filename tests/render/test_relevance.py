"""The picture of the relevance weights: every weight has the colour of its value, in its own row and column."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.render.colors import heat, ink, palette, rgb
from msloc_edge.render.relevance import relevance_picture

CLASSES = ("Effusion", "Mass", "Nodule")
WEIGHTS = np.array([[0.62, 0.21, 0.12, 0.05], [0.03, 0.07, 0.35, 0.55], [0.97, 0.01, 0.0, 0.02]], np.float32)


def picture_of(weights: np.ndarray, classes: tuple[str, ...] = CLASSES) -> np.ndarray:
    strides = [4 << stage for stage in range(weights.shape[1])]
    return relevance_picture("tiny 1.2.3", classes, strides, weights)


def places(picture: np.ndarray, color: str) -> np.ndarray:
    """Rows and columns [N, 2] of the pixels of exactly this colour."""
    return np.argwhere((picture == rgb(color)[::-1]).all(axis=2))


def luma(color: str) -> float:
    red, green, blue = rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_every_weight_is_a_cell_of_its_colour() -> None:
    picture = picture_of(WEIGHTS)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    centres = np.zeros((*WEIGHTS.shape, 2))
    for row, weights in enumerate(WEIGHTS):
        for column, weight in enumerate(weights):
            found = places(picture, heat(float(weight)))
            assert len(found) > 1000, f"no cell of {weight}"
            centres[row, column] = np.median(found, axis=0)
    assert np.ptp(centres[:, :, 0], axis=1).max() < 12  # one row is level
    assert np.ptp(centres[:, :, 1], axis=0).max() < 12  # one column is upright
    assert (np.diff(centres[:, 0, 0]) > 20).all()
    assert (np.diff(centres[0, :, 1]) > 20).all()


def test_a_row_has_the_colour_of_its_finding() -> None:
    picture = picture_of(WEIGHTS)
    colors = palette(CLASSES)
    rows = [places(picture, colors[label])[:, 0].mean() for label in CLASSES]
    assert rows == sorted(rows)
    assert np.diff(rows).min() > 20


def test_no_picture_is_stretched_by_its_own_extremes() -> None:
    even = np.full((3, 4), 0.25, np.float32)
    mixed = np.vstack([even[:1], np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.float32)])
    few, many = places(picture_of(mixed), heat(0.25)), places(picture_of(even), heat(0.25))
    assert len(few) > 4000
    assert len(many) > 3 * len(few)  # three rows and their mean


@pytest.mark.parametrize(("count", "stages"), [(1, 1), (1, 4), (40, 4), (14, 6)])
def test_any_number_of_findings_and_stages(count: int, stages: int) -> None:
    weights = np.full((count, stages), 1 / stages, np.float32)
    picture = picture_of(weights, tuple(f"Finding {number}" for number in range(count)))
    small = picture_of(weights[:1], ("Finding 0",))
    assert picture.shape[1] == small.shape[1]
    assert (picture.shape[0] > small.shape[0]) == (count > 1)
    assert (picture[[0, -1]] == picture[0, 0]).all()  # an empty margin: nothing is cut
    assert (picture[:, [0, -1]] == picture[0, 0]).all()


def test_names_of_every_kind() -> None:
    names = ("a" * 200, "Épanchement\n\x1b[31m", "肺炎")
    picture = picture_of(WEIGHTS, names)
    assert picture.shape == picture_of(WEIGHTS).shape
    cells = places(picture, heat(float(WEIGHTS[0, 0])))
    assert len(cells) > 1000  # a long name runs over no cell


def test_heat_goes_from_dark_to_bright() -> None:
    lumas = [luma(heat(share)) for share in np.linspace(0, 1, 101)]
    assert (np.diff(lumas) > 0).all()
    assert (heat(-1), heat(2)) == (heat(0), heat(1))


def test_ink_can_be_read_on_every_heat() -> None:
    contrasts = [abs(luma(ink(heat(share))) - luma(heat(share))) for share in np.linspace(0, 1, 101)]
    assert min(contrasts) > 90
