"""The whole way of one film, and of many at once: the real engine, the tiny bundle, phantoms."""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import msloc_edge
from msloc_edge import Localizer, _ordered, pipeline
from msloc_edge.backends import BACKENDS
from msloc_edge.errors import BackendError, BundleError, InputError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.pipeline import in_order
from msloc_edge.result import Result
from msloc_edge.train.phantom import generate, write_dicom, write_png
from msloc_edge.types import Box, FilmGate, Finding, Frame, OperatingPoint, Peak

MakeBundle = Callable[..., Path]
LONG = 60.0  # seconds until a thread that should come counts as lost

EVERYTHING, NOTHING = 0.0, 1.1
"""Score thresholds that every probability, and none, reaches."""

GATE = {"weights": [0.5, 0.25, 0.0, 1.0, 0.0, 0.125, 0.0, 0.0], "bias": -1.5}
"""A manifest's `abnormal` for the eight classes of the tiny bundle."""

ON_CPU = [name for name in BACKENDS if not name.startswith("tensorrt")]
"""The others need a GPU: tests/backends/tensorrt."""


def profiles(
    bundle: Path, score: list[float] | float, map: list[float] | float = -1e6, **entries: Any
) -> dict[str, Any]:
    """The manifest entries of a bundle whose one profile has these thresholds, and `entries` (film, rates)."""
    count = len(json.loads((bundle / "manifest.json").read_text())["classes"])
    rows = {"score": score, "map": map}
    profile = {key: value if isinstance(value, list) else [value] * count for key, value in rows.items()}
    return {"profiles": {"only": profile | entries}, "default_profile": "only"}


@pytest.fixture(scope="module")
def localizer(tiny_bundle: Path) -> Iterator[Localizer]:
    with Localizer(tiny_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def gated(tiny_bundle: Path, bundle_with: MakeBundle) -> MakeBundle:
    """A maker of bundles that judge the film first, by GATE: gated(film=0.5, regions=...), the rest as `profiles`."""

    def make(film: float | None, score: list[float] | float = EVERYTHING, regions: Any = None, **entries: Any) -> Path:
        return bundle_with(abnormal=GATE, regions=regions, **profiles(tiny_bundle, score, film=film, **entries))

    return make


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return np.round(generate(3, (90, 150)).display() * 65535).astype(np.uint16)


# One film


def test_an_array_a_frame_a_file_and_its_bytes_are_one_film(localizer: Localizer, tmp_path: Path) -> None:
    phantom = generate(4, (100, 80))
    path = tmp_path / "film.png"
    write_png(phantom, path)
    pixels = np.round(phantom.display() * 65535).astype(np.uint16)
    frame = Frame(pixels, np.arange(65536, dtype=np.float32) / 65535, "mine", "ab", ("narrow_range",))

    from_array, from_frame, from_path = (localizer.localize(way) for way in (pixels, frame, path))
    from_text = localizer.localize(str(path))
    from_bytes = localizer.run([localizer.prepare(path.read_bytes())])[0]

    assert [r.input for r in (from_array, from_frame, from_path, from_text, from_bytes)] == [
        *("array", "mine", str(path), str(path), "-")
    ]
    assert (from_array.sha256, from_frame.sha256) == ("", "ab")
    assert from_path.sha256 == from_bytes.sha256 != ""
    assert from_frame.warnings == ("narrow_range",)
    for result in (from_frame, from_path, from_text, from_bytes):
        assert result.findings == from_array.findings
        assert result.geometry == from_array.geometry
        assert list(result.maps) == list(from_array.maps)


def test_a_result_is_typed(localizer: Localizer, film: np.ndarray) -> None:
    result = localizer.localize(film)
    bundle = localizer.bundle
    assert isinstance(result, Result)
    assert result.model == bundle.id
    assert result.backend == "onnxruntime"
    assert [finding.label for finding in result.findings] == list(bundle.classes)
    assert result.positive, "the tiny bundle finds something on most films"
    for finding in result.findings:
        assert isinstance(finding, Finding)
        assert 0 < finding.score < 1
        assert finding.positive == (finding.score >= finding.threshold)
        assert len(finding.relevance) == len(bundle.stages)
        assert isinstance(finding.peak, Peak) == finding.positive
        assert all(isinstance(box, Box) for box in finding.boxes)
        assert finding.positive or not finding.boxes
        for box in finding.boxes:
            assert 0 <= box.x < box.x + box.w <= 150
            assert 0 <= box.y < box.y + box.h <= 90
            assert 0 < box.score <= finding.score
    wanted = {finding.label for finding in result.positive}
    assert set(result.maps) == set(result.stage_maps) == wanted
    for label in wanted:
        assert result.maps[label].shape == (result.geometry.height, result.geometry.width) != bundle.input_size
        assert [cam.shape for cam in result.stage_maps[label]] == [(s.height, s.width) for s in bundle.stages]


def test_the_result_line_is_the_schema(localizer: Localizer, film: np.ndarray) -> None:
    """Spelled out in full: devices parse this."""
    result = localizer.localize(film)
    record = result.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record) == [
        *("schema", "input", "sha256", "time", "program", "profile", "model", "backend", "geometry"),
        *("refused", "abnormal", "findings", "warnings", "timing_ms"),
    ]
    assert record["schema"] == "msloc-edge/result/1"
    assert record["program"] == f"msloc-edge {msloc_edge.__version__}"
    assert record["profile"] == localizer.bundle.default_profile == "youden"
    assert record["abnormal"] is None  # the bundle has no such number
    assert kinds(record["model"]) == {"name": str, "version": str, "sha256": str}
    assert kinds(record["geometry"]) == dict.fromkeys(
        ("image_width", "image_height", "input_width", "input_height", "left", "top", "width", "height"), int
    )
    assert kinds(record["timing_ms"]) == dict.fromkeys(("decode", "preprocess", "network", "fuse", "localize"), float)
    assert [type(record[key]) for key in ("input", "sha256", "backend", "warnings")] == [str, str, str, list]
    for finding, written in zip(result.findings, record["findings"], strict=True):
        expected = {"label": str, "score": float, "threshold": float, "positive": bool}
        assert kinds(written) == expected | {
            "peak": dict if finding.positive else type(None),
            "boxes": list,
            "relevance": list,
        }
        assert written["score"] == round(finding.score, 6)
        assert {type(weight) for weight in written["relevance"]} == {float}
        if finding.peak:
            assert kinds(written["peak"]) == {"x": float, "y": float, "value": float}
        assert len(written["boxes"]) == len(finding.boxes)
        for box in written["boxes"]:
            assert kinds(box) == dict.fromkeys(("x", "y", "w", "h", "score"), float)


