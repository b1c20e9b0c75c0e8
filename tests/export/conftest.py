"""What the tests of exports share: the small bundle, its network, and films with labels for the gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from msloc_edge.bundle import Bundle
from msloc_edge.export.precision.convert import Films
from msloc_edge.export.precision.gate import GateFilms
from msloc_edge.train.phantom import generate


@pytest.fixture(scope="session")
def opened(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="session")
def network(opened: Bundle) -> onnx.ModelProto:
    """The network of `tiny_bundle`; copy before changing it."""
    return onnx.load(opened.onnx)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Three model inputs, [3, 1, 64, 64]."""
    return np.stack([generate(seed, 64).display() for seed in (70, 71, 72)])[:, None]


@pytest.fixture(scope="session")
def small_films() -> Films:
    """Twelve phantoms to calibrate on, eight for the gate, of which one is not square.

    Their labels are unknown: seeded weights rank films by chance, and the least rounding would change their AUROC.
    """
    judged = [generate(seed, 64).display() for seed in range(200, 207)] + [generate(215, (90, 70)).display()]
    gate = GateFilms(judged, np.full((8, 8), np.nan, np.float32), "8 phantoms")
    return Films([generate(seed, 64).display() for seed in range(100, 112)], "12 phantoms", gate)
