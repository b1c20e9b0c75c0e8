"""The C library against Python on the same stored pixels: phantoms, odd layouts, real films beside the checkout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msloc_edge.imaging.dicom import _window
from msloc_edge.imaging.reading import read_frame
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

LOGIT, IOU = 1e-4, 0.99
SECONDS = 15
"""For the real films: when they are over, what is left is left out."""
SIZES = [256, 64, 480, (480, 420), (200, 150), (64, 90), (257, 700), (1000, 800), (1955, 1841), (513, 512)]


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def python(request: pytest.FixtureRequest, bundle: Path) -> Iterator[Localizer]:
    with Localizer(bundle, request.param, all_classes=True) as localizer:
        yield localizer


def compare(edge: Any, python: Localizer, frame: Frame) -> None:
    """The library's result of the film that it has localized, against Python's of `frame`."""
    prepared = python.prepare(frame)
    logits = python.backend.run(prepared.input[None, None]).logits[0]
    result = python.run([prepared])[0]
    summary = edge.summary()
    assert {key: getattr(summary, key, value) for key, value in result.geometry.to_dict().items()} == (
        result.geometry.to_dict()
    )
    assert bool(summary.warnings & 1) == ("polarity_suspect" in result.warnings)
    for k, expected in enumerate(result.findings):
        found = edge.finding(k)
        assert found.label.decode() == expected.label
        assert found.logit == pytest.approx(float(logits[k]), abs=LOGIT)
        assert found.score == pytest.approx(expected.score, abs=LOGIT)
        assert (found.threshold, bool(found.positive)) == (expected.threshold, expected.positive)
        assert expected.peak is not None
        assert (found.peak_x, found.peak_y) == pytest.approx((expected.peak.x, expected.peak.y))
        assert found.peak_value == pytest.approx(expected.peak.value, abs=LOGIT)
        boxes = edge.boxes(k)
        assert agreement(boxes[:, :4], array_of(expected.boxes)) >= IOU, expected.label
        assert boxes[:, 4].tolist() == pytest.approx([box.score for box in expected.boxes], abs=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_phantoms(size: int | tuple[int, int], edge: Any, python: Localizer) -> None:
    for seed in (910, 911):
        phantom = generate(seed, size)
        inverted = phantom.photometric == "MONOCHROME1"
        center, width = phantom.window
        edge.localize(
            phantom.stored, bits_stored=12, photometric=int(inverted), voi=1, window_center=center, window_width=width
        )
        shown = _window(np.arange(4096.0), center, width, "LINEAR")
        compare(edge, python, Frame(phantom.stored, (1 - shown if inverted else shown).astype(np.float32)))


def test_layouts_of_one_film(edge: Any, python: Localizer) -> None:
    stored = generate(912, (300, 260)).stored
    frame = Frame(stored, np.linspace(0, 1, 4096, dtype=np.float32))
    padded = np.full((300, 333), 0xABCD, np.uint16)
    padded[:, 40:300] = stored | 0x5000  # overlays above the stored bits
    signed = (stored.astype(np.int16) - 2048) & 0xFFF
    layouts: list[tuple[np.ndarray, dict[str, Any]]] = [
        (stored, {"bits_stored": 12}),
        (padded[:, 40:300], {"bits_stored": 12}),
        (signed.astype(np.uint16), {"bits_stored": 12, "is_signed": 1}),
        (4095 - stored, {"bits_stored": 12, "photometric": 1}),
        (stored, {"lut": frame.lut}),
        (stored, {"bits_stored": 12, "rescale_slope": -2.0, "rescale_intercept": 7.0, "photometric": 1}),
    ]
    for pixels, values in layouts:
        edge.localize(pixels, **values)
        compare(edge, python, frame)


def test_maps_and_relevance(edge: Any, python: Localizer) -> None:
    stored = generate(913, (400, 310)).stored
    frame = Frame(stored, np.linspace(0, 1, 4096, dtype=np.float32))
    edge.localize(stored, bits_stored=12, all_classes=False)
    outputs = python.backend.run(python.prepare(frame).input[None, None])
    bundle = python.bundle
    cams = [torch.from_numpy(cam) for cam in outputs.cams]
    maps = fuse_cams(cams, torch.from_numpy(bundle.relevance), bundle.input_size)[0].numpy()
    for k in range(len(bundle.classes)):
        np.testing.assert_allclose(edge.map(k), maps[k], atol=LOGIT)
        weights = np.empty(len(bundle.stages), np.float32)
        edge.call("get_relevance", k, weights.ctypes.data_as(edge.pointer.__class__), len(weights))
        assert weights.tolist() == bundle.relevance[k].tolist()


def test_positive_classes_only(edge: Any, python: Localizer) -> None:
    stored = generate(914, 256, ["Mass", "Cardiomegaly"]).stored
    edge.localize(stored, bits_stored=12, all_classes=False)
    found = edge.findings()
    assert any(f.positive for f in found)
    assert [f.localized for f in found] == [f.positive for f in found]
    assert edge.summary().positive == sum(f.positive for f in found)


def test_real_films(edge: Any, bundle: Path, shared_data: Path) -> None:
    """All films where time allows, else a part of them evenly spread over both sets."""
    films = sorted(shared_data.glob("nih/images/**/*.*")) + sorted(shared_data.glob("nih128/images/**/*.*"))
    films = [film for stride in range(40) for film in films[stride::40]]
    until, done = time.monotonic() + SECONDS, 0
    with Localizer(bundle, "openvino", all_classes=True) as python:
        for path in films:
            frame = read_frame(path)
            edge.localize(frame.pixels, lut=frame.lut)
            compare(edge, python, frame)
            done += 1
            if time.monotonic() > until:
                break
    print(f"{done} of {len(films)} real films")
    assert done >= min(40, len(films))