def kinds(record: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in record.items()}


def test_a_result_says_when_it_was_made(localizer: Localizer, film: np.ndarray) -> None:
    begin = datetime.now(timezone.utc).replace(microsecond=0)
    time = datetime.fromisoformat(localizer.localize(film).to_dict()["time"])
    assert time.utcoffset() == timedelta(0)
    assert begin <= time <= datetime.now(timezone.utc)


def test_positive_is_sorted_and_the_others_are_not_localized(tiny_bundle: Path, bundle_with: MakeBundle) -> None:
    score = [EVERYTHING, NOTHING] * 4
    with Localizer(bundle_with(**profiles(tiny_bundle, score))) as localizer:
        result = localizer.localize(generate(5, 80).stored)
    assert [finding.positive for finding in result.findings] == [True, False] * 4
    assert {finding.label for finding in result.positive} == set(localizer.bundle.classes[::2])
    assert [f.excess for f in result.positive] == sorted((f.excess for f in result.positive), reverse=True)
    assert [finding.peak is None for finding in result.findings] == [False, True] * 4
    assert list(result.maps) == list(localizer.bundle.classes[::2])


def test_a_film_without_findings_is_a_valid_result(tiny_bundle: Path, bundle_with: MakeBundle) -> None:
    with Localizer(bundle_with(**profiles(tiny_bundle, NOTHING))) as localizer:
        result = localizer.localize(generate(5, 80).stored)
    assert result.positive == ()
    assert result.maps == result.stage_maps == {}
    assert {(f.peak, f.boxes) for f in result.findings} == {(None, ())}
    assert len(result.to_dict()["findings"]) == 8


def test_a_class_with_an_empty_map_is_not_positive(tiny_bundle: Path, bundle_with: MakeBundle) -> None:
    """Its score has reached its threshold, so it was localized: its map is there to be looked at."""
    with Localizer(bundle_with(**profiles(tiny_bundle, EVERYTHING, 1e6))) as localizer:
        result = localizer.localize(generate(5, 80).stored)
    assert result.positive == ()
    assert len(result.maps) == 8
    assert all(finding.peak and finding.boxes == () for finding in result.findings)


