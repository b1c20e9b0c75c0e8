"""Maps by way of their knots against torch's interpolation, and parts of them against all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.kernels.fuse_cams.reference import fuse_cams as reference
from msloc_edge.maps.fuse import Maps, fuse_cams

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


@st.composite
def parts(draw: st.DrawFn, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a map, one of each at least."""
    starts = [draw(st.integers(0, side - 1)) for side in size]
    rows, columns = (slice(a, draw(st.integers(a + 1, side))) for a, side in zip(starts, size, strict=True))
    return rows, columns


@given(st.integers(0, 2**32 - 1), st.sampled_from([DOUBLING, [(40, 40), (5, 5)], [(33, 21), (8, 9)]]), st.data())
@settings(max_examples=200)
def test_parts_and_their_highest_pixels(seed: int, sides: list[tuple[int, int]], data: st.DataObject) -> None:
    cams, relevance = stages(sides[1:], 2, seed)
    maps = fuse_cams(cams, relevance, sides[0], [0, 1])
    part = data.draw(parts(sides[0]))
    whole = maps.dense()[1][part]

    np.testing.assert_array_equal(maps.pixels(1, part), whole)
    row, column = np.unravel_index(int(whole.argmax()), whole.shape)
    assert maps.highest(1, part) == (part[0].start + row, part[1].start + column, whole[row, column])


@pytest.mark.parametrize(
    ("knots", "expected"),
    [
        pytest.param(np.zeros((3, 4)), (0, 0, 0), id="all equal"),
        pytest.param(np.eye(3, 4), (0, 0, 0.625), id="the first of equal pixels"),
        pytest.param([[0, 0, 9, 0], [0, 0, 0, 0], [7, 7, 0, 0]], (3, 0, 5.25), id="not beside the highest knot"),
        pytest.param([[0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, np.nan]], (2, 4, np.nan), id="NaN, as numpy has it"),
    ],
)
def test_the_highest_pixel_by_hand(knots: np.ndarray, expected: tuple[int, int, float]) -> None:
    maps = Maps(np.asarray(knots, np.float32)[None], step=2)
    assert maps.highest(0, (slice(0, 4), slice(0, 6))) == pytest.approx(expected, nan_ok=True)
