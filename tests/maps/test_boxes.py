"""Boxes of regions, which of them there are and what they score, and overlap of boxes: by hand and by a flood fill."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps import Located, Region, iobb, iou, reference, to_boxes, to_peak
from msloc_edge.maps.boxes import MIN_AREA, agreement, array_of, as_boxes, find_boxes, select_regions
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


# Rises above the threshold of 1: 4, 2 and 1; areas of 16, 36 and 64 pixels.
STRONG, MIDDLE, WEAK = Region(0, 0, 0, 4, 4, 16, 5), Region(10, 10, 0, 16, 6, 36, 3), Region(20, 20, 0, 28, 8, 64, 2)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param({}, [STRONG, MIDDLE, WEAK], id="16 pixels of any strength"),
        pytest.param({"min_area": 0}, [STRONG, MIDDLE, WEAK], id="of any size"),
        pytest.param({"min_area": 17}, [MIDDLE, WEAK], id="one pixel too small"),
        pytest.param({"min_area": 65}, [], id="all too small"),
        pytest.param({"min_share": 0.25}, [STRONG, MIDDLE, WEAK], id="a share that is just met"),
        pytest.param({"min_share": 0.26}, [STRONG, MIDDLE], id="a share that is missed"),
        pytest.param({"min_share": 1}, [STRONG], id="the strongest alone"),
        pytest.param({"min_area": 17, "min_share": 0.5}, [MIDDLE, WEAK], id="shares are of the strongest large one"),
        pytest.param({"min_area": 17, "min_share": 0.51}, [MIDDLE], id="which alone is left"),
    ],
)
def test_which_regions_become_boxes(rules: dict[str, float], expected: list[Region]) -> None:
    assert select_regions([WEAK, STRONG, MIDDLE], 1, **rules) == expected
    boxes = to_boxes([WEAK, STRONG, MIDDLE], 1, 0.8, SQUARE, **rules)
    assert [(box.x, box.y, box.w, box.h) for box in boxes] == [region.box for region in expected]
    highest = expected[0].peak - 1 if expected else 1
    assert [box.score for box in boxes] == pytest.approx([0.8 * (region.peak - 1) / highest for region in expected])


def test_shares_below_zero_and_of_infinite_peaks() -> None:
    below, lower = Region(0, 0, 0, 4, 4, 16, -0.5), Region(9, 9, 0, 13, 4, 16, -1.5)  # rises of 1.5 and 0.5
    assert select_regions([below, lower], -2, min_share=0.33) == [below, lower]
    assert select_regions([below, lower], -2, min_share=0.34) == [below]
    infinite = below._replace(peak=np.inf)
    assert select_regions([infinite, lower], -2) == [infinite, lower]
    assert select_regions([infinite, lower], -2, min_share=0.1) == [infinite]


def test_rules_reach_the_boxes_of_a_map() -> None:
    localization_map = drawn({(2, 2, 4, 4): 2, (20, 10, 5, 5): 3})
    assert len(find_boxes(localization_map, 1, 0.8, SQUARE)) == 2
    assert len(find_boxes(localization_map, 1, 0.8, SQUARE, min_area=17)) == 1
    assert len(find_boxes(localization_map, 1, 0.8, SQUARE, min_share=0.51)) == 1


def test_the_peak_in_pixels_of_the_stored_image() -> None:
    # 40 rows x 80 columns in 64 x 64: scale 0.8, the film covers rows 16 to 48
    geometry = Geometry.fit((40, 80), (64, 64))
    assert to_peak(Located(15.5, 23.5, -0.25, ()), geometry) == Peak(15.5 / 0.8, 7.5 / 0.8, -0.25)


def test_regions_of_the_input_become_boxes_in_pixels_of_the_stored_image() -> None:
    geometry = Geometry.fit((40, 80), (64, 64))
    found = Region(0, 16, 24, 32, 32, 128, 4), Region(1, 8, 16, 16, 24, 64, 2)
    assert to_boxes(found, 1, 0.6, geometry, "Mass") == (
        Box(20, 10, 20, 10, 0.6, "Mass"),
        Box(10, 0, 10, 10, pytest.approx(0.2), "Mass"),
    )
    assert to_boxes((), 1, 0.6, geometry) == ()


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(5, 40), st.integers(5, 40)),
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.floats(-1, 1.5),
    st.floats(0.01, 1),
)
@settings(max_examples=150)
def test_boxes_are_those_of_the_plain_regions(
    seed: int, film: tuple[int, int], model_input: tuple[int, int], threshold: float, score: float
) -> None:
    geometry = Geometry.fit(film, model_input)
    coarse = np.random.default_rng(seed).normal(size=(geometry.height // 3 + 1, geometry.width // 3 + 1))
    localization_map = np.kron(coarse, np.ones((3, 3))).astype(np.float32)[: geometry.height, : geometry.width]
    plain = [region for region in reference.regions(localization_map, threshold) if region.area >= MIN_AREA]

    boxes = find_boxes(localization_map, threshold, score, geometry)

    assert all(0 < box.score <= score for box in boxes)
    assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
    assert [box.score for box in boxes[:1]] == [pytest.approx(score)] * bool(boxes)
    found, expected = array_of(boxes), as_boxes([region.box for region in plain])
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= np.array([geometry.image_width, geometry.image_height]) + 1e-9).all()
    assert found == pytest.approx(expected / np.tile(geometry.scale, 2), abs=1e-6)


Corners = tuple[float, float, float, float]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1),
        ((0, 0, 2, 2), (1, 1, 2, 2), 1 / 7),
        ((0, 0, 4, 2), (1, 0, 2, 2), 1 / 2),
        ((0, 0, 2, 2), (2, 0, 2, 2), 0),  # side by side
        ((0, 0, 2, 2), (5, 5, 1, 1), 0),
        ((0.5, 0.5, 1, 1), (0.5, 1, 1, 1), 1 / 3),
        ((1, 1, 0, 0), (1, 1, 0, 0), 0),  # nothing with nothing
    ],
)
def test_iou(a: Corners, b: Corners, expected: float) -> None:
    assert iou(as_boxes([a]), as_boxes([b])).item() == pytest.approx(expected)
    assert iou(as_boxes([b]), as_boxes([a])).item() == pytest.approx(expected)


def test_every_pair() -> None:
    first, second = as_boxes([(0, 0, 4, 4), (2, 0, 2, 2), (9, 9, 1, 1)]), as_boxes([(2, 0, 4, 4)])
    assert iou(first, second).tolist() == [[8 / 24], [4 / 16], [0]]
    assert iobb(first, second).tolist() == [[8 / 16], [1], [0]]
    assert iou(as_boxes([]), second).shape == iobb(as_boxes([]), second).shape == (0, 1)


def test_agreement() -> None:
    one, moved, far = (0, 0, 4, 4), (1, 0, 4, 4), (50, 50, 4, 4)
    assert agree([], []) == 1
    assert agree([one], []) == agree([], [one]) == 0
    assert agree([one], [one, far]) == 0
    assert agree([one, far], [far, one]) == 1  # order does not matter
    assert agree([one, far], [moved, far]) == pytest.approx(12 / 20)
    # Both boxes of the first side have a partner; the far one of the second side has none.
    assert agree([one, moved], [one, far]) == agree([one, far], [one, moved]) == 0


def agree(first: list[Corners], second: list[Corners]) -> float:
    return agreement(as_boxes(first), as_boxes(second))