def test_all_classes(tiny_bundle: Path, bundle_with: MakeBundle) -> None:
    with Localizer(bundle_with(**profiles(tiny_bundle, NOTHING)), all_classes=True) as localizer:
        result = localizer.localize(generate(5, (120, 80)).stored)
    assert result.positive == ()
    assert list(result.maps) == list(localizer.bundle.classes)
    for finding in result.findings:  # every map pixel is above -1e6: one box, the whole film
        (box,) = finding.boxes
        assert (box.x, box.y, box.w, box.h, box.score) == pytest.approx((0, 0, 80, 120, finding.score))


def test_a_score_equal_to_its_threshold_is_positive(
    tiny_bundle: Path, bundle_with: MakeBundle, film: np.ndarray
) -> None:
    with Localizer(tiny_bundle) as localizer:
        scores = [finding.score for finding in localizer.localize(film).findings]
    higher = [float(np.nextafter(score, 1)) for score in scores]
    with Localizer(bundle_with(**profiles(tiny_bundle, scores))) as localizer:
        assert len(localizer.localize(film).positive) == 8
    with Localizer(bundle_with(**profiles(tiny_bundle, higher))) as localizer:
        assert len(localizer.localize(film).positive) == 0


# The film as a whole


def by_hand(logits: np.ndarray, temperature: float) -> float:
    """p_abnormal by the formula of docs/method.md, in plain Python."""
    evidence = sum(w * math.log1p(math.exp(z / temperature)) for w, z in zip(GATE["weights"], logits, strict=True))
    return 1 / (1 + math.exp(-evidence - GATE["bias"]))


@pytest.fixture(scope="module")
def p_abnormal(localizer: Localizer, film: np.ndarray) -> float:
    """Of `film` by GATE."""
    (logits,) = localizer.backend.run(localizer.prepare(film).batch).logits.astype(float)
    return by_hand(logits.tolist(), localizer.bundle.temperature)


def test_the_gate_of_a_film_by_hand(gated: MakeBundle, film: np.ndarray, p_abnormal: float) -> None:
    with Localizer(gated(film=0.25)) as localizer:
        result = localizer.localize(film)
    assert result.gate == FilmGate(pytest.approx(p_abnormal, rel=1e-5), 0.25)
    assert 0.05 < p_abnormal < 0.95, "a gate that this film tells nothing about"
    assert result.to_dict()["abnormal"] == {
        "score": pytest.approx(p_abnormal, abs=1e-5),
        "threshold": 0.25,
        "positive": p_abnormal >= 0.25,
    }


def test_a_film_that_fails_the_gate_has_no_finding_and_no_map(
    gated: MakeBundle, film: np.ndarray, p_abnormal: float
) -> None:
    with Localizer(gated(film=p_abnormal + 1e-3)) as localizer:
        result = localizer.localize(film)
    assert result.gate
    assert not result.gate.positive
    assert all(finding.score >= finding.threshold for finding in result.findings)
    assert result.positive == result.boxes == ()
    assert result.maps == result.stage_maps == {}
    assert result.to_dict()["abnormal"]["positive"] is False


def test_all_classes_of_a_film_that_fails_the_gate(gated: MakeBundle, film: np.ndarray, p_abnormal: float) -> None:
    """They are localized, with boxes, for who wants to look; none is positive."""
    with Localizer(gated(film=p_abnormal + 1e-3), all_classes=True) as localizer:
        result = localizer.localize(film)
    assert result.positive == result.boxes == ()
    assert list(result.maps) == list(localizer.bundle.classes)
    assert all(finding.peak and finding.boxes for finding in result.findings)


def test_behind_the_gate_a_finding_needs_its_score_and_a_region(
    gated: MakeBundle, film: np.ndarray, p_abnormal: float
) -> None:
    """Classes 0 and 1 have both, 2 and 3 no region, 4 and 5 no score, 6 and 7 neither."""
    score, map = [EVERYTHING] * 4 + [NOTHING] * 4, [-1e6, -1e6, 1e6, 1e6] * 2
    with Localizer(gated(film=p_abnormal - 1e-3, score=score, map=map), all_classes=True) as localizer:
        result = localizer.localize(film)
    assert result.gate
    assert result.gate.positive
    assert [finding.positive for finding in result.findings] == [True] * 2 + [False] * 6
    assert [bool(finding.boxes) for finding in result.findings] == [True, True, False, False] * 2


