"""Quantiles by hand, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.bench.statistics import paired_ratio, summarize


def test_quantiles_by_hand() -> None:
    found = summarize(np.arange(1.0, 102.0))  # 1 .. 101: the q-quantile is 1 + 100 q
    assert (found["count"], found["min"], found["max"]) == (101, 1, 101)
    assert [found[name]["value"] for name in ("mean", "p50", "p90", "p95", "p99")] == [51, 51, 91, 96, 100]
    assert found["std"] == pytest.approx(np.sqrt((101**2 - 1) / 12), abs=1e-5)


def test_a_quantile_needs_a_sample_beyond_it() -> None:
    names = ("p50", "p90", "p95", "p99", "p99.9")
    for count, known in ((1, 0), (2, 1), (9, 1), (10, 2), (20, 3), (99, 3), (100, 4), (999, 4), (1000, 5)):
        found = summarize(np.linspace(1, 2, count))
        assert [found[name] is not None for name in names] == [True] * known + [False] * (5 - known), count


def test_equal_samples_have_an_interval_of_no_width() -> None:
    found = summarize(np.full(200, 3.25))
    assert found["p50"] == found["mean"] == found["p99"] == {"value": 3.25, "low": 3.25, "high": 3.25}
    assert found["std"] == 0


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarize(np.array([]))


def gamma(draw: np.random.Generator, count: int) -> np.ndarray:
    return 10 + draw.gamma(4.0, 2.0, count)


def alike(draw: np.random.Generator, count: int) -> np.ndarray:
    """Samples that follow their neighbours (AR(1), 0.6), of the standard normal distribution."""
    noise = draw.normal(0, 0.8, count)
    values = np.empty(count)
    values[0] = draw.normal()
    for at in range(1, count):
        values[at] = 0.6 * values[at - 1] + noise[at]
    return values


@pytest.mark.parametrize(("make", "quantile", "name"), [(gamma, 0.5, "p50"), (gamma, 0.9, "p90"), (alike, 0.5, "p50")])
def test_intervals_hold_the_truth(make: object, quantile: float, name: str) -> None:
    """19 of 20 times in theory; 4 of 5 are asked for, and that they are not simply wide."""
    truth = float(np.quantile(make(np.random.default_rng(99), 400_000), quantile))  # type: ignore[operator]
    held, widths = 0, []
    for seed in range(30):
        found = summarize(make(np.random.default_rng(seed), 400), seed)[name]  # type: ignore[operator]
        held += found["low"] <= truth <= found["high"]
        widths.append(found["high"] - found["low"])
    assert held >= 24
    assert np.median(widths) < {"p50": 1.1, "p90": 2.5}[name]


def test_blocks_widen_the_interval_of_samples_that_are_alike() -> None:
    """Shuffled, the same numbers look independent, and their interval is too narrow."""
    samples = alike(np.random.default_rng(3), 4000)
    shuffled = np.random.default_rng(0).permutation(samples)
    width = [found["high"] - found["low"] for found in (summarize(samples)["mean"], summarize(shuffled)["mean"])]
    assert width[0] > 1.5 * width[1]


def test_a_ratio_is_that_of_its_pairs() -> None:
    """A machine that slows down during the run slows both, and leaves the ratio alone."""
    theirs = np.linspace(10, 100, 300)
    found = paired_ratio(1.5 * theirs, theirs)
    assert found == {"value": 1.5, "low": 1.5, "high": 1.5}
