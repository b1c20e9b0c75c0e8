"""Rates, FROC, intervals: by hand and on random data."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge._statistics import ratio
from msloc_edge.maps.boxes import as_boxes
from msloc_edge.train.calibration.resample import Figure, mean_over, patient_weights
from msloc_edge.train.evaluate.froc import match, sensitivity_at
from msloc_edge.train.evaluate.summary import rates


def test_rates_by_hand() -> None:
    called, positive = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    weights = np.array([[1, 1, 1, 1], [3, 1, 1, 0]], np.float32)
    sensitivity, specificity = rates(called, positive, weights)
    assert sensitivity.tolist() == [0.5, 0.75]
    assert specificity.tolist() == [0.5, 0.0]


def test_matching_for_froc() -> None:
    true = as_boxes([(0, 0, 10, 10), (50, 50, 10, 10)])
    detected = as_boxes([(0, 0, 10, 9), (0, 0, 9, 9), (80, 80, 5, 5)])
    found, false = match(detected, np.array([0.4, 0.6, 0.9]), true)
    assert (found.tolist(), false.tolist()) == ([0.6, -np.inf], [0.9])
    found, false = match(as_boxes([]), np.zeros(0), true)
    assert (found.tolist(), false.tolist()) == ([-np.inf, -np.inf], [])
    found, false = match(detected, np.array([0.4, 0.6, 0.9]), as_boxes([]))
    assert (found.tolist(), false.tolist()) == ([], [0.4, 0.6, 0.9])


def test_froc_by_hand() -> None:
    true, false = np.array([0.9, 0.5, 0.2, -np.inf]), np.array([0.7, 0.3, 0.3])
    ones = np.ones((1, 4), np.float32)
    # On 4 films: no false box down to .7 (one true), one down to .3 (two), all three below (three; the fourth never).
    found = sensitivity_at(true, ones, false, ones[:, :3], np.array([4.0]), rates=(0.0, 0.25, 0.5, 0.75, 2.0))
    assert found[0].tolist() == [0.25, 0.5, 0.5, 0.75, 0.75]  # the two at .3 stand or fall together


def test_froc_of_a_resample_is_that_of_its_films() -> None:
    rng = np.random.default_rng(0)
    true, false = rng.random(30), rng.random(50)
    at_true, at_false = rng.integers(0, 20, 30), rng.integers(0, 20, 50)
    weights = patient_weights(20, 25, seed=2)
    films = weights.sum(axis=1, dtype=float)
    ours = sensitivity_at(true, weights[:, at_true], false, weights[:, at_false], films)
    for row, expected in zip(weights.astype(int), ours, strict=True):
        drawn_true, drawn_false = np.repeat(true, row[at_true]), np.repeat(false, row[at_false])
        one, nobody = np.ones((1, len(drawn_true)), np.float32), np.ones((1, len(drawn_false)), np.float32)
        alone = sensitivity_at(drawn_true, one, drawn_false, nobody, np.array([float(row.sum())]))
        np.testing.assert_allclose(alone[0], expected, atol=1e-9)


def test_without_false_boxes_all_that_was_found_counts() -> None:
    found = sensitivity_at(np.array([0.1, -np.inf]), np.ones((1, 2)), np.zeros(0), np.ones((1, 0)), np.array([2.0]))
    assert set(found[0]) == {0.5}


def test_patients_are_drawn_whole_and_the_first_row_is_the_data() -> None:
    weights = patient_weights(7, 50, seed=3)
    assert weights[0].tolist() == [1] * 7
    assert set(weights.sum(axis=1)) == {7.0}
    assert (weights == patient_weights(7, 50, seed=3)).all()
    assert (weights[1:] != patient_weights(7, 50, seed=4)[1:]).any()


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    samples = patient_weights(400, 4000, seed=0) @ values / 400
    figure = Figure.of(samples, 400)
    spread = 1.96 * values.std() / 20
    assert figure.value == pytest.approx(values.mean(), abs=1e-6)
    assert (figure.low, figure.high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.01)


def test_what_cannot_be_told_is_null() -> None:
    assert Figure.of(np.array([np.nan, np.nan]), 0).to_dict() == {"value": None, "low": None, "high": None, "n": 0}
    assert Figure.of(np.array([0.25]), 3).to_dict() == {"value": 0.25, "low": None, "high": None, "n": 3}
    assert np.isnan(ratio(np.zeros(1), np.zeros(1)))[0]


def test_the_macro_mean_leaves_out_what_has_no_figure() -> None:
    first, second = np.array([0.2, 0.4, np.nan]), np.array([0.6, np.nan, np.nan])
    np.testing.assert_allclose(mean_over([first, second]), [0.4, 0.4, np.nan])