def test_each_film_of_a_batch_has_its_own_gate(gated: MakeBundle) -> None:
    films = [generate(seed, 80).stored for seed in range(30, 36)]
    with Localizer(gated(film=None)) as localizer:
        scores = [result.gate.score for result in localizer.localize_batch(films) if result.gate]
    middle = float(np.mean(sorted(scores)[2:4]))  # halfway between the third and the fourth
    with Localizer(gated(film=middle)) as localizer:
        results = localizer.localize_batch(films)
    assert [bool(result.positive) for result in results] == [score > middle for score in scores]
    assert sum(bool(result.positive) for result in results) == 3


def test_a_gate_may_be_open(gated: MakeBundle, film: np.ndarray, p_abnormal: float) -> None:
    """A profile without a film threshold: the number is there to be read, and decides nothing."""
    with Localizer(gated(film=None)) as localizer:
        result = localizer.localize(film)
    assert result.gate == FilmGate(pytest.approx(p_abnormal, rel=1e-5), None)
    assert len(result.positive) == 8
    assert result.to_dict()["abnormal"]["threshold"] is None


@pytest.mark.parametrize(("larger", "boxes"), [(0, 1), (1, 0)])
def test_fragments_are_no_boxes(gated: MakeBundle, film: np.ndarray, larger: int, boxes: int) -> None:
    """Every map is above -1e6 all over the film, so its one region is as large as the film's part of the input."""
    with Localizer(gated(film=0.0)) as localizer:
        geometry = localizer.prepare(film).geometry
    min_area = geometry.width * geometry.height + larger
    with Localizer(gated(film=0.0, regions={"min_area": min_area, "min_share": 0.0})) as localizer:
        result = localizer.localize(film)
    assert {len(finding.boxes) for finding in result.findings} == {boxes}
    assert {finding.positive for finding in result.findings} == {bool(boxes)}
    assert all(finding.peak for finding in result.findings)


def test_weak_regions_are_no_boxes(gated: MakeBundle, localizer: Localizer) -> None:
    """With a share of 1 only the strongest region of a map stays; with 0 all of them do."""
    film, thresholds = generate(5, 200).stored, list(localizer.profile.map)
    counts = {}
    for share in (0.0, 1.0):
        bundle = gated(film=0.0, map=thresholds, regions={"min_area": 1, "min_share": share})
        with Localizer(bundle) as own:
            found = own.localize(film).findings
        counts[share] = [len(finding.boxes) for finding in found]
        scores = [finding.boxes[0].score for finding in found if finding.boxes]
        assert scores == [finding.score for finding in found if finding.boxes]
    assert max(counts[0.0]) > 1
    assert counts[1.0] == [min(count, 1) for count in counts[0.0]]


def test_a_result_names_the_profile_and_its_rate(
    tiny_bundle: Path, bundle_with: MakeBundle, gated: MakeBundle, film: np.ndarray
) -> None:
    rates = {"normals_flagged": {"value": 0.098, "low": 0.08, "high": 0.12, "n": 900}}
    with Localizer(gated(film=0.5, rates=rates)) as localizer:
        result = localizer.localize(film)
    assert result.operating_point == OperatingPoint("only", 0.098)
    assert result.to_dict()["profile"] == "only"
    with Localizer(tiny_bundle, profile="specificity-95") as localizer:
        assert localizer.localize(film).operating_point == OperatingPoint("specificity-95", None)


def test_logits_that_are_no_numbers_are_an_error(tiny_bundle: Path, film: np.ndarray) -> None:
    """NaN is below every threshold: a broken engine must not read as a normal film."""
    with Localizer(tiny_bundle) as localizer:
        run = localizer.backend.run

        def broken(*arguments: Any) -> Any:
            outputs = run(*arguments)
            outputs.logits[0, 3] = np.nan
            return outputs

        localizer.backend.run = broken  # type: ignore[method-assign]
        with pytest.raises(BackendError, match="finite logits") as error:
            localizer.localize(film)
        (outcome,) = localizer.stream([film])
    assert error.value.reason == "backend_failed"
    assert outcome.error
    assert outcome.error.reason == "backend_failed"


