"""The input gate on a film's way: a refused film has its result, and no finding; the others are as without a gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msloc_edge import Localizer
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BundleError
from msloc_edge.imaging.gate import default_gate
from msloc_edge.render.overlay import overlay
from msloc_edge.result import Result
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

MakeBundle = Callable[..., Path]


@pytest.fixture(scope="module")
def gated(bundle_with: MakeBundle) -> Path:
    return bundle_with(input_gate=default_gate().numbers)


@pytest.fixture(scope="module")
def localizer(gated: Path) -> Iterator[Localizer]:
    with Localizer(gated) as opened:
        yield opened


@pytest.fixture(scope="module")
def upright() -> np.ndarray:
    return np.round(generate(3, (180, 150)).display() * 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def turned(upright: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(upright))


def with_profile(bundle_with: MakeBundle, bundle: Path, **entries: Any) -> Path:
    """The gated bundle with these entries in its default profile."""
    opened = Bundle.open(bundle)
    name = opened.default_profile
    profiles = {**opened.manifest["profiles"], name: opened.manifest["profiles"][name] | entries}
    return bundle_with(input_gate=default_gate().numbers, profiles=profiles)


def test_a_film_that_passes_has_the_findings_it_has_without_a_gate(
    localizer: Localizer, tiny_bundle: Path, upright: np.ndarray
) -> None:
    result = localizer.localize(upright)
    with Localizer(tiny_bundle) as plain:
        assert plain.input_gate is None
        assert result.findings == plain.localize(upright).findings
    assert (result.refused, result.warnings) == (None, ())
    assert result.to_dict()["refused"] is None


def test_a_refused_film_has_a_result_without_findings(localizer: Localizer, turned: np.ndarray) -> None:
    result = localizer.localize(turned)
    assert (result.refused, result.warnings) == ("rotated", ("rotated",))
    assert (result.findings, result.positive, result.boxes, result.gate) == ((), (), (), None)
    assert (dict(result.maps), dict(result.stage_maps)) == ({}, {})
    record = result.to_dict()
    assert (record["refused"], record["abnormal"], record["findings"]) == ("rotated", None, [])
    assert Result.from_dict(record).refused == "rotated"
    assert result.to_coco()["annotations"] == []


def test_the_films_beside_a_refused_one_keep_their_places(
    localizer: Localizer, upright: np.ndarray, turned: np.ndarray
) -> None:
    films = [turned, upright, turned, upright]
    alone = localizer.localize(upright).findings
    for results in (
        localizer.localize_batch(films),
        [outcome.result for outcome in localizer.stream(films, batch=2)],
    ):
        assert [result.refused for result in results if result] == ["rotated", None, "rotated", None]
        found = [result.findings for result in results if result]
        assert [[f.label for f in findings] for findings in found[1::2]] == [[f.label for f in alone]] * 2


def test_without_the_gate_every_picture_is_localized(gated: Path, turned: np.ndarray) -> None:
    with Localizer(gated, input_gate=False) as plain:
        result = plain.localize(turned)
    assert (result.refused, result.warnings) == (None, ())
    assert len(result.findings) == len(plain.bundle.classes)


def test_a_profile_may_only_warn(bundle_with: MakeBundle, gated: Path, turned: np.ndarray) -> None:
    with Localizer(with_profile(bundle_with, gated, refuse=[])) as warning:
        result = warning.localize(turned)
    assert (result.refused, result.warnings) == (None, ("rotated",))
    assert result.findings


@pytest.mark.parametrize("code", ["not_frontal", "not_chest"])
def test_a_header_refuses_too(localizer: Localizer, tiny_bundle: Path, upright: np.ndarray, code: str) -> None:
    frame = Frame(upright, np.linspace(0, 1, 65536, dtype=np.float32), warnings=("no_window", code))
    result = localizer.localize(frame)
    assert (result.refused, result.warnings) == (code, ("no_window", code))
    with Localizer(tiny_bundle) as plain:  # a bundle without a gate refuses nothing
        assert (plain.localize(frame).refused, plain.localize(frame).warnings) == (None, ("no_window", code))


@pytest.mark.parametrize("entry", [{}, [], {"reasons": ["rotated"]}, "gate", {"reasons": 3}])
def test_a_manifest_with_another_gate(bundle_with: MakeBundle, entry: Any) -> None:
    folder = bundle_with(input_gate=entry or {"reasons": []})
    with pytest.raises(BundleError) as error:
        Bundle.open(folder)
    assert error.value.reason == "bundle_damaged"


@pytest.mark.parametrize("refuse", [["no_window"], ["rotated", 3], 5])
def test_a_profile_that_refuses_for_no_reason_of_the_gate(bundle_with: MakeBundle, gated: Path, refuse: Any) -> None:
    with pytest.raises(BundleError) as error:
        Bundle.open(with_profile(bundle_with, gated, refuse=refuse))
    assert error.value.reason == "bundle_damaged"


def test_the_overlay_says_that_a_film_was_refused(localizer: Localizer, turned: np.ndarray) -> None:
    result = localizer.localize(turned)
    film = turned.astype(np.float32) / 65535
    refused, none_found = overlay(film, result), overlay(film, replace(result, refused=None))
    headline = np.s_[: refused.shape[0] // 4, film.shape[1] :]
    assert (refused[headline] != none_found[headline]).any()
