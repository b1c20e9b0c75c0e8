"""The input gate of the C library against Python's: the same films pass, the others are refused for the same reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msloc_edge.imaging.gate import default_gate
from msloc_edge.pipeline import Localizer
from msloc_edge.train.gate import drawn
from msloc_edge.train.phantom import generate

WARNINGS = {
    "polarity_suspect": 1,
    "not_chest": 16,
    "not_xray": 256,
    "rotated": 512,
    "cut_off": 1024,
    "clipped": 2048,
    "low_resolution": 4096,
}


@pytest.fixture(scope="module")
def gated(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of bundles with the gate that ships: gated(refuse=[...], **entries of its numbers)."""

    def make(refuse: list[str] | None = None, **entries: Any) -> Path:
        folder = shutil.copytree(bundle, tmp_path_factory.mktemp("gated") / "bundle", copy_function=os.link)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["input_gate"] = {**default_gate().numbers, **entries}
        if refuse is not None:
            manifest["profiles"][manifest["default_profile"]]["refuse"] = refuse
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


@pytest.fixture(scope="module", params=[None, []], ids=["refused", "warned"])
def both(request: pytest.FixtureRequest, capi: Any, gated: Callable[..., Path]) -> Iterator[tuple[Any, Localizer]]:
    """The library and Python with one bundle, which refuses what the gate names, or only warns of it."""
    folder = gated(refuse=request.param)
    with capi.open(folder) as edge, Localizer(folder) as python:
        yield edge, python


def pictures() -> dict[str, np.ndarray]:
    """Pictures [H, W] uint8 of every kind: films, turned, negative, cut, other parts, none at all, small, clipped."""
    films = [generate(seed, size).display() for seed, size in ((930, (480, 420)), (931, 200), (932, 64))]
    rng = np.random.default_rng(5)
    shown = {f"film {at}": film for at, film in enumerate(films)}
    shown |= {f"turned {turns}": np.rot90(films[0], turns) for turns in (1, 2, 3)}
    shown |= {"negative": 1 - films[0], "left half": films[0][:, :210], "clipped": np.round(films[1])}
    draws = (drawn.page, drawn.plot, drawn.texture, drawn.bones)
    shown |= {f"{draw.__name__} {at}": draw(rng) for draw in draws for at in range(4)}
    return {name: np.ascontiguousarray(np.round(255 * film).astype(np.uint8)) for name, film in shown.items()}


def test_the_same_films_pass(both: tuple[Any, Localizer]) -> None:
    edge, python = both
    reasons = set()
    for name, pixels in pictures().items():
        result = python.localize(pixels)
        try:
            edge.localize(pixels)
            status, warnings = None, edge.summary().warnings
        except Exception as error:
            status, warnings = error.status, None  # type: ignore[attr-defined]
        assert status == result.refused, name
        if warnings is not None:
            assert warnings == sum(WARNINGS[code] for code in result.warnings), name
        reasons |= {result.refused, *result.warnings}
    assert {"rotated", "polarity_suspect", "not_xray", "not_chest", "low_resolution", None} <= reasons


def test_a_refused_film_has_no_result(capi: Any, gated: Callable[..., Path], structs: dict[str, Any]) -> None:
    lines: list[dict[str, Any]] = []
    audit = structs["AuditFn"](lambda user, line: lines.append(json.loads(line)))
    film = generate(930, 256).display()
    upright = np.round(255 * film).astype(np.uint8)
    turned = np.ascontiguousarray(np.rot90(upright))
    with capi.open(gated(), audit=audit) as edge:
        edge.localize(upright)
        with pytest.raises(Exception, match="rotated: expected an upright frontal film"):
            edge.localize(turned)
        for call in (edge.summary, lambda: edge.finding(0)):
            with pytest.raises(Exception, match="no_result"):
                call()
        edge.localize(upright)
        assert edge.summary().warnings == 0
    assert [line["status"] for line in lines] == ["ok", "rotated", "ok"]
    assert "positive" not in lines[1]


@pytest.mark.parametrize(
    "entries",
    [
        {"reasons": ["rotated"]},
        {"thresholds": [0.1] * 4},
        {"thresholds": [2.0] * 5},
        {"clipped": -0.1},
        {"convolutions": []},
        {"convolutions": [{"scale": 1, "bias": [0.0], "weights": "zz" * 9}]},
        {"head": {"scale": 1, "bias": [], "weights": ""}},
    ],
    ids=str,
)
def test_numbers_that_are_no_gate(capi: Any, gated: Callable[..., Path], entries: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="bundle_damaged"), capi.open(gated(**entries)):
        pass


def test_a_reason_that_no_gate_has(capi: Any, gated: Callable[..., Path]) -> None:
    with pytest.raises(Exception, match=r"bundle_damaged: .*reasons to refuse"), capi.open(gated(refuse=["no_window"])):
        pass
