"""Regions: the plain form against a flood fill, the fast one against the plain form, and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msloc_edge.maps import Maps, Region, fuse_cams, locate, reference, regions
from msloc_edge.maps.fuse import Part

FORMS = [pytest.param(regions, id="fast"), pytest.param(reference.regions, id="plain")]


def drawn(*rows: str) -> np.ndarray:
    """A map of digits; a dot is -1."""
    return np.array([[-1 if digit == "." else int(digit) for digit in row] for row in rows], np.float32)


@pytest.mark.parametrize("find", FORMS)
@pytest.mark.parametrize(
    ("map", "threshold", "expected"),
    [
        pytest.param(drawn("000", "000"), 0, [], id="the threshold itself is not above it"),
        pytest.param(drawn("000", "000"), -0.5, [Region(0, 0, 0, 3, 2, 6, 0)], id="the whole map"),
        pytest.param(drawn("1.", ".."), 0, [Region(0, 0, 0, 1, 1, 1, 1)], id="one pixel"),
        pytest.param(drawn("2..", ".1.", "..1"), 0, [Region(0, 0, 0, 3, 3, 3, 2)], id="corners touch: one region"),
        pytest.param(drawn("..3", ".1.", "1.."), 0, [Region(2, 0, 0, 3, 3, 3, 3)], id="the other way round"),
        pytest.param(
            drawn("1.2", "1.2"), 0, [Region(2, 2, 0, 3, 2, 2, 2), Region(0, 0, 0, 1, 2, 2, 1)], id="strongest first"
        ),
        pytest.param(
            drawn("..1", "...", "1.1"),
            0,
            [Region(2, 2, 0, 3, 1, 1, 1), Region(6, 0, 2, 1, 3, 1, 1), Region(8, 2, 2, 3, 3, 1, 1)],
            id="equal ones in reading order",
        ),
        pytest.param(
            drawn("..1", "1.1", "111"),
            0,
            [Region(2, 0, 0, 3, 3, 6, 1)],
            id="joined in the last row: the first is above",
        ),
        pytest.param(
            drawn("22222", "2...2", "2.3.2", "2...2", "22222"),
            0,
            [Region(12, 2, 2, 3, 3, 1, 3), Region(0, 0, 0, 5, 5, 16, 2)],
            id="a ring keeps its own peak, not that of the region inside its box",
        ),
        pytest.param(
            np.float32([[np.nan, 1, np.nan, np.inf]]),
            -np.inf,
            [Region(3, 3, 0, 4, 1, 1, np.inf), Region(1, 1, 0, 2, 1, 1, 1)],
            id="NaN exceeds nothing",
        ),
    ],
)
def test_regions_by_hand(find, map: np.ndarray, threshold: float, expected: list[Region]) -> None:
    assert find(map, threshold) == expected


def test_the_box_of_a_region() -> None:
    assert Region(0, 3, 1, 8, 5, 16, 2.0).box == (3, 1, 5, 4)


def flood_fill(map: np.ndarray, threshold: float) -> list[Region]:
    """The slow and plain way, without OpenCV."""
    todo = {(int(row), int(column)) for row, column in np.argwhere(map > np.float32(threshold))}
    found = []
    while todo:
        pixels, edge = [], [todo.pop()]
        while edge:
            row, column = edge.pop()
            pixels.append((row, column))
            near = {(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            edge += near
        rows, columns = zip(*pixels, strict=True)
        first = min(row * map.shape[1] + column for row, column in pixels)
        box = min(columns), min(rows), max(columns) + 1, max(rows) + 1
        found.append(Region(first, *box, len(pixels), max(float(map[place]) for place in pixels)))
    return sorted(found, key=lambda region: (-region.peak, region.first))


@st.composite
def any_map(draw: st.DrawFn) -> np.ndarray:
    """Blocks of equal pixels of a few values, among them those that are not finite."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = draw(st.integers(1, 3))
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    values = [-np.inf, -1, -0.25, -0.0, 0, 0.3, 2, np.inf, np.nan]
    return np.kron(rng.choice(values, shape), np.ones((side, side))).astype(np.float32)


@given(any_map(), st.sampled_from([-np.inf, -0.5, -0.0, 0.0, 0.1, 0.3, np.inf, np.nan]))
@settings(max_examples=300)
def test_both_forms_are_a_flood_fill(map: np.ndarray, threshold: float) -> None:
    expected = flood_fill(map, threshold)
    assert reference.regions(map, threshold) == expected
    assert regions(map, threshold) == expected


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
        within = np.full_like(pixels, -np.inf)
        within[rows, columns] = pixels[rows, columns]
        y, x = np.unravel_index(int(within.argmax()), within.shape)
        assert located[:3] == pytest.approx((x + 0.5, y + 0.5, float(within[y, x])), abs=2e-6)
        plain = reference.regions(within, threshold)
        assert sorted(region[:6] for region in located.regions) == sorted(region[:6] for region in plain)
        assert [region.peak for region in located.regions] == pytest.approx([r.peak for r in plain], abs=2e-6)


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
        pytest.param(knots(9, 9, {(4, 4): 1}), 0.1, ALL, [(6, 6, 10, 10, 12, 0.5625)], id="its corners are lower"),
        pytest.param(
            knots(9, 9, {(4, 4): 1}),
            0.05,
            (ALL[0], slice(8, 16)),
            [(8, 6, 10, 10, 8, 0.5625)],
            id="half is outside",
        ),
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
        pytest.param(
            knots(9, 9, {(0, 0): np.inf, (8, 8): np.inf}),
            2,
            ALL,
            [(0, 0, 2, 2, 4, np.inf), (14, 14, 16, 16, 4, np.inf)],
            id="infinity in two corners",
        ),
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
    assert located.regions == ((Region(0, 0, 0, 1, 1, 1, value),) if value > 0 else ())


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
