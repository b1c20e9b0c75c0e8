"""The operating point by hand: the film's probability, its gate, and what is positive behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msloc_edge.bundle import Abnormal, Profile
from msloc_edge.bundle.profile import parse_profile


def test_abnormal_is_the_chance_that_some_finding_is_there() -> None:
    # With weight 1 and no bias the odds are exp(sum softplus): 1 / prod(1 - p). p = 1/2 and 3/4: 8, and 8 / 9.
    abnormal = Abnormal((1.0, 1.0), 0.0)
    assert abnormal.probability([0.0, np.log(3)], 1.0) == pytest.approx(8 / 9)
    assert abnormal.probability([0.0, 3 * np.log(3)], 3.0) == pytest.approx(8 / 9)  # by z / T alone


def test_abnormal_weighs_each_class() -> None:
    # odds = exp(-log 4) * 2 ** 3 * 4 ** 0.5 = 4
    assert Abnormal((3.0, 0.5), -np.log(4)).probability([0.0, np.log(3)], 1.0) == pytest.approx(4 / 5)


def test_abnormal_of_many_films_keeps_their_shape() -> None:
    logits = np.zeros((4, 5, 2), np.float32)
    assert Abnormal((1.0, 0.0), 0.0).probability(logits, 1.0) == pytest.approx(np.full((4, 5), 2 / 3))


def test_abnormal_of_extreme_logits_is_finite() -> None:
    found = Abnormal((1.0,), -1.0).probability([[1e4], [-1e4]], 0.05)
    assert found == pytest.approx([1, 1 / (1 + np.e)])


SCORES, REGIONS = [[0.5, 0.49], [0.9, 0.9], [0.9, 0.9]], [[True, True], [True, True], [False, True]]


def test_positive_needs_the_gate_the_score_and_a_region() -> None:
    profile = Profile((0.5, 0.5), (0.0, 0.0), film=0.3)
    expected = [[True, False], [False, False], [False, True]]
    assert profile.positive([0.3, 0.29, 1.0], SCORES, REGIONS).tolist() == expected


def test_without_a_film_threshold_the_gate_is_open() -> None:
    profile = Profile((0.5, 0.5), (0.0, 0.0))
    assert profile.passes([0.0, 1.0, np.nan]).tolist() == [True] * 3
    expected = [[True, False], [True, True], [False, True]]
    assert profile.positive([0.0, 0.0, 0.0], SCORES, REGIONS).tolist() == expected


def test_a_score_reaches_its_threshold_from_equality_on() -> None:
    profile = Profile((0.5, 0.1), (0.0, 0.0))
    below = float(np.nextafter(0.5, 0))
    assert profile.reached([[0.5, 0.09], [below, 0.1]]).tolist() == [[True, False], [False, True]]
    assert profile.reached([np.nan, 1.0]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("rates", "flagged"),
    [
        ({}, None),
        ({"normals_flagged": None}, None),
        ({"normals_flagged": {"value": None, "n": 0}}, None),  # no normal film was there
        ({"normals_flagged": {"value": 0.098, "low": 0.08, "high": 0.12, "n": 900}}, 0.098),
        ({"normals_flagged": {"value": 0}}, 0.0),
    ],
)
def test_the_rate_that_was_measured(rates: dict[str, Any], flagged: float | None) -> None:
    entry = {"score": [0.5], "map": [1.0], "rates": rates}
    assert parse_profile(entry, 1).normals_flagged == flagged


@pytest.mark.parametrize("rate", [*({"value": value} for value in (1.5, -0.1, float("nan"), "few")), {"n": 1}, 0.1])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_profile({"score": [0.5], "map": [1.0], "rates": {"normals_flagged": rate}}, 1)
