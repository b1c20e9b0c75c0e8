"""The built-in film and its golden result: engines that agree pass, and one that deviates in any way is named."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msloc_edge import Bundle, Localizer, selftest
from msloc_edge.backends import BACKENDS
from msloc_edge.bundle import shipped_models
from msloc_edge.errors import BundleError
from msloc_edge.train.phantom import generate

ON_CPU = [name for name in BACKENDS if not name.startswith("tensorrt")]
"""The others need a GPU: tests/backends/tensorrt."""


def test_the_film_is_the_phantom_that_it_says() -> None:
    film = cv2.imread(str(selftest.FILM), cv2.IMREAD_UNCHANGED)
    phantom = generate(5_000_010, (480, 420))
    assert film.dtype == np.uint8
    assert film.shape == (480, selftest.WIDTH)
    assert np.abs(film / 255 - phantom.display()).max() <= 1.01 / 255
    assert phantom.labels == {"Cardiomegaly", "Mass", "Pneumothorax"}


@pytest.mark.parametrize("model", ["tiny", *shipped_models()])
@pytest.mark.parametrize("backend", ON_CPU)
def test_every_engine_gives_the_golden_result(model: str, backend: str, tiny_bundle: Path) -> None:
    pytest.importorskip(backend)
    with Localizer(tiny_bundle if model == "tiny" else model, backend, all_classes=True) as localizer:
        golden = selftest.golden_of(localizer.bundle.manifest, model)
        deviation = selftest.compare(selftest.result(localizer), golden)
    assert set(golden["findings"]) == set(localizer.bundle.classes)
    assert any(found["boxes"] for found in golden["findings"].values())
    assert deviation.classes == ()
    assert deviation.logit < 1e-4
    assert deviation.iou > 0.99


def golden() -> dict[str, Any]:
    return {
        "film": "ab",
        "findings": {
            "Mass": {"logit": 1.0, "peak": [100.0, 200.0, 3.0], "boxes": [[90.0, 190.0, 20.0, 20.0]]},
            "Nodule": {"logit": -5.0, "peak": [10.0, 20.0, -3.0], "boxes": []},
        },
    }


def changed(**entries: Any) -> dict[str, Any]:
    found = copy.deepcopy(golden())
    found["findings"]["Mass"].update(entries)
    return found


@pytest.mark.parametrize(
    ("found", "passes"),
    [
        (golden(), True),
        (changed(logit=1.0009), True),
        (changed(logit=1.002), False),
        (changed(logit=math.nan), False),
        (changed(peak=[103.0, 202.0, 3.0]), True),
        (changed(peak=[105.0, 200.0, 3.0]), False),
        (changed(peak=[100.0, 200.0, 3.02]), False),
        (changed(boxes=[[90.0, 190.0, 20.0, 19.5]]), True),
        (changed(boxes=[[90.0, 190.0, 20.0, 15.0]]), False),
        (changed(boxes=[]), False),
        (changed(boxes=[[90.0, 190.0, 20.0, 20.0], [0.0, 0.0, 9.0, 9.0]]), False),
    ],
)
def test_the_limits(found: dict[str, Any], passes: bool) -> None:
    assert selftest.compare(found, golden()).classes == (() if passes else ("Mass",))


@pytest.mark.parametrize(
    ("found", "expected", "within"),
    [
        (0.3, 0.3009, True),
        (0.3, 0.3011, False),
        (0.3011, 0.3, False),
        (math.nan, 0.3, False),
        (0.3, None, True),  # made before bundles had the number
    ],
)
def test_the_limit_of_the_film_as_a_whole(found: float, expected: float | None, within: bool) -> None:
    mine = golden() | {"abnormal": found}
    theirs = golden() if expected is None else golden() | {"abnormal": expected}
    deviation = selftest.compare(mine, theirs)
    assert deviation.classes == ()
    assert (not deviation.beyond) == within
    assert deviation.abnormal == pytest.approx(0 if expected is None else abs(found - expected), nan_ok=True)


def test_a_class_beyond_its_limit_is_not_within() -> None:
    assert not selftest.compare(golden(), golden()).beyond
    assert selftest.compare(changed(logit=1.002), golden()).beyond


def test_a_gate_that_changed_is_noticed(bundle_with: Callable[..., Path]) -> None:
    """The classes are as before: only the number for the whole film tells."""
    with Localizer(bundle_with(abnormal={"weights": [0.1] * 8, "bias": -1.0}), all_classes=True) as localizer:
        expected = selftest.result(localizer)
        (gate,) = [result.gate for result in localizer.localize_batch([selftest.FILM])]
    assert gate
    assert expected["abnormal"] == round(gate.score, 6)
    with Localizer(bundle_with(abnormal={"weights": [0.1] * 8, "bias": -1.1}), all_classes=True) as localizer:
        deviation = selftest.compare(selftest.result(localizer), expected)
    assert deviation.classes == ()
    assert 0.01 < deviation.abnormal < 0.1
    assert "abnormal" in deviation.beyond


def test_a_golden_result_that_cannot_be_used(tiny_bundle: Path, bundle_with: Callable[..., Path]) -> None:
    for entry in (None, {"film": "of another version", "findings": {}}):
        manifest = Bundle.open(bundle_with(golden=entry)).manifest
        with pytest.raises(BundleError) as error:
            selftest.golden_of(manifest, "tiny")
        assert error.value.reason == "golden_missing"


def test_weights_that_changed_are_noticed(tiny_bundle: Path, bundle_with: Callable[..., Path]) -> None:
    """One relevance weight moved from a stage to another: hashes cannot tell, since this is the manifest itself."""
    relevance = json.loads((tiny_bundle / "manifest.json").read_text())["relevance"]
    relevance[0] = [*relevance[0][1:], relevance[0][0]]
    with Localizer(bundle_with(relevance=relevance), all_classes=True) as localizer:
        manifest = localizer.bundle.manifest
        deviation = selftest.compare(selftest.result(localizer), manifest["golden"])
    assert deviation.classes == (localizer.bundle.classes[0],)
