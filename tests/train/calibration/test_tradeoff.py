"""Score thresholds behind the gate, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msloc_edge.train.calibration.tradeoff import MIN_POSTERIOR, GatedFilms, TradeOff, fit_line


def gated(logits: list[list[float]], labels: list[list[float]], **other: list) -> GatedFilms:
    z = np.array(logits, np.float64)
    regions = np.array(other.get("regions", np.ones(z.shape)), np.bool_)
    return GatedFilms(
        z, np.array(labels, np.float32), regions, np.array(other.get("passed", np.ones(len(z))), np.bool_)
    )


def test_wrong_findings_are_positive_and_known_to_be_absent() -> None:
    films = gated(
        [[2, 2], [2, -2], [-2, 2], [2, 2], [2, 2]],
        [[0, 1], [0, 0], [0, math.nan], [0, 0], [0, 0]],
        regions=[[1, 1], [1, 1], [1, 1], [1, 0], [1, 1]],
        passed=[1, 1, 1, 1, 0],
    )
    assert films.wrong(np.array([0.0, 0.0])) == 3 / 5  # the first class on films 1, 2, 4


def test_a_line_through_calibrated_films_is_the_identity() -> None:
    # At z = log 3 three of four films have the finding, at -log 3 one of four.
    z = np.repeat([math.log(3), -math.log(3)], 4)
    slope, offset = fit_line(z, np.array([1, 1, 1, 0, 1, 0, 0, 0], bool))
    assert (slope, offset) == (pytest.approx(1, abs=1e-4), pytest.approx(0, abs=1e-4))


def test_a_line_moves_where_findings_are_more_frequent() -> None:
    # The odds at both places are three times as high: 9 to 1, 1 to 1.
    z = np.repeat([math.log(3), -math.log(3)], 10)
    positive = np.concatenate([np.arange(10) < 9, np.arange(10) < 5])
    slope, offset = fit_line(z, positive)
    assert (slope, offset) == (pytest.approx(1, abs=0.01), pytest.approx(math.log(3), abs=0.01))


def test_few_films_bend_the_line_only_a_little() -> None:
    slope, _ = fit_line(np.array([1.0, -1.0]), np.array([True, False]))  # a free slope would grow for ever
    assert 1 < slope < 3


def trade_off(slopes: list[float], offsets: list[float], ceilings: list[float]) -> TradeOff:
    return TradeOff(np.array(slopes), np.array(offsets), np.array(ceilings))


def test_thresholds_are_one_probability_on_each_line() -> None:
    # log-odds of 3/4: log 3 = slope z + offset
    found = trade_off([1, 2, math.nan, 1], [0, math.log(3), math.nan, 0], [math.inf] * 3 + [0.5]).thresholds(0.75)
    assert found == pytest.approx([math.log(3), 0, math.nan, 0.5], nan_ok=True)


def test_the_posterior_keeps_the_bound() -> None:
    # 4 films, one class: wrong films at z = 1 and 2, right ones at 3 and 4. At most one wrong finding in 4 films: the
    # threshold is above 1, where the probability is sigmoid(1).
    films = gated([[1], [2], [3], [4]], [[0], [0], [1], [1]])
    line = trade_off([1], [-2], [math.inf])
    posterior = line.posterior(films, max_wrong=0.25)
    assert posterior == pytest.approx(1 / (1 + math.e), abs=1e-6)  # sigmoid(1 - 2)
    assert films.wrong(line.thresholds(posterior)) == 0.25
    assert line.posterior(films, max_wrong=0) == pytest.approx(0.5)  # sigmoid(2 - 2)


def test_no_posterior_is_too_low() -> None:
    films = gated([[1], [2], [3], [4]], [[0], [0], [1], [1]])
    assert trade_off([1], [-2], [math.inf]).posterior(films, max_wrong=1) == MIN_POSTERIOR


def test_no_posterior_is_above_one_half() -> None:
    films = gated([[9], [9]], [[0], [0]])
    assert trade_off([1], [0], [math.inf]).posterior(films, max_wrong=0.1) == 0.5


TEN = [[float(z)] for z in range(10)]


def test_a_class_keeps_its_smallest_sensitivity() -> None:
    # Ten positive films at 0 .. 9 and one without at 6.5. Three of ten are found at 7, and the next film is at 6.5;
    # of an ordinary class two, at 8 down to 7.
    films = gated([*TEN, [6.5]], [*[[1]] * 10, [0]])
    assert TradeOff.fit(films, ["Nodule"]).ceilings == pytest.approx([6.75])
    assert TradeOff.fit(films, ["Hernia"]).ceilings == pytest.approx([7.5])
    assert TradeOff.fit(films, ["Hernia"]).thresholds(1 - 1e-9) == pytest.approx([7.5])


def test_only_films_behind_the_gate_with_a_region_can_be_found() -> None:
    # The three highest do not pass, and the next has no region: of seven positive films three are needed.
    films = gated(
        [*TEN, [-1]], [*[[1]] * 10, [0]], passed=[1] * 7 + [0] * 3 + [1], regions=[[1]] * 6 + [[0]] + [[1]] * 4
    )
    assert TradeOff.fit(films, ["Mass"]).ceilings == pytest.approx([2.5])
    none = gated([*TEN, [-1]], [*[[1]] * 10, [0]], regions=[[0]] * 11)
    assert TradeOff.fit(none, ["Mass"]).ceilings == pytest.approx([math.inf])


def test_a_class_without_both_kinds_behind_the_gate_has_no_threshold() -> None:
    films = gated([[1, 1], [2, 2], [3, 3]], [[1, 0], [1, 0], [0, 0]], passed=[1, 1, 0])
    assert np.isnan(TradeOff.fit(films, ["A", "B"]).thresholds(0.5)).all()