# The map


def test_the_map_is_an_account_of_the_score(tiny_bundle: Path, bundle_with: MakeBundle) -> None:
    """mean(M_k) = z_k - b_k through the whole pipeline: file, letterbox, engine, fusion (square film, average pool)."""
    assert json.loads((tiny_bundle / "manifest.json").read_text())["pool"] == "avg"
    with Localizer(bundle_with(temperature=3.0), all_classes=True) as localizer:
        result = localizer.localize(generate(6, 200).stored)
    for finding, bias in zip(result.findings, localizer.bundle.bias, strict=True):
        logit = 3.0 * np.log(finding.score / (1 - finding.score))
        assert result.maps[finding.label].mean(dtype=np.float64) == pytest.approx(logit - bias, abs=1e-4)


def test_the_map_is_the_weighted_sum_of_its_stages(localizer: Localizer) -> None:
    result = localizer.localize(generate(7, 200).stored)
    for finding in result.positive:
        means = [cam.mean(dtype=np.float64) for cam in result.stage_maps[finding.label]]
        total = float(np.dot(means, finding.relevance))
        assert result.maps[finding.label].mean(dtype=np.float64) == pytest.approx(total, abs=1e-4)


def test_both_photometric_interpretations_give_one_result(
    tiny_bundle: Path, bundle_with: MakeBundle, tmp_path: Path
) -> None:
    paths = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        paths.append(tmp_path / f"{photometric}.dcm")
        write_dicom(generate(8, (150, 130), photometric=photometric), paths[-1])
    with Localizer(tiny_bundle, all_classes=True) as localizer:
        maps = localizer.localize(paths[0]).maps.values()
    halfway = [float(m.mean() + m.max()) / 2 for m in maps]
    with Localizer(bundle_with(**profiles(tiny_bundle, EVERYTHING, halfway))) as localizer:
        inverted, plain = (localizer.localize(path) for path in paths)
    assert inverted.sha256 != plain.sha256
    assert inverted.warnings == plain.warnings == ()
    for one, other in zip(inverted.findings, plain.findings, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert len(one.boxes) == len(other.boxes) >= 1
        for a, b in zip(one.boxes, other.boxes, strict=True):
            assert (a.x, a.y, a.w, a.h) == pytest.approx((b.x, b.y, b.w, b.h), abs=1e-6)
            assert a.score == pytest.approx(b.score, abs=1e-4)


def test_a_batch_is_its_films(localizer: Localizer) -> None:
    films = [localizer.prepare(generate(seed, (64 + seed, 90)).stored) for seed in range(20, 25)]
    together, alone = localizer.run(films), [localizer.run([film])[0] for film in films]
    for one, other in zip(together, alone, strict=True):
        assert one.geometry == other.geometry
        assert [f.score for f in one.findings] == pytest.approx([f.score for f in other.findings], abs=1e-5)
        assert [len(f.boxes) for f in one.findings] == [len(f.boxes) for f in other.findings]


@pytest.mark.parametrize("backend", ON_CPU)
def test_every_backend_gives_the_same_result(localizer: Localizer, gated: MakeBundle, backend: str) -> None:
    pytest.importorskip(backend)
    film, thresholds = generate(9, (90, 150)).stored, localizer.profile
    bundle = gated(film=0.0, score=list(thresholds.score), map=list(thresholds.map))
    with Localizer(bundle, backend) as other, Localizer(bundle) as usual:
        result, expected = other.localize(film), usual.localize(film)
    assert result.backend == backend
    assert result.gate
    assert expected.gate
    assert result.gate.score == pytest.approx(expected.gate.score, abs=1e-5)
    assert [f.label for f in result.ranked] == [f.label for f in expected.ranked]
    assert result.positive
    for one, reference in zip(result.findings, expected.findings, strict=True):
        assert one.score == pytest.approx(reference.score, abs=1e-4)
        assert len(one.boxes) == len(reference.boxes)
        for a, b in zip(one.boxes, reference.boxes, strict=True):
            assert (a.x, a.y, a.w, a.h) == pytest.approx((b.x, b.y, b.w, b.h), abs=1e-6)


def test_a_precision_is_the_backends(localizer: Localizer, tiny_bundle: Path) -> None:
    film = generate(9, (90, 150)).stored
    with Localizer(tiny_bundle, "torch", precision="bf16") as other:
        assert other.backend.describe()["precision"] == "bf16"
        found = [finding.score for finding in other.localize(film).findings]
    expected = [finding.score for finding in localizer.localize(film).findings]
    assert found != expected
    assert found == pytest.approx(expected, abs=0.05)


def test_the_shipped_model_localizes(film: np.ndarray) -> None:
    from msloc_edge.bundle import DEFAULT_MODEL, shipped_models

    if DEFAULT_MODEL not in shipped_models():
        pytest.skip(f"{DEFAULT_MODEL} is not in this checkout")
    with Localizer() as localizer:
        assert localizer.localize(film).model.name == DEFAULT_MODEL


def test_what_cannot_be_set_up(tiny_bundle: Path, tmp_path: Path) -> None:
    for raises, reason, arguments in (
        (BundleError, "bundle_missing", {"model": tmp_path / "none"}),
        (BundleError, "profile_unknown", {"model": tiny_bundle, "profile": "strict"}),
        (BackendError, "backend_unknown", {"model": tiny_bundle, "backend": "abacus"}),
        (BackendError, "backend_device", {"model": tiny_bundle, "device": "toaster"}),
        (BackendError, "backend_device", {"model": tiny_bundle, "precision": "fp16"}),
    ):
        with pytest.raises(raises) as error:
            Localizer(**arguments)
        assert error.value.reason == reason


def test_one_bad_film_raises(localizer: Localizer, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        localizer.localize(tmp_path / "none.png")
    assert error.value.reason == "missing"


# Many films


class Loader:
    """Loads films by number: keeps count, and knows how many prepared films are alive."""

    def __init__(self, localizer: Localizer) -> None:
        self._localizer, self._film, self._lock = localizer, generate(1, 64).stored, threading.Lock()
        self.started, self.alive, self.most_alive = 0, 0, 0

    def __call__(self, number: int) -> Prepared:
        with self._lock:
            self.started += 1
        prepared = self._localizer.prepare(self._film)
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(prepared.input, self._gone)
        return prepared

    def _gone(self) -> None:
        with self._lock:
            self.alive -= 1


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (1, 3), (4, 2), (7, 1), (64, 2)])
def test_order_and_count_for_any_batch(localizer: Localizer, batch: int, workers: int) -> None:
    outcomes = list(localizer.stream(range(10), Loader(localizer), batch, workers))
    assert [outcome.film for outcome in outcomes] == list(range(10))
    assert all(outcome.result and outcome.prepared and not outcome.error for outcome in outcomes)


