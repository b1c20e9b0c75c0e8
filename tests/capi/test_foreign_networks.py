"""Bundles of other people's networks in the C library, wrapped and as backbones of our head: boxes as in Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msloc_edge.backends import load_backend
from msloc_edge.export import export_bundle
from msloc_edge.export.class_maps import Normalisation
from msloc_edge.export.wrap import trace_classifier, wrap_bundle, write_draft
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

CLASSES = ("big heart", "water")
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def head_on_resnet(folder: Path, make_state: Callable[..., dict[str, Any]], films: list[np.ndarray]) -> Path:
    """Our head on three stages of a network of tests/export/networks.py, as `train --backbone` makes it."""
    stages = ("layer2", "layer3", "layer4")
    state = make_state(backbone="networks:resnet", stages_at=stages, size=128, neck="topdown")
    return export_bundle(state, folder / "bundle", films, name="head")[0].path


def wrapped(network: str, folder: Path) -> Path:
    """A network of tests/export/networks.py as a bundle that finds something on most films."""
    original = trace_classifier(f"networks:{network}", None, 128)
    draft = write_draft(original, folder / "draft", CLASSES, IMAGENET, name=network)
    films = np.stack([generate(seed, 128).display() for seed in range(4)])
    found = load_backend("onnxruntime", draft).run(films[:, None])
    heights = [found.fuse(image, range(2)).dense().max(axis=(1, 2)) for image in range(len(films))]
    maps = (np.median(heights, axis=0) - 1).astype(float).tolist()
    point = {
        "temperature": 2.0,
        "profiles": {"youden": {"score": [0.01, 0.01], "map": maps}},
        "default_profile": "youden",
        "calibration": {"scores": "4 films", "maps": dict.fromkeys(CLASSES, "by hand")},
        "validation": {"auroc": {}, "map_iou": {}},
    }
    return wrap_bundle(draft, point, folder / "bundle", list(films))[0].path


@pytest.fixture(scope="module", params=["densenet", "resnet", "head on resnet"])
def foreign(
    request: pytest.FixtureRequest,
    make_state: Callable[..., dict[str, Any]],
    phantom_films: list[np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "export"))
        if request.param == "head on resnet":
            yield head_on_resnet(folder, make_state, phantom_films)
        else:
            yield wrapped(request.param, folder)
    sys.modules.pop("networks", None)


def test_boxes_are_pythons(capi: Any, foreign: Path) -> None:
    count = 0
    with capi.open(foreign) as edge, Localizer(foreign, "onnxruntime", all_classes=True) as python:
        for seed, size in ((1, 128), (2, (200, 150)), (3, 300), (4, (90, 128))):
            stored = generate(seed, size).stored
            edge.localize(stored, bits_stored=12)
            result = python.run([python.prepare(Frame(stored, np.linspace(0, 1, 4096, dtype=np.float32)))])[0]
            for k, expected in enumerate(result.findings):
                assert edge.finding(k).score == pytest.approx(expected.score, abs=1e-4)
                assert agreement(edge.boxes(k)[:, :4], array_of(expected.boxes)) >= 0.99
                count += len(expected.boxes)
    assert count
