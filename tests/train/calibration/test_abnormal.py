"""The model of the abnormal film, and the gate on it: by hand, and against what generated the films."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msloc_edge.train.calibration.abnormal import abnormal_films, film_threshold, fit_abnormal, normal_films
from msloc_edge.train.data.collection import fold_of

NAN = math.nan


def test_normal_and_abnormal_films() -> None:
    labels = np.array([[0, 0], [0, NAN], [1, 0], [1, NAN], [NAN, NAN]], np.float32)
    assert normal_films(labels).tolist() == [True, True, False, False, False]
    assert abnormal_films(labels).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("normals", "rate", "threshold"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], 0.1, 0.95),  # above the highest of nine: 1 in 10 is higher
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], 0.2, 0.85),  # above the second
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], 0.29, 0.85),  # 2.9 of 10: the third would be too many
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.8, 0.9], 0.3, 0.85),  # the third equals the second: neither passes
        ([0.5] * 9, 0.5, 0.75),  # all equal: none passes
        ([0.4], 0.1, 0.7),  # too few for any promise: above all
        ([1.0] * 9, 0.1, 1.0),
        ([0.0] * 17 + [np.nextafter(0.999, 0), 0.999], 0.1, 0.999),  # nothing between the first and the second
    ],
)
def test_film_threshold_by_hand(normals: list[float], rate: float, threshold: float) -> None:
    found = film_threshold(np.array(normals), rate)
    assert found == pytest.approx(threshold)
    assert sum(value >= found for value in normals if value < 1) <= max(0, rate * (len(normals) + 1) - 1)


@given(
    normals=st.lists(st.one_of(st.floats(0, 0.999), st.sampled_from([0.25, 0.5])), min_size=9, max_size=80),
    rate=st.sampled_from([0.05, 0.1, 0.3]),
)
def test_no_more_than_the_rate_pass(normals: list[float], rate: float) -> None:
    threshold = film_threshold(np.array(normals), rate)
    passing = sum(value >= threshold for value in normals)
    assert passing <= max(0, rate * (len(normals) + 1) - 1 + 1e-9)


def test_the_rate_holds_on_other_films() -> None:
    rng = np.random.default_rng(0)
    shares = [(rng.random(2000) >= film_threshold(rng.random(59), 0.1)).mean() for _ in range(300)]
    assert 5 / 60 < np.mean(shares) < 6 / 60  # j = 6 of 60, and midway to the next higher


def films(count: int, weights: tuple[float, ...], bias: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Evidence [N, K] and whether each film is abnormal, drawn by a logistic model; two films of each patient."""
    rng = np.random.default_rng(seed)
    evidence = rng.exponential(1.0, (count, len(weights)))
    abnormal = rng.random(count) < 1 / (1 + np.exp(-bias - evidence @ np.array(weights)))
    return evidence, abnormal, [f"patient {at // 2}" for at in range(count)]


def test_equal_weights_are_found() -> None:
    found = fit_abnormal(*films(3000, (0.8, 0.8, 0.8), -2.0, 1))
    assert found.strength == math.inf
    assert found.model.weights == pytest.approx((0.8,) * 3, abs=0.1)
    assert found.model.bias == pytest.approx(-2.0, abs=0.2)
    assert found.auroc == pytest.approx(found.sum_auroc, abs=0.01)


def test_unequal_weights_are_found_where_they_matter() -> None:
    found = fit_abnormal(*films(3000, (2.0, 0.05, 0.05), -2.0, 2))
    assert found.strength < math.inf
    assert found.model.weights[0] > 5 * max(found.model.weights[1:])
    assert found.auroc > found.sum_auroc + 0.05


def test_no_weight_is_below_0() -> None:
    found = fit_abnormal(*films(3000, (1.5, -1.5), 0.0, 3))
    assert min(found.model.weights) >= 0


def test_the_probability_is_calibrated() -> None:
    evidence, abnormal, patients = films(4000, (1.0, 0.3), -1.5, 4)
    model = fit_abnormal(evidence, abnormal, patients).model
    chance = 1 / (1 + np.exp(-model.bias - evidence @ np.array(model.weights)))
    for low, high in ((0, 0.4), (0.4, 0.7), (0.7, 1)):
        inside = (chance >= low) & (chance < high)
        assert abnormal[inside].mean() == pytest.approx(chance[inside].mean(), abs=0.05)


def test_films_that_tell_nothing_and_films_that_tell_all() -> None:
    patients = [f"patient {at}" for at in range(40)]
    abnormal = np.arange(40) % 2 == 0
    nothing = fit_abnormal(np.ones((40, 2)), abnormal, patients)
    assert 1 / (1 + math.exp(-nothing.model.bias - sum(nothing.model.weights))) == pytest.approx(0.5, abs=0.01)
    everything = fit_abnormal(np.where(abnormal[:, None], 5.0, 0.1).repeat(2, axis=1), abnormal, patients)
    assert everything.sum_auroc == 1.0
    assert np.isfinite([everything.model.bias, *everything.model.weights]).all()


def test_one_kind_of_film_is_refused() -> None:
    with pytest.raises(ValueError, match="only one kind"):
        fit_abnormal(np.ones((4, 2)), np.ones(4, bool), ["1", "2", "3", "4"])


def test_folds_part_patients_evenly_and_alike_every_time() -> None:
    folds = [fold_of(str(patient), 5) for patient in range(5000)]
    assert [round(folds.count(fold) / 5000, 1) for fold in range(5)] == [0.2] * 5
    assert folds == [fold_of(str(patient), 5) for patient in range(5000)]
