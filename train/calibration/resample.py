"""Intervals by bootstrap over patients: films of one patient are drawn together, because they resemble each other.

Row 0 of the weights is the data as it is, the others are resamples, so that one expression gives a value and its
interval: every function here takes weights [B, ...] and returns one figure for each of the B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import Array, ratio


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95% interval, and the number of films, findings or boxes that it rests on.

    nan stands for what the data cannot tell; it becomes null in JSON.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, samples: Array, n: int) -> Figure:
        """Sum up a figure of the data and of each resample [B]: percentiles 2.5 and 97.5 (Efron 1979)."""
        known = samples[1:][np.isfinite(samples[1:])]
        low, high = np.percentile(known, [2.5, 97.5]) if known.size else (np.nan, np.nan)
        return cls(float(samples[0]), float(low), float(high), n)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: rounded to 5 places, null for nan."""
        return {
            key: (None if value != value else round(value, 5) if isinstance(value, float) else value)
            for key, value in asdict(self).items()
        }


def patient_weights(patients: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """Draw patients with replacement: how often each is drawn [1 + resamples, patients]; row 0 has each once."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return np.concatenate([np.ones((1, patients)), drawn]).astype(np.float32)


def film_weights(patients: Sequence[str], resamples: int, seed: int) -> NDArray[np.float32]:
    """Draw patients as `patient_weights` does, those of N films: how often each film counts [1 + resamples, N]."""
    numbers = {patient: at for at, patient in enumerate(dict.fromkeys(patients))}
    return patient_weights(len(numbers), resamples, seed)[:, [numbers[patient] for patient in patients]]


def mean_over(classes: list[Array]) -> Array:
    """Average the classes [B, ...] that have a figure; nan where none has."""
    stack = np.stack(classes)
    known = np.isfinite(stack)
    return ratio(np.where(known, stack, 0).sum(axis=0), known.sum(axis=0).astype(float))
