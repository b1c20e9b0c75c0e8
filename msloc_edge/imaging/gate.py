"""The input gate: whether a picture is a frontal film of the chest, upright and in its polarity (docs/input-gate.md).

A network for chest films finds something in every picture. The gate looks at a thumbnail first, by a network so small
that its numbers travel in a bundle's manifest, and names what speaks against the film by a reason code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import BundleError

SIDE = 64
"""Side of the thumbnail, pixels."""

REASONS = ("rotated", "polarity_suspect", "not_chest", "not_xray", "cut_off")
"""What the network may see instead of a film that it knows, in the order of its outputs; the first output is a film."""

RULES = ("clipped", "low_resolution")
"""What needs no network: pixels at the ends of the range, and fewer of them than the model expects."""

REFUSED = ("not_xray", "not_chest", "not_frontal", "rotated", "polarity_suspect")
"""Reasons that refuse a film where its profile does not say otherwise, in the order in which they are named."""

_ENLARGED = 2.0
_END = 1 / 512
_MIN_CONTRAST = 0.02
_DEFAULT = Path(__file__).with_name("gate.json")

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class InputGate:
    """A small network over a thumbnail, and limits.

    convolutions  weights [out, in, 3, 3] and biases [out], each of stride 2, with zeros around and ReLU behind
    head          weights [1 + R, channels * cells] and biases [1 + R], of a film and of each of REASONS
    thresholds    [R] on the probability of a film, below which the likeliest of REASONS is named
    clipped       largest share of a film's pixels that are black or white
    numbers       all of it as the manifest has it
    """

    convolutions: tuple[tuple[Array, Array], ...]
    head: tuple[Array, Array]
    thresholds: tuple[float, ...]
    clipped: float
    numbers: Mapping[str, Any]

    def judge(self, film: Array, enlarged: float = 1.0) -> tuple[str, ...]:
        """Name what speaks against a film: codes of REASONS, at most one, and of RULES.

        film      [h, w] displayed brightness in [0, 1], without the letterbox's border
        enlarged  pixels of `film` for each pixel of the stored film, along a side
        """
        chance, *others = self.probabilities(film).tolist()
        likeliest = others.index(max(others))
        found = (REASONS[likeliest],) if chance < self.thresholds[likeliest] else ()
        ends = np.count_nonzero((film < _END) | (film > 1 - _END)) / film.size
        broken = (ends > self.clipped, enlarged > _ENLARGED)
        return found + tuple(code for code, breaks in zip(RULES, broken, strict=True) if breaks)

    def probabilities(self, film: Array) -> Array:
        """Compute the probabilities of a film [h, w]: [1 + R], of a frontal chest film and of each of REASONS."""
        cells = thumbnail(film)[None]
        for weights, bias in self.convolutions:
            cells = np.maximum(_halve(cells, weights) + bias[:, None, None], 0)
        weights, bias = self.head
        logits = weights @ cells.ravel() + bias
        chances = np.exp(logits - logits.max())
        return np.asarray(chances / chances.sum(), np.float32)


def thumbnail(film: Array) -> Array:
    """Average a film [h, w] over a grid of SIDE x SIDE areas, and bring it to mean 0 and deviation 1.

    >>> round(float(thumbnail(np.eye(64, dtype=np.float32))[0, 0]), 2)  # (1 - 1/64) / sqrt(1/64 - 1/64^2)
    7.94
    """
    import cv2  # bundles hold gates, and list themselves without it

    # [h + 1, w + 1], of all pixels above and to the left
    sums = np.asarray(cv2.integral(film, sdepth=cv2.CV_64F), np.float64)
    small = np.diff(np.diff(_at_edges(_at_edges(sums).T).T, axis=0), axis=1) * (SIDE * SIDE / film.size)
    return np.asarray((small - small.mean()) / max(float(small.std()), _MIN_CONTRAST), np.float32)


def _at_edges(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate running sums [n + 1, m] at the edges of SIDE equal areas: [SIDE + 1, m]; an edge may cut a pixel.

    No matrix product: one of a film's size wakes the threads of numpy's BLAS, which then spin for longer than the film
    takes, and double what it costs.
    """
    length = len(sums) - 1
    edges = np.arange(SIDE + 1) * (length / SIDE)
    pixel = np.minimum(edges.astype(int), length - 1)
    share = (edges - pixel)[:, None]
    return sums[pixel] * (1 - share) + sums[pixel + 1] * share


