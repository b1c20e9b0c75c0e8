"""Maps by way of their knots against torch's interpolation, and what of them is looked at against all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.fusion import Labelled, Maps, fuse_cams
from msloc_edge.kernels.fuse_cams.reference import fuse_cams as reference

DOUBLING = [(64, 96), (16, 24), (8, 12), (4, 6), (2, 3)]
"""A map, and the stages of a backbone."""


def stages(sides: list[tuple[int, int]], classes: int = 3, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Class maps of one image in float32 and relevance weights."""
    rng = np.random.default_rng(seed)
    cams = [rng.normal(size=(classes, *side)).astype(np.float32) for side in sides]
    return cams, rng.dirichlet(np.ones(len(sides)), classes).astype(np.float32)


def expected(cams: list[np.ndarray], relevance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    doubles = [torch.from_numpy(cam)[None].double() for cam in cams]
    return reference(doubles, torch.from_numpy(relevance).double(), size)[0].numpy()


@pytest.mark.parametrize(
    ("size", "sides", "step"),
    [
        pytest.param(DOUBLING[0], DOUBLING[1:], 2, id="the four stages of a backbone"),
        pytest.param((64, 96), [(2, 3)], 16, id="the last stage alone"),
        pytest.param((64, 64), [(8, 8), (4, 4)], 4, id="two stages of 8 pixels and 16"),
        pytest.param((4, 4), [(1, 1)], 2, id="one cell"),
        pytest.param((64, 96), [(16, 24), (4, 6)], 0, id="a stage is missing between"),
        pytest.param((64, 96), [(16, 24), (8, 13)], 0, id="a column too many"),
        pytest.param((64, 48), [(16, 24)], 0, id="other factors along the axes"),
        pytest.param((30, 30), [(15, 15)], 0, id="cells of two pixels"),
        pytest.param((7, 9), [(5, 4), (3, 11)], 0, id="odd sizes"),
        pytest.param((3, 3), [(6, 6)], 0, id="smaller than its stage"),
    ],
)
def test_every_pixel_is_that_of_the_reference(size: tuple[int, int], sides: list[tuple[int, int]], step: int) -> None:
    cams, relevance = stages(sides)
    maps = fuse_cams(cams, relevance, size, range(3))
    assert maps.step == step
    np.testing.assert_allclose(maps.dense(), expected(cams, relevance, size), atol=2e-6)


def test_the_wanted_classes_in_their_order() -> None:
    cams, relevance = stages(DOUBLING[1:])
    every = fuse_cams(cams, relevance, DOUBLING[0], range(3)).dense()
    some = fuse_cams(cams, relevance, DOUBLING[0], [2, 0]).dense()
    np.testing.assert_array_equal(some, every[[2, 0]])
    assert fuse_cams(cams, relevance, DOUBLING[0], []).dense().shape == (0, *DOUBLING[0])


def test_maps_by_label_are_parts_of_the_whole() -> None:
    cams, relevance = stages(DOUBLING[1:])
    maps = fuse_cams(cams, relevance, DOUBLING[0], [1, 2])
    part = slice(5, 60), slice(0, 33)
    labelled = Labelled(maps, ["Mass", "Nodule"], part)
    assert list(labelled) == ["Mass", "Nodule"]
    assert len(labelled) == 2
    np.testing.assert_array_equal(labelled["Nodule"], maps.dense()[1][part])
    with pytest.raises(KeyError):
        labelled["Hernia"]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([DOUBLING, [(40, 40), (10, 10), (5, 5)], [(33, 21), (8, 9)]]),
    st.floats(-3, 3),
    st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
)
@settings(max_examples=200)
def test_the_salient_part_holds_the_peak_and_all_above(
    seed: int,
    sides: list[tuple[int, int]],
    threshold: float,
    start: tuple[float, float],
    share: tuple[float, float],
) -> None:
    cams, relevance = stages(sides[1:], 1, seed)
    maps = fuse_cams(cams, relevance, sides[0], [0])
    first = [int(s * side) for s, side in zip(start, sides[0], strict=True)]
    within = tuple(slice(a, a + max(1, int(s * (side - a)))) for a, s, side in zip(first, share, sides[0], strict=True))

    salient, (row, column) = maps.salient(0, threshold, (within[0], within[1]))

    whole = maps.dense()[0]
    height, width = salient.shape
    assert within[0].start <= row <= row + height <= within[0].stop
    assert within[1].start <= column <= column + width <= within[1].stop
    np.testing.assert_array_equal(salient, whole[row : row + height, column : column + width])
    assert salient.max() == whole[within].max()
    outside = whole.copy()
    outside[row : row + height, column : column + width] = -np.inf
    assert not (outside[within] > threshold + 1e-6).any()


def test_little_is_enlarged_where_little_is_above() -> None:
    cams = [np.zeros((1, 16, 16), np.float32)]
    cams[0][0, 3, 4] = 1
    maps = fuse_cams(cams, np.ones((1, 1), np.float32), (64, 64), [0])
    salient, (row, column) = maps.salient(0, 0.4, (slice(0, 64), slice(0, 64)))
    assert (row, column, *salient.shape) == (10, 14, 8, 8)  # the cell's centre and half a cell around it
    assert salient.max() == maps.dense().max()


def test_maps_that_are_pixels_already() -> None:
    canvas = np.zeros((1, 20, 30), np.float32)
    canvas[0, 4:7, 10:12] = 2
    salient, origin = Maps(canvas).salient(0, 1, (slice(0, 20), slice(0, 30)))
    assert origin == (4, 10)
    np.testing.assert_array_equal(salient, canvas[0, 4:7, 10:12])
