"""A result in the forms that other tools take, checked with those tools."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msloc_edge import Box, Finding, Localizer, Result, to_coco
from msloc_edge.backends import BACKENDS
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.render.colors import palette, rgb
from msloc_edge.train.phantom import generate, write_png
from msloc_edge.types import FilmGate, ModelId, OperatingPoint, Peak

ON_CPU = [name for name in BACKENDS if not name.startswith("tensorrt")]
"""The others need a GPU."""


def result_of(*findings: Finding, name: str = "film.png") -> Result:
    geometry = Geometry.fit((80, 100), (64, 64))
    return Result(name, "", ModelId("tiny", "1", "ab"), "onnxruntime", geometry, findings)


def finding(label: str, score: float, *boxes: tuple[float, float, float, float, float]) -> Finding:
    found = tuple(Box(*box, label) for box in boxes)
    return Finding(label, score, 0.5, score >= 0.5, (1.0,), None, found)


SOME = result_of(
    finding("Mass", 0.6, (10, 20, 30, 40, 0.6), (0, 0, 5, 5, 0.2)),
    finding("Edema", 0.3, (1, 1, 2, 2, 0.3)),  # below its threshold: localized by --all-classes, but no finding
    finding("Nodule", 0.9, (50.5, 60.25, 8, 9, 0.9)),
)
NONE = result_of(finding("Mass", 0.1), finding("Edema", 0.1), finding("Nodule", 0.1), name="normal.png")


@pytest.fixture(scope="module")
def localizer(tiny_bundle: Path) -> Iterator[Localizer]:
    with Localizer(tiny_bundle) as opened:
        yield opened


def test_excess_is_the_distance_in_log_odds() -> None:
    # odds 1 and 1/9: log 9; odds 1/49 and 1/99: log 99/49
    assert Finding("Mass", 0.5, 0.1, True, ()).excess == pytest.approx(np.log(9))
    assert Finding("Hernia", 0.02, 0.01, True, ()).excess == pytest.approx(np.log(99 / 49))
    assert Finding("Mass", 0.1, 0.5, False, ()).excess == pytest.approx(-np.log(9))
    assert Finding("Mass", 0.3, 0.3, True, ()).excess == 0


def test_excess_of_certain_scores_is_finite() -> None:
    findings = [Finding("Mass", score, threshold, True, ()) for score in (0.0, 1.0) for threshold in (0.0, 1.0, 1.1)]
    assert np.isfinite([finding.excess for finding in findings]).all()


def test_findings_are_ranked_by_how_far_they_exceed_their_thresholds() -> None:
    """Not by raw score: a rare class at 0.02 may be further above its threshold than a common one at 0.6."""
    result = result_of(
        Finding("Hernia", 0.02, 0.01, True, ()),
        Finding("Effusion", 0.95, 0.5, False, ()),  # the score alone is no finding
        Finding("Mass", 0.5, 0.1, True, ()),
        Finding("Infiltration", 0.6, 0.55, True, ()),
        Finding("Edema", 0.3, 0.5, False, ()),
    )
    assert [f.label for f in result.positive] == ["Mass", "Hernia", "Infiltration"]
    assert [f.label for f in result.ranked] == ["Mass", "Hernia", "Infiltration", "Effusion", "Edema"]
    assert [f.label for f in result.findings] == ["Hernia", "Effusion", "Mass", "Infiltration", "Edema"]


def test_a_region_is_lacking_where_the_score_alone_is_not_enough() -> None:
    peak, box = Peak(1.0, 1.0, 3.0), Box(0, 0, 2, 2, 0.6)
    assert Finding("Mass", 0.6, 0.5, False, (), peak).lacks_region
    assert not Finding("Mass", 0.6, 0.5, True, (), peak, (box,)).lacks_region
    assert not Finding("Mass", 0.4, 0.5, False, (), peak).lacks_region  # all classes were localized
    assert not Finding("Mass", 0.6, 0.5, False, ()).lacks_region  # nobody looked: the film fails its gate


def test_a_gate_is_passed_from_its_threshold_on() -> None:
    assert FilmGate(0.3, 0.3).positive
    assert not FilmGate(0.2999, 0.3).positive
    assert FilmGate(0.0, None).positive


def test_the_line_of_a_gated_film() -> None:
    result = replace(
        SOME,
        gate=FilmGate(0.12345678, 0.5),
        operating_point=OperatingPoint("normal-90", 0.1),
        time="2026-11-30T19:24:25+00:00",
    )
    line = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert line["abnormal"] == {"score": 0.123457, "threshold": 0.5, "positive": False}
    assert (line["profile"], line["time"]) == ("normal-90", "2026-11-30T19:24:25+00:00")
    assert list(line)[:6] == ["schema", "input", "sha256", "time", "program", "profile"]
    assert SOME.to_dict()["abnormal"] is None


def test_boxes_are_those_of_the_positive_findings_strongest_first() -> None:
    assert [(box.label, box.score) for box in SOME.boxes] == [("Nodule", 0.9), ("Mass", 0.6), ("Mass", 0.2)]
    assert NONE.boxes == ()


def test_a_localized_box_knows_its_finding(localizer: Localizer) -> None:
    result = localizer.localize(generate(3, (90, 150)).stored)
    assert result.boxes
    assert {box.label for f in result.findings for box in f.boxes} == {f.label for f in result.findings if f.boxes}
    assert all(box.label == f.label for f in result.findings for box in f.boxes)


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(to_coco([NONE, SOME]), allow_nan=False))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in coco.loadImgs(coco.getImgIds())] == [
        (1, "normal.png", 100, 80),
        (2, "film.png", 100, 80),
    ]
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["Mass", "Edema", "Nodule"]
    assert coco.getAnnIds(imgIds=[1]) == []
    (mass,) = coco.loadAnns(coco.getAnnIds(imgIds=[2], catIds=[1], areaRng=[100, 1e9]))
    assert (mass["bbox"], mass["area"], mass["score"], mass["iscrowd"]) == ([10, 20, 30, 40], 1200, 0.6, 0)
    assert len(coco.getAnnIds(catIds=[2])) == 0
    assert coco.loadAnns(coco.getAnnIds(catIds=[3]))[0]["bbox"] == [50.5, 60.25, 8, 9]


def test_coco_of_one_result_and_of_none() -> None:
    assert SOME.to_coco() == to_coco([SOME])
    assert to_coco([]) == {"images": [], "categories": [], "annotations": []}


def test_coco_refuses_results_of_different_models() -> None:
    with pytest.raises(ValueError, match="one model"):
        to_coco([SOME, result_of(finding("Mass", 0.9))])


def test_supervision_takes_the_boxes() -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    found = SOME.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.xyxy.tolist() == [[50.5, 60.25, 58.5, 69.25], [10, 20, 40, 60], [0, 0, 5, 5]]
    assert found.class_id.tolist() == [2, 0, 0]
    assert found.data["class_name"].tolist() == ["Nodule", "Mass", "Mass"]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.6, 0.2])
    assert len(found[found.class_id == 0]) == 2
    assert len(NONE.to_supervision()) == 0
    assert NONE.to_supervision().xyxy.shape == (0, 4)


def test_supervision_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from msloc_edge import MslocError

    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MslocError, match="pip install supervision") as error:
        SOME.to_supervision()
    assert error.value.reason == "package_missing"


def test_plot_shows_the_film_and_what_was_found(localizer: Localizer, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    write_png(generate(3, (90, 150)), path)
    for film in (path, generate(3, (90, 150)).stored):
        result = localizer.localize(film)
        picture = np.asarray(result.plot(max_side=300))
        assert picture.dtype == np.uint8
        assert picture.shape[0] >= 180
        bare = np.asarray(replace(result, findings=(), maps={}).plot(max_side=300))
        shown, plain = picture[:180, :300].astype(int), bare[:180, :300].astype(int)
        assert np.ptp(plain, axis=2).max() == 0, "a film is grey"
        assert np.ptp(shown, axis=2).max() > 50, "findings are drawn in colour"


def test_plot_draws_as_many_findings_as_asked_for(localizer: Localizer, bundle_with: Callable[..., Path]) -> None:
    everything = {"score": [0.0] * 8, "map": list(localizer.profile.map)}
    with Localizer(bundle_with(profiles={"all": everything}, default_profile="all")) as opened:
        result = opened.localize(generate(3, (90, 150)).stored)
    assert len(result.positive) > 3
    colors = palette(finding.label for finding in result.findings)

    def drawn(**options: int | None) -> list[bool]:
        """Of each positive finding, whether its colour is on the film, which is left of the panel."""
        film = np.asarray(result.plot(max_side=600, **options))[:, :600]
        return [bool((film == rgb(colors[finding.label])).all(axis=2).any()) for finding in result.positive]

    count = len(result.positive)
    assert drawn(show=0) == [False] * count
    assert drawn() == drawn(show=3) == [True] * 3 + [False] * (count - 3)
    assert drawn(show=None) == [True] * count


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_result_outlives_its_localizer(tiny_bundle: Path, backend: str) -> None:
    """As README shows it. For TensorRT: tests/backends/tensorrt/on_stand_in.py."""
    pytest.importorskip(backend)
    with Localizer(tiny_bundle, backend) as opened:
        result = opened.localize(generate(3, (90, 150)).stored)
        before, maps = np.asarray(result.plot()), dict(result.maps)
    assert maps
    assert np.array_equal(np.asarray(result.plot()), before)
    for label, shown in maps.items():
        assert np.array_equal(result.maps[label], shown)
        assert len(result.stage_maps[label]) == 4


def test_plot_without_the_film() -> None:
    with pytest.raises(ValueError, match="localize the film again"):
        SOME.plot()