def test_no_films(localizer: Localizer) -> None:
    assert list(localizer.stream([], Loader(localizer))) == []


def test_a_slow_film_keeps_its_place(localizer: Localizer) -> None:
    """Film 0 is held until film 2 has been loaded: another thread must load it, and 0 must still come first."""
    load, later = Loader(localizer), threading.Event()

    def slow(number: int) -> Prepared:
        if number == 0:
            assert later.wait(LONG)
        elif number == 2:
            later.set()
        return load(number)

    outcomes = list(localizer.stream(range(5), slow, batch=2, workers=2))
    assert [outcome.film for outcome in outcomes] == list(range(5))
    assert all(outcome.result for outcome in outcomes)


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (1, 2), (3, 2)])
def test_memory_stays_flat(localizer: Localizer, batch: int, workers: int) -> None:
    load, limit = Loader(localizer), 5 * batch + workers
    for outcome in localizer.stream(range(60), load, batch, workers):
        assert load.started - outcome.film <= limit
        del outcome  # else the loop itself would hold one more
    assert load.started == 60
    assert load.most_alive <= limit


def test_films_are_taken_as_they_are_needed(localizer: Localizer) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    stream = localizer.stream(endless(), Loader(localizer), batch=2, workers=2)
    assert [next(stream).film for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    stream.close()
    assert taken <= 7 + 5 * 2 + 2


def test_errors_in_the_middle(localizer: Localizer) -> None:
    load = Loader(localizer)

    def sometimes(number: int) -> Prepared:
        if number in (0, 4, 5):
            raise InputError("truncated", f"film {number}")
        if number == 7:
            raise ZeroDivisionError("a surprise")
        return load(number)

    outcomes = list(localizer.stream(range(9), sometimes, batch=3, workers=2))
    assert [outcome.film for outcome in outcomes] == list(range(9))
    assert [outcome.error.reason if outcome.error else "" for outcome in outcomes] == [
        *("truncated", "", "", "", "truncated", "truncated", "", "internal_error", "")
    ]
    assert "ZeroDivisionError: a surprise" in str(outcomes[7].error)
    assert all((outcome.result is None) == (outcome.error is not None) for outcome in outcomes)


def test_only_errors(localizer: Localizer) -> None:
    def never(number: int) -> Prepared:
        raise InputError("truncated", f"film {number}")

    outcomes = list(localizer.stream(range(5), never, batch=2))
    assert [outcome.error.reason for outcome in outcomes if outcome.error] == ["truncated"] * 5


def test_a_surprise_in_the_engine_fails_its_batch_only(localizer: Localizer) -> None:
    load = Loader(localizer)

    def misfit(number: int) -> Prepared:
        film = load(number)
        if number != 3:
            return film
        return replace(film, input=film.input[:, :-1])

    outcomes = list(localizer.stream(range(6), misfit, batch=2))
    assert [outcome.error.reason if outcome.error else "" for outcome in outcomes] == [
        *("", "", "internal_error", "internal_error", "", "")
    ]


def test_the_engine_refuses_another_size(localizer: Localizer) -> None:
    film = localizer.prepare(generate(1, 64).stored)
    smaller = replace(film, input=film.input[:-1, :-1])
    with pytest.raises(BackendError) as error:
        localizer.run([smaller])
    assert error.value.reason == "backend_failed"


def test_in_order_cancels_what_was_not_begun() -> None:
    begun, go, first_done = [], threading.Event(), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            first_done.set()
            assert go.wait(LONG)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(100), ahead=5)
        assert next(results) == (0, 0)
        assert first_done.wait(LONG)  # film 1 is being worked on, films 2 to 5 wait
        results.close()
        go.set()
    assert begun == [0, 1]