def _halve(cells: Array, weights: Array) -> Array:
    """Convolve [in, n, n] with weights [out, in, 3, 3] at every second cell, from the first on: [out, n/2, n/2]."""
    around = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))[:, ::2, ::2]
    return np.tensordot(weights, windows, axes=((1, 2, 3), (0, 3, 4)))


@cache
def default_gate() -> InputGate:
    """Read the gate that comes with this program: what `export` writes into a bundle."""
    return read_gate(_DEFAULT)


def read_gate(path: Path) -> InputGate:
    """Read a file of a gate's numbers. Raises BundleError (bundle_damaged) for what is none."""
    try:
        return parse_gate(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            "bundle_damaged", f"{path}: expected the numbers of an input gate, got {error!r}; fit it again"
        ) from error


def parse_gate(entry: Mapping[str, Any]) -> InputGate:
    """Read a manifest's `input_gate`. Raises KeyError, TypeError, ValueError for what is none.

    Weights are whole numbers of one byte in hexadecimal digits, times a scale: a film's reason takes a few kB.
    """
    if tuple(entry["reasons"]) != REASONS:
        raise ValueError(f"expected an input gate with the reasons {', '.join(REASONS)}, got {entry['reasons']}")
    thresholds, clipped = tuple(map(float, entry["thresholds"])), float(entry["clipped"])
    if len(thresholds) != len(REASONS) or not all(0 <= value <= 1 for value in (*thresholds, clipped)):
        raise ValueError("expected an input gate with a threshold of 0 to 1 for each reason, and a share of clipped")
    channels, side, convolutions = 1, SIDE, []
    for layer in entry["convolutions"]:
        convolutions.append(_layer(layer, (channels, 3, 3)))
        channels, side = len(convolutions[-1][1]), side // 2
    head = _layer(entry["head"], (channels * side * side,))
    if len(head[1]) != 1 + len(REASONS) or side < 1:
        raise ValueError(f"expected an input gate with {1 + len(REASONS)} outputs, got {len(head[1])}")
    return InputGate(tuple(convolutions), head, thresholds, clipped, entry)


def _layer(entry: Mapping[str, Any], inputs: Sequence[int]) -> tuple[Array, Array]:
    """Read weights [out, *inputs] and biases [out]."""
    bias, scale = np.array(entry["bias"], np.float32), float(entry["scale"])
    whole = np.frombuffer(bytes.fromhex(entry["weights"]), np.int8)
    if bias.ndim != 1 or whole.size != len(bias) * math.prod(inputs) or not np.isfinite((*bias, scale)).all():
        raise ValueError(f"expected a layer of {len(bias)} x {math.prod(inputs)} weights, got {whole.size}")
    return (whole * np.float32(scale)).reshape(len(bias), *inputs), bias


def write_layer(weights: Array, bias: Array) -> dict[str, Any]:
    """Write weights [out, ...] and biases [out] as `parse_gate` reads them, rounded to 1/127 of the largest weight.

    >>> write_layer(np.array([[1.0, -1.0]], np.float32), np.array([0.25], np.float32))
    {'scale': 0.00787402, 'weights': '7f81', 'bias': [0.25]}
    """
    scale = float(f"{np.abs(weights).max() / 127:.6g}")
    whole = np.clip(np.round(weights / scale), -127, 127).astype(np.int8)
    return {"scale": scale, "weights": whole.tobytes().hex(), "bias": bias.astype(float).round(5).tolist()}
