"""Boxes and peaks from maps that were drawn by hand, against a flood fill in plain Python, and against all pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.fuse import Maps, Part, fuse_cams
from msloc_edge.maps.regions import MIN_AREA, Located, Region, find_boxes, find_peak, locate, to_boxes, to_peak
from msloc_edge.types import Box, Peak

SQUARE = Geometry.fit((32, 32), (32, 32))


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


def located_plainly(pixels: np.ndarray, threshold: float, content: Part) -> Located:
    """From all pixels of one map, with OpenCV's components."""
    rows, columns = content
    film = pixels[content]
    y, x = np.unravel_index(int(film.argmax()), film.shape)
    _, labels, rectangles, _ = cv2.connectedComponentsWithStats((film > np.float32(threshold)).view(np.uint8))
    found = []
    for label, (left, top, width, height, area) in enumerate(rectangles.tolist()):
        if label and area >= MIN_AREA:
            first, peak = int((labels == label).argmax()), float(film[labels == label].max())
            left, top = left + columns.start, top + rows.start
            found.append(Region(first, left, top, left + width, top + height, area, peak))
    found.sort(key=lambda region: (-region.peak, region.first))
    return Located(columns.start + x + 0.5, rows.start + y + 0.5, float(film[y, x]), tuple(found))


STAGES = {
    "knots two pixels apart": [(64, 96), (16, 24), (8, 12), (4, 6), (2, 3)],
    "knots four pixels apart": [(64, 64), (8, 8), (4, 4)],
    "knots sixteen pixels apart": [(64, 96), (2, 3)],
    "one cell": [(4, 4), (1, 1)],
    "no knots": [(33, 21), (8, 9)],
}


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(STAGES)),
    st.lists(st.floats(-1.5, 1.5, width=16) | st.sampled_from([-np.inf, np.inf]), min_size=1, max_size=3),
    st.tuples(*[st.tuples(st.floats(0, 0.99), st.floats(0.01, 1))] * 2),
)
@settings(max_examples=400)
def test_all_maps_at_once_against_all_pixels_of_each(
    seed: int, kind: str, thresholds: list[float], part: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    size, *sides = STAGES[kind]
    rng = np.random.default_rng(seed)
    cams = [rng.normal(size=(len(thresholds), *side)).astype(np.float32) for side in sides]
    maps = fuse_cams(
        cams, rng.dirichlet(np.ones(len(sides)), len(thresholds)).astype(np.float32), size, range(len(thresholds))
    )
    starts = [int(a * side) for (a, _), side in zip(part, size, strict=True)]
    rows, columns = (
        slice(a, a + max(1, int(b * (side - a)))) for a, (_, b), side in zip(starts, part, size, strict=True)
    )

    dense = maps.dense()
    assume(all(np.abs(pixels - threshold).min() > 1e-6 for pixels, threshold in zip(dense, thresholds, strict=True)))

    found = locate(maps, thresholds, (rows, columns))

    assert len(found) == len(thresholds)
    for pixels, threshold, located in zip(dense, thresholds, found, strict=True):
        plain = located_plainly(pixels, threshold, (rows, columns))
        assert located[:3] == pytest.approx(plain[:3], abs=2e-6)
        assert [region[1:6] for region in located.regions] == [region[1:6] for region in plain.regions]
        assert [region.peak for region in located.regions] == pytest.approx(
            [region.peak for region in plain.regions], abs=2e-6
        )
        firsts = [region.first for region in located.regions]
        assert np.array_equal(np.argsort(firsts), np.argsort([region.first for region in plain.regions]))


def knots(height: int, width: int, points: dict[tuple[int, int], float]) -> np.ndarray:
    canvas = np.zeros((height, width), np.float32)
    for place, value in points.items():
        canvas[place] = value
    return canvas


ALL = slice(0, 16), slice(0, 16)


@pytest.mark.parametrize(
    ("values", "threshold", "content", "expected"),
    [
        pytest.param(knots(9, 9, {(4, 4): 1}), 0.05, ALL, [(6, 6, 10, 10, 16, 0.5625)], id="one knot"),
        pytest.param(knots(9, 9, {(4, 4): 1}), 0.1, ALL, [], id="its corners are lower"),
        pytest.param(knots(9, 9, {(4, 4): 1}), 0.05, (ALL[0], slice(8, 16)), [], id="half of it is outside"),
        pytest.param(
            knots(9, 9, {(4, 3): 10, (4, 5): 10}), 1, ALL, [(4, 6, 12, 10, 24, 5.625)], id="joined over a lower knot"
        ),
        pytest.param(
            knots(9, 9, {(3, 4): 10, (5, 4): 10}), 1, ALL, [(6, 4, 10, 12, 24, 5.625)], id="joined under a lower knot"
        ),
        pytest.param(
            knots(9, 9, {(4, column): 10 for column in (1, 3, 5, 7)}),
            1,
            (slice(7, 8), ALL[1]),
            [(0, 7, 16, 8, 16, 5.625)],
            id="joined in one row",
        ),
        pytest.param(np.full((9, 9), 2), 2, ALL, [], id="the threshold itself"),
        pytest.param(np.full((9, 9), 2), -np.inf, ALL, [(0, 0, 16, 16, 256, 2)], id="any number"),
        pytest.param(np.full((9, 9), -np.inf), -np.inf, ALL, [], id="minus infinity is not above itself"),
        pytest.param(np.full((9, 9), np.inf), 2, ALL, [(0, 0, 16, 16, 256, np.inf)], id="infinity"),
        pytest.param(knots(9, 9, {(0, 0): np.inf, (8, 8): np.inf}), 2, ALL, [], id="infinity in two pixels' corners"),
        pytest.param(knots(9, 9, {(4, 4): np.inf}), 2, ALL, [(6, 6, 10, 10, 16, np.inf)], id="infinity at one knot"),
        pytest.param(np.full((9, 9), np.nan), -np.inf, ALL, [], id="NaN"),
        pytest.param(
            1 + knots(9, 9, {(4, 4): np.nan}), 0, ALL, [(0, 0, 16, 16, 240, 1)], id="a hole where one knot is NaN"
        ),
        pytest.param(
            knots(9, 9, {(4, 0): np.nan, (4, 4): 1}), 0.05, ALL, [(6, 6, 10, 10, 16, 0.5625)], id="NaN in the same row"
        ),
    ],
)
def test_regions_between_knots_by_hand(
    values: np.ndarray, threshold: float, content: Part, expected: list[tuple[int, int, int, int, int, float]]
) -> None:
    (located,) = locate(Maps(np.asarray(values, np.float32)[None], step=2), [threshold], content)
    assert [region[1:] for region in located.regions] == expected


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf, -np.inf])
def test_a_map_of_one_pixel(value: float) -> None:
    maps = Maps(np.full((1, 1, 1), value, np.float32))
    (located,) = locate(maps, [0], (slice(0, 1), slice(0, 1)))
    assert located[:3] == pytest.approx((0.5, 0.5, value), nan_ok=True)
    assert located.regions == ()


