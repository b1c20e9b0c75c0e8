"""AUROC and average precision: by hand, and against scikit-learn on random data."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from msloc_edge import _statistics
from msloc_edge._statistics import auroc, average_precision
from msloc_edge.train.calibration.resample import patient_weights


def test_the_examples() -> None:
    done = doctest.testmod(_statistics)
    assert (done.failed, done.attempted) == (0, 2)


def test_auroc_and_ap_by_hand() -> None:
    scores, positive = np.array([0.9, 0.8, 0.3, 0.3]), np.array([True, False, True, False])
    # Pairs in order: .9 > .8, .9 > .3; .3 < .8; .3 = .3 by half: 2.5 of 4.
    assert auroc(scores, positive).item() == pytest.approx(2.5 / 4)
    # Recall 1/2 at precision 1, then the tie: recall 1 at precision 2/4.
    assert average_precision(scores, positive).item() == pytest.approx(0.5 * 1 + 0.5 * 0.5)


@pytest.mark.parametrize("decimals", [1, 8])  # many ties, and none
def test_resampled_auroc_and_ap_are_scikit_learns(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    scores, positive = np.round(rng.random(120), decimals), rng.random(120) < 0.3
    weights = patient_weights(120, 150, seed=1)
    for ours, theirs in ((auroc, roc_auc_score), (average_precision, average_precision_score)):
        assert ours(scores, positive).item() == pytest.approx(theirs(positive, scores), abs=1e-12)
        expected = [theirs(positive, scores, sample_weight=row) for row in weights]
        np.testing.assert_allclose(ours(scores, positive, weights), expected, atol=1e-6)


def test_a_class_without_both_kinds_has_no_auroc() -> None:
    assert np.isnan(auroc(np.arange(4.0), np.ones(4, bool))).all()
    assert np.isnan(auroc(np.zeros(0), np.zeros(0, bool))).all()
    weights = np.array([[1, 1, 1, 1], [2, 2, 0, 0]], np.float32)  # the resample has positives only
    samples = auroc(np.arange(4.0), np.array([True, True, False, False]), weights)
    assert samples[0] == 0
    assert np.isnan(samples[1])


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_finite_rank_nothing(score: float) -> None:
    assert np.isnan(auroc(np.array([0.1, score]), np.array([True, False]))).all()
