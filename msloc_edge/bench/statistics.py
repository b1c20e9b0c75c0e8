"""Summaries of latencies: quantiles with bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
RESAMPLES = 1000
CHUNK = 50  # resamples at a time: bounds memory
LEVEL = (2.5, 97.5)  # percentiles of the resamples: a 95% interval


def summarize(samples: NDArray[np.float64], seed: int = 0) -> dict[str, Any]:
    """Summarize samples [N], in order of time: count, mean, standard deviation, quantiles, minimum, maximum.

    mean and quantiles are {"value", "low", "high"} with a 95% interval. A quantile is None where not one sample is
    expected beyond it: p99.9 needs 1000 samples. The maximum has no interval: the bootstrap does not know the tail.

    Latencies that follow each other are alike (clocks, caches, a neighbour on the machine), so blocks of them are
    resampled: the circular block bootstrap (Politis and Romano 1992), with blocks of the cube root of N.
    Raises ValueError without samples.
    """
    count = len(samples)
    if not count:
        raise ValueError("expected at least one sample, got none")
    known = {name: q for name, q in QUANTILES.items() if count * (1 - q) >= 1 - 1e-9}
    values = [float(samples.mean()), *np.quantile(samples, list(known.values()))]
    low, high = _intervals(samples, list(known.values()), seed)
    estimates = {
        name: {"value": round(float(v), 6), "low": round(float(a), 6), "high": round(float(b), 6)}
        for name, v, a, b in zip(("mean", *known), values, low, high, strict=True)
    }
    return {
        "count": count,
        "mean": estimates["mean"],
        "std": round(float(samples.std()), 6),
        "min": round(float(samples.min()), 6),
        **{name: estimates.get(name) for name in QUANTILES},
        "max": round(float(samples.max()), 6),
    }


def paired_ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0) -> dict[str, float]:
    """Compute the median of ours / theirs, pair by pair, with its 95% interval; a slow machine slows both."""
    ratios = ours / theirs
    (_, low), (_, high) = _intervals(ratios, [0.5], seed)
    return {"value": round(float(np.median(ratios)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _intervals(
    samples: NDArray[np.float64], quantiles: list[float], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends, each [1 + Q]: of the mean, then of each quantile."""
    count, draw = len(samples), np.random.default_rng(seed)
    block = max(1, round(count ** (1 / 3)))
    blocks = -(-count // block)
    found = []
    for _ in range(RESAMPLES // CHUNK):
        starts = draw.integers(0, count, (CHUNK, blocks, 1))
        at = ((starts + np.arange(block)) % count).reshape(CHUNK, -1)[:, :count]
        resampled = samples[at]
        found.append(np.vstack([resampled.mean(axis=1), np.quantile(resampled, quantiles, axis=1)]))
    low, high = np.percentile(np.hstack(found), LEVEL, axis=1)
    return low, high