def test_a_closed_stream_loads_no_more(localizer: Localizer) -> None:
    load, go, third = Loader(localizer), threading.Event(), threading.Event()

    def held(number: int) -> Prepared:
        if number == 2:
            third.set()
            assert go.wait(LONG)
        return load(number)

    stream = localizer.stream(range(100), held, batch=1, workers=1)
    assert next(stream).film == 0
    assert third.wait(LONG)
    threading.Timer(0.2, go.set).start()  # close() waits for the film that is being loaded
    stream.close()
    assert load.started == 3


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow film is overtaken after a tenth of a second."""
    for module in (_ordered, pipeline):
        monkeypatch.setattr(module, "OVERTAKE_S", 0.1)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (1, 2), (4, 2)])
def test_films_before_a_slow_one_are_not_withheld(localizer: Localizer, batch: int, workers: int) -> None:
    """Film 3 is held until the three before it have come out; four would fill the batch."""
    load, go = Loader(localizer), threading.Event()

    def held(number: int) -> Prepared:
        assert number != 3 or go.wait(LONG)
        return load(number)

    stream = localizer.stream(range(6), held, batch, workers)
    first = [next(stream).film for _ in range(3)]
    go.set()
    assert sorted(first) == [0, 1, 2]
    assert sorted(outcome.film for outcome in stream) == [3, 4, 5]


@pytest.mark.usefixtures("hasty")
def test_a_slow_film_is_overtaken(localizer: Localizer) -> None:
    load, go = Loader(localizer), threading.Event()

    def held(number: int) -> Prepared:
        assert number != 1 or go.wait(LONG)
        return load(number)

    stream = localizer.stream(range(12), held, batch=1, workers=2)
    first = [next(stream).film for _ in range(11)]
    go.set()
    assert sorted(first) == [0, *range(2, 12)]
    assert [outcome.film for outcome in stream] == [1]


class Panic(BaseException):
    """What a library in Rust raises: no Exception."""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Panic("index out of bounds"), "internal_error"),
        (RecursionError("too deep"), "internal_error"),
        (MemoryError(), "too_large"),
    ],
)
def test_whatever_a_film_raises_is_its_own_failure(localizer: Localizer, fault: BaseException, reason: str) -> None:
    load = Loader(localizer)

    def sometimes(number: int) -> Prepared:
        if number == 1:
            raise fault
        return load(number)

    outcomes = list(localizer.stream(range(3), sometimes))
    assert [outcome.error.reason if outcome.error else "" for outcome in outcomes] == ["", reason, ""]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_the_program_is_heard(localizer: Localizer, stop: type[BaseException]) -> None:
    def stopped(number: int) -> Prepared:
        raise stop

    with pytest.raises(stop):
        list(localizer.stream(range(3), stopped))


# In many threads


def test_threads_share_one_localizer(localizer: Localizer) -> None:
    films = [generate(seed, (64 + seed, 90)).stored for seed in range(6)]
    expected = [localizer.localize(film).findings for film in films]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda at: localizer.localize(films[at % 6]).findings, range(60)))
    assert found == [expected[at % 6] for at in range(60)]


@pytest.mark.parametrize("backend", ON_CPU)
def test_engines_take_turns(tiny_bundle: Path, backend: str) -> None:
    """An engine is asked by one thread at a time, also those that would not bear it (OpenVINO's request is one)."""
    pytest.importorskip(backend)
    films = [generate(seed, 80).stored for seed in range(4)]
    with Localizer(tiny_bundle, backend, threads=1) as shared:
        run, inside, most = shared.backend.run, 0, 0

        def counted(*arguments: Any) -> Any:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            outputs = run(*arguments)
            inside -= 1
            return outputs

        shared.backend.run = counted  # type: ignore[method-assign]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(shared.localize, films * 3))
        alone = [shared.localize(film) for film in films * 3]
    assert most == 1
    assert [r.findings for r in together] == [r.findings for r in alone]


@pytest.mark.parametrize(("backend", "lanes"), [("onnxruntime", 3), ("openvino", 1)])
def test_lanes_run_batches_beside_each_other(tiny_bundle: Path, backend: str, lanes: int) -> None:
    """Where the engine can: three batches meet inside it, or none could go on."""
    pytest.importorskip(backend)
    films = [generate(seed, 80).stored for seed in range(6)]
    with Localizer(tiny_bundle, backend, threads=1, lanes=3) as shared:
        run, together = shared.backend.run, threading.Barrier(lanes)

        def met(*arguments: Any) -> Any:
            together.wait(timeout=60)
            outputs = run(*arguments)
            together.wait(timeout=60)  # a fourth would break the next meeting
            return outputs

        shared.backend.run = met  # type: ignore[method-assign]
        outcomes = list(shared.stream(films, workers=3))
        shared.backend.run = run  # type: ignore[method-assign]
        assert [o.error for o in outcomes] == [None] * 6
        assert [o.result and o.result.findings for o in outcomes] == [shared.localize(f).findings for f in films]


def test_a_closed_localizer_says_so(tiny_bundle: Path, film: np.ndarray) -> None:
    with Localizer(tiny_bundle) as localizer:
        localizer.localize(film)
    localizer.close()
    with pytest.raises(BackendError) as error:
        localizer.localize(film)
    assert error.value.reason == "backend_closed"


def test_a_backend_of_ones_own(tiny_bundle: Path, film: np.ndarray) -> None:
    with Localizer(tiny_bundle) as usual:
        own = Localizer(tiny_bundle, usual.backend)
        assert own.localize(film).findings == usual.localize(film).findings


def test_the_batch_form(localizer: Localizer, film: np.ndarray) -> None:
    films = [film, generate(4, 80).stored]
    results = localizer.localize_batch(films)
    assert [r.geometry for r in results] == [localizer.localize(f).geometry for f in films]
    assert localizer.localize_batch([]) == []
    outcomes = list(localizer.stream([film, "no such file.png", films[1]]))
    assert [o.error.reason if o.error else "" for o in outcomes] == ["", "missing", ""]


def test_whatever_becomes_an_array_is_a_film(localizer: Localizer) -> None:
    from PIL import Image

    pixels = generate(4, 80).display()
    eight = np.round(pixels * 255).astype(np.uint8)
    assert localizer.localize(Image.fromarray(eight)).findings == localizer.localize(eight).findings
    with pytest.raises(InputError, match="got int") as error:
        localizer.localize(7)  # type: ignore[arg-type]
    assert error.value.reason == "not_an_image"
