"""Regions of an evaluation, Wang's protocol, MaxBoxAccV2: by hand, and against `infer` and pycocotools."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.boxes import as_boxes, find_boxes, iobb, iou
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.maxbox import LEVELS, best_ious, max_box_acc
from msloc_edge.train.evaluate.measure import boxes_of, largest_box, scores_of
from msloc_edge.train.evaluate.wang import IOBB_T, IOU_T, count_hits, detected_boxes, published


def smooth(seed: int, side: int = 96, grid: int = 8) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((grid, grid)).astype(np.float32)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def test_overlap_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    detected, true = (
        np.concatenate([rng.uniform(0, 60, (n, 2)), rng.uniform(1, 60, (n, 2))], axis=1) for n in (40, 30)
    )
    np.testing.assert_allclose(iou(detected, true), coco.iou(detected, true, [0] * 30), atol=1e-12)
    # pycocotools divides by the detected box's area where the true one is a "crowd": that is IoBB.
    np.testing.assert_allclose(iobb(detected, true), coco.iou(detected, true, [1] * 30), atol=1e-12)


def test_regions_are_those_that_infer_shows() -> None:
    for seed in range(12):
        values = smooth(seed)
        found = Evidence.above(values, 0.4).regions()
        shown = find_boxes(values, 0.4, 0.7, Geometry.fit((96, 96), (96, 96)))
        assert boxes_of(found).tolist() == [[b.x, b.y, b.w, b.h] for b in shown]
        assert scores_of(found, 0.7) == pytest.approx([b.score for b in shown])


def test_the_largest_region_is_the_one_with_the_most_pixels() -> None:
    margin = np.full((40, 40), -1, np.float32)
    margin[0:10, 0:10] = 1  # 100 pixels
    margin[20:40, 20] = margin[20, 20:40] = 5  # 39 pixels, in a box of 20 x 20
    margin[0:3, 30:35] = 9  # 15 pixels: too small
    found = Evidence(margin, margin).regions()
    assert largest_box(found).tolist() == [[0, 0, 10, 10]]
    assert [region.area for region in found] == [39, 100]
    assert scores_of(found, None).tolist() == [5, 1]
    assert scores_of(found, 0.5).tolist() == [0.5, 0.1]
    assert largest_box([]).shape == (0, 4)


def test_of_equal_regions_the_first_is_the_largest() -> None:
    margin = np.full((40, 40), -1, np.float32)
    margin[0:4, 20:24], margin[10:14, 0:4] = 1, 2
    assert largest_box(Evidence(margin, margin).regions()).tolist() == [[20, 0, 4, 4]]


def test_wangs_boxes_by_hand() -> None:
    # After scaling: background 0, a ring at 100, a core at 255, a spot at 200.
    field = np.zeros((30, 30), np.float32)
    field[2:12, 2:12], field[4:8, 4:8] = 1.0, 2.55
    field[20:25, 20:23] = 2.0
    assert detected_boxes(field).tolist() == [[2, 2, 10, 10], [4, 4, 4, 4], [20, 20, 3, 5]]  # the spot counts once
    assert detected_boxes(np.float32(7) - 3 * field).shape == (1, 4)  # turned round: all but the core and the spot
    assert detected_boxes(np.ones((5, 5), np.float32)).shape == (0, 4)


def test_wangs_hits_by_hand() -> None:
    true = as_boxes([(2, 2, 10, 10), (20, 20, 6, 5)])
    detected = as_boxes([[2, 2, 10, 10], [4, 4, 4, 4], [20, 20, 3, 5]])
    # IoU: 1, .16, .5 (not above .5). IoBB: 1, 1, 1.
    hits, false = count_hits(iou(detected, true), IOU_T)
    assert (hits.tolist(), false.tolist()) == ([2, 2, 1, 1], [0, 1, 2, 2])
    hits, false = count_hits(iobb(detected, true), IOBB_T)
    assert (hits.tolist(), false.tolist()) == ([2] * 5, [0] * 5)
    assert [part.tolist() for part in count_hits(iou(as_boxes([]), true), IOU_T)] == [[0] * 4, [0] * 4]


def test_wangs_table() -> None:
    assert published("iobb", "0.1", "afp")["Pneumothorax"] == 0.4776
    assert published("iou", "0.5", "accuracy")["Atelectasis"] == 0.05
    assert published("iou", "0.7", "accuracy") == {}


def test_best_ious_by_hand() -> None:
    field = np.zeros((100, 100), np.float32)
    field[10:50, 10:50], field[10:30, 10:30] = 0.4, 1.0
    best = dict(zip(LEVELS, best_ious(field, as_boxes([(10, 10, 20, 20)])), strict=True))
    assert best[0.0] == best[0.36] == 0.25  # the large box
    assert best[0.4] == best[0.96] == 1
    assert best_ious(field, as_boxes([(60, 60, 20, 20)])).tolist() == [0] * 25
    assert best_ious(np.ones((9, 9), np.float32), as_boxes([(0, 0, 9, 9)])).tolist() == [0] * 25


def test_best_ious_are_those_of_every_region() -> None:
    for seed in range(6):
        field, true = smooth(seed, side=128), as_boxes([(20, 30, 50, 40), (80, 80, 30, 30)])
        scaled = (field - field.min()) / (field.max() - field.min())
        brute = []
        for level in LEVELS:
            stats = cv2.connectedComponentsWithStats((scaled > level).view(np.uint8), connectivity=8)[2][1:, :4]
            brute.append(iou(as_boxes(stats), true).max(initial=0))
        ours = best_ious(field, true)
        brute = np.array(brute)
        np.testing.assert_allclose(np.where(brute >= 0.3, brute, 0), np.where(ours >= 0.3, ours, 0), atol=0.02)


def test_the_best_level_is_one_for_all_classes() -> None:
    hits = np.zeros((2, 3, 1))
    hits[0, :, 0], hits[1, :, 0] = (0.2, 0.5, 0.4), (0.6, 0.1, 0.2)
    value, level = max_box_acc(hits)
    assert (value[:, 0].tolist(), level[:, 0].tolist()) == ([0.5, 0.6], [1, 0])
