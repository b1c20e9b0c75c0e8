"""Logistic regression with a quadratic penalty, by Newton's method: few numbers, fitted often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS, _HALVINGS = 50, 20
_RIDGE = 1e-6  # keeps parameters finite where the films are separable


def fit_logistic(x: Array, positive: NDArray[np.bool_], penalty: Array, centre: Array) -> Array:
    """Minimise sum log-loss + (theta - centre)' penalty (theta - centre) / 2 of sigmoid(x theta).

    x         [N, P], with a column of ones for an intercept
    positive  [N]
    penalty   [P, P] symmetric, positive semidefinite; centre [P]
    returns   [P]

    >>> x = np.array([[1.0], [1.0], [1.0], [1.0]])  # three of four: log 3
    >>> fit_logistic(x, np.array([True, True, True, False]), np.zeros((1, 1)), np.zeros(1)).round(4)
    array([1.0986])
    """
    penalty = penalty + _RIDGE * np.eye(len(centre))
    theta = centre.astype(np.float64)
    loss = _loss(x, positive, penalty, theta, centre)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(x @ theta)))
        gradient = x.T @ (chance - positive) + penalty @ (theta - centre)
        step = np.linalg.solve((x.T * (chance * (1 - chance))) @ x + penalty, gradient)
        for halving in range(_HALVINGS):
            tried = theta - step / 2**halving
            if (found := _loss(x, positive, penalty, tried, centre)) <= loss:
                break
        else:
            break
        done = loss - found < 1e-10 * (1 + abs(loss))
        theta, loss = tried, found
        if done:
            break
    return theta


def _loss(x: Array, positive: NDArray[np.bool_], penalty: Array, theta: Array, centre: Array) -> float:
    odds, away = x @ theta, theta - centre
    return float((np.logaddexp(0, odds) - positive * odds).sum() + away @ penalty @ away / 2)
