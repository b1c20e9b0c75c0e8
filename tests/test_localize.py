"""Boxes and peaks from maps that were drawn by hand, and against a flood fill in plain Python."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.geometry import Geometry
from msloc_edge.localize import MIN_AREA, find_boxes, find_peak
from msloc_edge.types import Box, Peak

SQUARE = Geometry.fit((32, 32), (32, 32))
Region: TypeAlias = tuple[slice, slice]


def drawn(
    regions: dict[tuple[int, int, int, int], float], background: float = 0, shape: tuple[int, int] = (32, 32)
) -> np.ndarray:
    """A map with constant rectangles (x, y, w, h) -> value."""
    canvas = np.full(shape, background, np.float32)
    for (x, y, w, h), value in regions.items():
        canvas[y : y + h, x : x + w] = value
    return canvas


@pytest.mark.parametrize(
    ("regions", "threshold", "expected"),
    [
        pytest.param({}, 1, [], id="empty map"),
        pytest.param({(0, 0, 32, 32): 1}, 1, [], id="the threshold itself is not above it"),
        pytest.param({(0, 0, 32, 32): 1.001}, 1, [(0, 0, 32, 32, 0.8)], id="the whole film"),
        pytest.param({(5, 7, 6, 4): 3}, 1, [(5, 7, 6, 4, 0.8)], id="one region"),
        pytest.param(
            {(2, 2, 4, 4): 2, (20, 10, 5, 5): 3}, 1, [(20, 10, 5, 5, 0.8), (2, 2, 4, 4, 0.4)], id="strongest first"
        ),
        pytest.param({(2, 2, 4, 4): 3, (2, 20, 8, 4): 3}, 1, [(2, 2, 4, 4, 0.8), (2, 20, 8, 4, 0.8)], id="equal peaks"),
        pytest.param({(4, 4, 4, 4): 3, (8, 8, 4, 4): 2}, 1, [(4, 4, 8, 8, 0.8)], id="corners touch: one region"),
        pytest.param({(4, 4, 4, 4): 3, (9, 4, 4, 4): 2}, 1, [(4, 4, 4, 4, 0.8), (9, 4, 4, 4, 0.4)], id="a gap of one"),
        pytest.param({(3, 3, 4, 4): 2}, 1, [(3, 3, 4, 4, 0.8)], id="16 pixels are enough"),
        pytest.param({(3, 3, 5, 3): 2}, 1, [], id="15 pixels are not"),
        pytest.param({(3, 3, 5, 3): 9, (20, 20, 4, 4): 2}, 1, [(20, 20, 4, 4, 0.8)], id="a speck sets no scale"),
        pytest.param({(0, 28, 6, 4): 2}, 1, [(0, 28, 6, 4, 0.8)], id="at the left and lower edge"),
        pytest.param({(28, 0, 4, 32): 2}, 1, [(28, 0, 4, 32, 0.8)], id="along the right edge"),
        pytest.param(
            {(10, 0, 12, 4): 5, (8, 8, 16, 20): 2, (10, 10, 12, 16): 0, (12, 12, 6, 6): 3},
            1,
            [(10, 0, 12, 4, 0.8), (12, 12, 6, 6, 0.4), (8, 8, 16, 20, 0.2)],
            id="a ring keeps its own peak, not that of the region inside its box",
        ),
    ],
)
def test_boxes_by_hand(
    regions: dict[tuple[int, int, int, int], float],
    threshold: float,
    expected: list[tuple[float, float, float, float, float]],
) -> None:
    assert MIN_AREA == 16
    found = find_boxes(drawn(regions), threshold, 0.8, SQUARE)
    assert len(found) == len(expected)
    for box, numbers in zip(found, expected, strict=True):
        assert (box.x, box.y, box.w, box.h, box.score) == pytest.approx(numbers, abs=1e-6)


def test_negative_thresholds() -> None:
    localization_map = drawn({(2, 2, 4, 4): -0.4, (12, 12, 6, 6): -0.1}, background=-1)
    assert [(box.x, box.score) for box in find_boxes(localization_map, -0.5, 0.6, SQUARE)] == [
        (12, pytest.approx(0.6)),
        (2, pytest.approx(0.15)),
    ]


def test_boxes_in_pixels_of_the_stored_image() -> None:
    # 40 rows x 80 columns in 64 x 64: scale 0.8, the film covers rows 16 to 48
    geometry = Geometry.fit((40, 80), (64, 64))
    localization_map = drawn({(16, 8, 16, 8): 2}, shape=(32, 64))
    assert find_boxes(localization_map, 1, 0.5, geometry) == (Box(20, 10, 20, 10, 0.5),)


def test_the_peak_is_the_centre_of_its_pixel() -> None:
    geometry = Geometry.fit((40, 80), (64, 64))
    localization_map = drawn({}, background=-2, shape=(32, 64))
    localization_map[7, 15] = -0.25
    assert find_peak(localization_map, geometry) == Peak(15.5 / 0.8, 7.5 / 0.8, -0.25)


def test_the_first_of_equal_peaks() -> None:
    assert find_peak(drawn({(20, 3, 1, 1): 1, (4, 9, 1, 1): 1}), SQUARE) == Peak(20.5, 3.5, 1)


def regions_by_flood_fill(above: np.ndarray) -> list[np.ndarray]:
    """Masks of the 8-connected regions, the slow and plain way."""
    todo = {(int(row), int(column)) for row, column in np.argwhere(above)}
    masks = []
    while todo:
        mask, edge = np.zeros(above.shape, bool), [todo.pop()]
        while edge:
            row, column = edge.pop()
            mask[row, column] = True
            near = {(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            edge += near
        masks.append(mask)
    return masks


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(5, 40), st.integers(5, 40)),
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.floats(-1, 1.5),
    st.floats(0.01, 1),
)
@settings(max_examples=150)
def test_boxes_are_those_of_a_flood_fill(
    seed: int, film: tuple[int, int], model_input: tuple[int, int], threshold: float, score: float
) -> None:
    geometry = Geometry.fit(film, model_input)
    coarse = np.random.default_rng(seed).normal(size=(geometry.height // 3 + 1, geometry.width // 3 + 1))
    localization_map = np.kron(coarse, np.ones((3, 3))).astype(np.float32)[: geometry.height, : geometry.width]
    above = localization_map > np.float32(threshold)
    masks = [mask for mask in regions_by_flood_fill(above) if mask.sum() >= MIN_AREA]
    masks.sort(key=lambda mask: -localization_map[mask].max())

    boxes = find_boxes(localization_map, threshold, score, geometry)

    assert len(boxes) == len(masks)
    assert all(0 < box.score <= score for box in boxes)
    assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
    assert [box.score for box in boxes[:1]] == [pytest.approx(score)] * bool(boxes)
    found, expected = [], []
    for box, mask in zip(boxes, masks, strict=True):
        assert 0 <= box.x <= box.x + box.w <= geometry.image_width + 1e-9
        assert 0 <= box.y <= box.y + box.h <= geometry.image_height + 1e-9
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        sx, sy = geometry.scale
        expected.append((columns[0] / sx, rows[0] / sy, (columns[-1] + 1) / sx, (rows[-1] + 1) / sy))
        found.append((box.x, box.y, box.x + box.w, box.y + box.h))
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted(expected)), abs=1e-6)