def test_no_map_at_all() -> None:
    assert locate(Maps(np.empty((0, 9, 9), np.float32), step=2), [], ALL) == []
    assert locate(Maps(np.empty((0, 16, 16), np.float32)), [], ALL) == []


def test_regions_of_one_map_end_at_its_edge() -> None:
    maps = Maps(np.ones((3, 4, 5), np.float32))
    rows, columns = slice(0, 4), slice(0, 5)
    located = locate(maps, [0, 1, 0], (rows, columns))
    assert [[region[1:] for region in each.regions] for each in located] == [
        [(0, 0, 5, 4, 20, 1)],
        [],
        [(0, 0, 5, 4, 20, 1)],
    ]
    halves = np.repeat(np.float32([[[1, -1]], [[-1, 1]]]), 20, axis=2)  # where the one ends, the other one begins
    located = locate(Maps(halves), [0, 0], (slice(0, 1), slice(0, 40)))
    assert [[region[1:] for region in each.regions] for each in located] == [
        [(0, 0, 20, 1, 20, 1)],
        [(20, 0, 40, 1, 20, 1)],
    ]


def test_what_is_located_in_the_input_is_given_in_pixels_of_the_stored_image() -> None:
    # 40 rows x 80 columns in 64 x 64: scale 0.8, the film covers rows 16 to 48
    geometry = Geometry.fit((40, 80), (64, 64))
    located = Located(15.5, 23.5, 4, (Region(0, 16, 24, 32, 32, 128, 4), Region(1, 8, 16, 16, 24, 64, 2)))
    assert to_peak(located, geometry) == Peak(15.5 / 0.8, 7.5 / 0.8, 4)
    assert to_boxes(located, 1, 0.6, geometry, "Mass") == (
        Box(20, 10, 20, 10, 0.6, "Mass"),
        Box(10, 0, 10, 10, pytest.approx(0.2), "Mass"),
    )
    assert to_boxes(located._replace(regions=()), 1, 0.6, geometry) == ()
