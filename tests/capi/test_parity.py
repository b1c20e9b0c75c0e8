"""The C library against Python on the same stored pixels: phantoms, odd layouts, real films beside the checkout."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from msloc_edge.imaging.dicom.display import window
from msloc_edge.imaging.reading import read_frame
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

LOGIT, IOU = 1e-4, 0.99
SECONDS = 15
"""Time for the real films: when it is over, those beyond MIN_FILMS are left out."""
MIN_FILMS = 40
SIZES = [256, 64, 480, (480, 420), (200, 150), (64, 90), (257, 700), (1000, 800), (1955, 1841), (513, 512)]


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def python(request: pytest.FixtureRequest, bundle: Path) -> Iterator[Localizer]:
    with Localizer(bundle, request.param, all_classes=True) as localizer:
        yield localizer


def corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Left, top, right, bottom of boxes [N, 4]."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def compare(edge: Any, python: Localizer, frame: Frame) -> None:
    """Compare the library's result of the film that it has localized with Python's of `frame`."""
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
        theirs = array_of(expected.boxes)
        if agreement(boxes[:, :4], theirs) < IOU:
            # A pixel of the map that lies on its threshold, up to rounding, is in or out; and a small box feels it.
            map_, threshold = result.maps[expected.label], python.map_thresholds[expected.label]
            assert np.abs(map_ - threshold).min() < LOGIT, expected.label
            pixel = prepared.geometry.image_width / prepared.geometry.width
            assert np.abs(corners(boxes[:, :4]) - corners(theirs)).max() <= 1.01 * pixel, expected.label
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
        shown = window(np.arange(4096.0), center, width, "LINEAR")
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


ANY = {"min_area": 16, "min_share": 0.0}
RULE = {"min_area": 300, "min_share": 0.4}


def boxes_by_hand(values: np.ndarray, threshold: float, score: float, rule: dict[str, float]) -> np.ndarray:
    """Boxes [N, 5] of a map, by OpenCV: x, y, w, h in its own pixels, and a score, the strongest first."""
    above = (values > np.float32(threshold)).astype(np.uint8)
    count, regions, table, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    large = [i for i in range(1, count) if table[i, 4] >= rule["min_area"]]
    rises = np.array([values[regions == i].max() - threshold for i in large])
    highest = rises.max(initial=0)
    rows = [(*table[i, :4], score * rise / highest) for i, rise in zip(large, rises, strict=True)]
    kept = [row for row, rise in zip(rows, rises, strict=True) if rise >= rule["min_share"] * highest]
    return np.array(sorted(kept, key=lambda row: -row[4]), np.float64).reshape(-1, 5)


def with_operating_point(bundle: Path, folder: Path, abnormal: dict[str, Any], film: float) -> Path:
    """A copy of a bundle with these numbers and RULE; `film` is the threshold of its profile youden."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest |= {"abnormal": abnormal, "regions": RULE}
    manifest["profiles"]["youden"]["film"] = film
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def test_gate_and_region_rule(capi: Any, bundle: Path, python: Localizer, tmp_path: Path) -> None:
    """Against numpy on Python's logits and class maps. The films are as large as the input: boxes are in its pixels."""
    opened, profile = python.bundle, python.bundle.profile("youden")
    films = [generate(seed, opened.input_size).stored for seed in range(930, 942)]
    frames = [Frame(film, np.linspace(0, 1, 4096, dtype=np.float32)) for film in films]
    outputs = [python.backend.run(python.prepare(frame).input[None, None]) for frame in frames]
    logits = np.concatenate([output.logits for output in outputs]).astype(np.float64)
    weights = np.random.default_rng(5).uniform(0, 1, len(opened.classes)).round(3)
    evidence = np.log1p(np.exp(logits / opened.temperature)) @ weights
    abnormal = 1 / (1 + np.exp(np.median(evidence) - evidence))
    film_threshold = float(np.sort(abnormal)[[3, 4]].mean())  # 4 of 12 films do not pass
    candidates = (abnormal >= film_threshold)[:, None] & (opened.probabilities(logits) >= profile.score)

    numbers = {"weights": weights.tolist(), "bias": -float(np.median(evidence))}
    folder = with_operating_point(bundle, tmp_path / "bundle", numbers, film_threshold)
    left_out = positives = 0
    with capi.open(folder, profile=b"youden") as handle:
        for film, output, p_film, candidate in zip(films, outputs, abnormal, candidates, strict=True):
            cams = [torch.from_numpy(cam) for cam in output.cams]
            maps = fuse_cams(cams, torch.from_numpy(opened.relevance), opened.input_size)[0].numpy()
            columns = list(zip(maps, profile.map, opened.probabilities(output.logits[0]), strict=True))
            boxes = [boxes_by_hand(*column, RULE) for column in columns]
            left_out += sum(len(boxes_by_hand(*column, ANY)) for column in columns) - sum(map(len, boxes))
            positive = [bool(c) and len(b) > 0 for c, b in zip(candidate, boxes, strict=True)]
            positives += sum(positive)
            for all_classes in (True, False):
                handle.localize(film, bits_stored=12, all_classes=all_classes)
                summary, findings = handle.summary(), handle.findings()
                assert (summary.abnormal, summary.abnormal_threshold) == pytest.approx(
                    (p_film, film_threshold), abs=1e-4
                )
                assert [bool(finding.localized) for finding in findings] == (candidate | all_classes).tolist()
                assert [bool(finding.positive) for finding in findings] == positive
                assert summary.positive == sum(positive)
                for k in (k for k, finding in enumerate(findings) if finding.localized):
                    found = handle.boxes(k)
                    assert agreement(found[:, :4], boxes[k][:, :4]) >= IOU, opened.classes[k]
                    assert found[:, 4] == pytest.approx(boxes[k][:, 4], abs=1e-3)
    assert left_out > 0
    assert 0 < positives < candidates.sum()


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
            if done >= MIN_FILMS and time.monotonic() > until:
                break
    print(f"{done} of {len(films)} real films")
    assert done
