"""Calibration: temperature, score thresholds and map thresholds, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msloc_edge.train.calibration.thresholds import (
    PROFILES,
    fit_temperature,
    map_threshold,
    missing_thresholds,
    score_thresholds,
)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_temperature_by_hand() -> None:
    # At z = 2, three of four films have the finding; at z = -2, one of four: sigmoid(2 / T) = 3/4, so T = 2 / ln 3.
    logits, labels = column(2, 2, 2, 2, -2, -2, -2, -2), column(1, 1, 1, 0, 0, 0, 0, 1)
    assert fit_temperature(logits, labels) == pytest.approx(2 / math.log(3), rel=1e-4)


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_temperature_is_recovered(truth: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4 * truth, (20_000, 3)).astype(np.float32)
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits / truth))).astype(np.float32)
    assert fit_temperature(logits, labels) == pytest.approx(truth, rel=0.03)


def test_temperature_stays_in_its_range() -> None:
    assert 0.05 <= fit_temperature(column(1, 2, -1, -2), column(1, 1, 0, 0)) < 0.06  # sharper is always better
    assert fit_temperature(column(1, 2, -1, -2), column(0, 0, 1, 1)) == 20.0  # flatter is always better


def test_score_thresholds_by_hand() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    labels = np.array([0, 0, 1, 0, 1, 1], np.float32)
    # candidates      .05  .15  .25  .35  .5   .7   .9
    # sensitivity      1    1    1   2/3  2/3  1/3   0
    # specificity      0   1/3  2/3  2/3   1    1    1
    found = score_thresholds(scores, labels)
    assert found == {
        "youden": pytest.approx(0.5),  # .25 and .5 are equal; the middle of two is the upper one
        "sensitivity-90": pytest.approx(0.25),
        "specificity-95": pytest.approx(0.5),
    }


def test_order_of_the_films_does_not_matter() -> None:
    scores, labels = np.array([0.6, 0.1, 0.8, 0.3, 0.2, 0.4]), np.array([1, 0, 1, 1, 0, 0], np.float32)
    order = np.argsort(scores)
    assert score_thresholds(scores, labels) == score_thresholds(scores[order], labels[order])


def test_youden_takes_the_middle_of_a_plateau() -> None:
    # Sensitivity + specificity is 4/3 at .15, .35 and .55, and less between them.
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([0, 1, 0, 1, 0, 1], np.float32)
    assert score_thresholds(scores, labels)["youden"] == pytest.approx(0.35)


def test_separable_films_get_the_gap_between_them() -> None:
    found = score_thresholds(np.array([0.1, 0.2, 0.7, 0.9]), np.array([0, 0, 1, 1], np.float32))
    assert found == dict.fromkeys(PROFILES, pytest.approx(0.45))


def test_one_in_ten_may_be_missed_and_one_in_twenty_called() -> None:
    # 10 films with the finding at .30, .31 .. .39: missing the lowest keeps 9 of 10.
    # 20 films without at .00, .01 .. .18 and .99: calling the last keeps 19 of 20.
    scores = np.concatenate([0.3 + np.arange(10) / 100, np.arange(19) / 100, [0.99]])
    labels = np.repeat([1.0, 0.0], [10, 20]).astype(np.float32)
    found = score_thresholds(scores, labels)
    assert found["sensitivity-90"] == pytest.approx(0.305)
    assert found["specificity-95"] == pytest.approx(0.24)


def test_equal_scores_stand_or_fall_together() -> None:
    found = score_thresholds(np.full(4, 0.5), np.array([0, 1, 0, 1], np.float32))
    assert found["sensitivity-90"] == 0.25  # everything
    assert found["specificity-95"] == 0.75  # nothing


def test_saturated_scores_still_have_a_threshold_above_them() -> None:
    found = score_thresholds(np.array([0.0, 1.0, 1.0]), np.array([0, 0, 1], np.float32))
    assert found["specificity-95"] > 1.0
    assert found["sensitivity-90"] == 0.5


SCORE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 1 - 2**-53]))


@given(films=st.lists(st.tuples(SCORE, st.booleans()), min_size=2, max_size=60))
def test_thresholds_keep_their_promises(films: list[tuple[float, bool]]) -> None:
    scores, positive = np.array([s for s, _ in films]), np.array([p for _, p in films])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="only one kind"):
            score_thresholds(scores, positive.astype(np.float32))
        return

    def rates(threshold: float) -> tuple[float, float]:
        called = scores >= threshold
        return called[positive].mean(), 1 - called[~positive].mean()

    found = score_thresholds(scores, positive.astype(np.float32))
    every_cut = [rates(t) for t in [*np.unique(scores), 2.0]]
    assert sum(rates(found["youden"])) == pytest.approx(max(map(sum, every_cut)), abs=1e-12)
    sensitivity, _ = rates(found["sensitivity-90"])
    assert sensitivity >= 0.9
    # One film more missed would be too many.
    above = scores[positive][scores[positive] >= found["sensitivity-90"]].min()
    assert rates(np.nextafter(above, 2))[0] < 0.9
    _, specificity = rates(found["specificity-95"])
    assert specificity >= 0.95 - 1e-12
    below = scores[scores < found["specificity-95"]]
    if below.size:
        assert rates(below.max())[1] < 0.95


def test_map_threshold_by_hand() -> None:
    # The finding is where the map is 3, 4 and 5; any threshold above 2 and up to 3 gives exactly its mask.
    localization_map = np.array([[0, 1, 2, 3], [0, 1, 4, 5]], np.float32)
    threshold, iou = map_threshold([localization_map], [localization_map >= 3])
    assert 2 < threshold <= 3
    assert iou == 1.0


def test_every_film_weighs_the_same_in_the_map_threshold() -> None:
    # Two films with a small region at >= 2 and one with a large region at >= 3. Up to 2 the films' IoU is 1, 1, 1/2,
    # above 2 it is 1/2, 1/2, 1; counted by pixels instead of by films, the large region would win.
    small = np.repeat([3, 2, 0], [1, 1, 98]).reshape(10, 10).astype(np.float32)
    large = np.repeat([3, 2, 0], [30, 30, 40]).reshape(10, 10).astype(np.float32)
    threshold, iou = map_threshold([small, large, small], [small >= 2, large >= 3, small >= 2])
    assert 0 < threshold <= 2
    assert iou == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_map_thresholds_are_absolute() -> None:
    localization_map = np.array([[0, 1, 2, 3], [0, 1, 4, 5]], np.float32)
    mask = localization_map >= 3
    plain, _ = map_threshold([localization_map], [mask])
    moved, _ = map_threshold([localization_map * 2 - 7], [mask])
    assert moved == pytest.approx(2 * plain - 7, abs=1e-5)


def test_a_map_threshold_needs_a_film() -> None:
    with pytest.raises(ValueError, match="at least one validation film"):
        map_threshold([], [])


def test_a_class_of_one_kind_of_film_gets_a_guess() -> None:
    absent = np.arange(101) / 200
    assert missing_thresholds(absent, np.zeros(101, np.float32)) == pytest.approx(0.475)  # 95 of 100 steps
    assert missing_thresholds(np.array([0.1, 0.9]), np.array([np.nan, 1], np.float32)) == 0.5
