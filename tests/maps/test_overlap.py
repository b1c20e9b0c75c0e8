"""Overlap of boxes by hand."""

from __future__ import annotations

import pytest

from msloc_edge.maps.overlap import agreement, as_boxes, iobb, iou

Box = tuple[float, float, float, float]


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
def test_iou(a: Box, b: Box, expected: float) -> None:
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


def agree(first: list[Box], second: list[Box]) -> float:
    return agreement(as_boxes(first), as_boxes(second))
