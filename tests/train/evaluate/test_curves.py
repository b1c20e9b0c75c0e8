"""ROC and calibration error: by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.train.evaluate.curves import FALSE_RATES, calibration_error, reliability_bins, roc

SCORES = np.array([0.95, 0.85, 0.81, 0.4, 0.35, 0.05])
POSITIVE = np.array([1, 0, 1, 1, 0, 0], bool)


def test_roc_by_hand() -> None:
    curve = dict(zip(FALSE_RATES, roc(SCORES, POSITIVE).tolist(), strict=True))
    # No false positive down to .85: one of three. One of three false (.34 and above) down to .35: all three.
    assert (curve[0.0], curve[0.32]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (curve[0.34], curve[1.0]) == (1, 1)


def test_roc_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.3
    scores = np.round(rng.random(300) + positive * 0.3, 2)  # with ties
    false, true, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    expected = [true[false <= rate + 1e-9].max() for rate in FALSE_RATES]
    np.testing.assert_allclose(roc(scores, positive), expected)


def test_calibration_error_by_hand() -> None:
    # Bins: .95 | .85 and .81 | .4 | .35 | .05. Gaps: -.05, .85 + .81 - 1, -.6, .35, .05.
    once = np.ones((1, 6), np.float32)
    assert calibration_error(SCORES, POSITIVE, once)[0] == pytest.approx((0.05 + 0.66 + 0.6 + 0.35 + 0.05) / 6)
    drawn = np.array([[2, 0, 0, 0, 0, 2], [0, 1, 2, 0, 0, 0]], np.float32)
    assert calibration_error(SCORES, POSITIVE, drawn) == pytest.approx([0.05, abs(0.85 - 2 * 0.19) / 3])


def test_what_is_calibrated_has_no_error() -> None:
    positive = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
    scores = np.array([0.75] * 4 + [0.25] * 4)
    assert calibration_error(scores, positive, np.ones((1, 8), np.float32))[0] == 0
    assert calibration_error(1 - scores, positive, np.ones((1, 8), np.float32))[0] == 0.5


def test_bins_of_the_diagram() -> None:
    assert reliability_bins(SCORES, POSITIVE) == [
        {"score": 0.05, "positive": 0.0, "n": 1},
        {"score": 0.35, "positive": 0.0, "n": 1},
        {"score": 0.4, "positive": 1.0, "n": 1},
        {"score": 0.83, "positive": 0.5, "n": 2},
        {"score": 0.95, "positive": 1.0, "n": 1},
    ]
    assert reliability_bins(np.array([0.0, 1.0]), np.array([False, True]))[1]["n"] == 1  # 1 is in the last bin
