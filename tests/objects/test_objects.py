"""Objects of a result on CR and DX films, judged by pydicom, dicom3tools, DCMTK and highdicom."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.sr.codedict import codes

from msloc_edge.bundle import Bundle
from msloc_edge.errors import InputError, OutputError
from msloc_edge.imaging.reading import read_frame
from msloc_edge.objects import KINDS, NotAnalysed, make_object, write_objects
from msloc_edge.pipeline import Localizer
from msloc_edge.result import Result
from msloc_edge.types import FilmGate, Finding, ModelId, OperatingPoint

hd = pytest.importorskip("highdicom")

Make = Callable[..., Path]
Localize = Callable[[Path | bytes], Result]
SOURCES: dict[str, dict[str, Any]] = {
    "DX": {},
    "DX without spacing": {"ImagerPixelSpacing": None},
    "DX, MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "CR": {"kind": "CR"},
    "CR without spacing": {"kind": "CR", "PixelSpacing": None},
    "CR, bare": {
        "kind": "CR",
        "PixelSpacing": None,
        **dict.fromkeys(("StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "ContentDate", "ContentTime")),
        **dict.fromkeys(("AcquisitionDate", "AcquisitionTime", "AccessionNumber", "StudyID", "PatientOrientation")),
        **dict.fromkeys(("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "WindowCenter", "WindowWidth")),
    },
}


def reopened(path: Path) -> Dataset:
    """Read a file whole, every value converted; warnings are errors."""
    ds = pydicom.dcmread(path)
    ds.walk(lambda parent, element: element.value)
    return ds


def drop_maps(result: Result) -> Result:
    """The result as a line brings it."""
    return Result.from_dict(json.loads(json.dumps(result.to_dict())))


def texts(item: Dataset) -> list[str]:
    """What a report says, depth first: texts, codes' meanings, numbers with their names."""
    name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
    own = []
    if item.ValueType == "TEXT":
        own = [f"{name}: {item.TextValue}"]
    elif item.ValueType == "CODE":
        own = [f"{name}: {item.ConceptCodeSequence[0].CodeMeaning}"]
    elif item.ValueType == "NUM":
        own = [f"{name}: {float(item.MeasuredValueSequence[0].NumericValue):.6g}"]
    return own + [text for child in item.get("ContentSequence", ()) for text in texts(child)]


@pytest.mark.parametrize("elements", SOURCES.values(), ids=SOURCES)
def test_every_object_is_legal_on_every_kind_of_source(
    localize: Localize, make_film: Make, dciodvfy: Any, dcmtk: Any, tmp_path: Path, elements: dict[str, Any]
) -> None:
    film = make_film(**elements)
    written = write_objects(localize(film), film, KINDS, tmp_path, "film")
    assert written.left_out == {}
    assert list(written.files) == list(KINDS)
    for kind, path in written.files.items():
        reopened(path)
        assert dciodvfy(path) == [], kind
    assert "Test passed" in dcmtk("dcmpschk", written.files["gsps"])
    assert "Comprehensive 3D SR Document" in dcmtk("dsrdump", "--print-all-codes", written.files["sr"])


def test_real_films(shared_data: Path, dciodvfy: Any, dcmtk: Any, tmp_path: Path) -> None:
    films = sorted((shared_data / "dicom").glob("*.dcm"))
    assert films
    with Localizer(input_gate=False) as shipped:  # one of the three is tagged as the negative that it is not
        for film in films:
            written = write_objects(shipped.localize(film), film, KINDS, tmp_path, film.stem)
            assert written.left_out == {}
            for path in written.files.values():
                reopened(path)
                assert dciodvfy(path) == [], path
            assert "Test passed" in dcmtk("dcmpschk", written.files["gsps"])


def test_same_study_new_series_and_the_patient_as_on_the_film(result: Result, film: Path) -> None:
    source = pydicom.dcmread(film)
    made = [make_object(result, film, kind) for kind in KINDS]
    for ds in made:
        for keyword in ("StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
            assert str(ds[keyword].value) == str(source[keyword].value)
        assert "InstanceCreationDate" not in ds
    assert len({ds.SeriesInstanceUID for ds in made} | {source.SeriesInstanceUID}) == 6
    assert len({ds.SOPInstanceUID for ds in made} | {source.SOPInstanceUID}) == 6
    assert [ds.Modality for ds in made] == ["SR", "SEG", "OT", "PR", "OT"]


def test_same_run_same_bytes_another_content_another_uid(
    result: Result, localize: Localize, film: Path, tmp_path: Path
) -> None:
    first = write_objects(result, film, KINDS, tmp_path / "a", "film").files
    again = localize(film.read_bytes())  # later, under another name
    later = replace(again, time="2031-02-03T04:05:06+00:00")
    second = write_objects(later, pydicom.dcmread(film), KINDS, tmp_path / "b", "other").files
    assert [path.read_bytes() for path in first.values()] == [path.read_bytes() for path in second.values()]

    changes = {
        "bundle": replace(result, model=replace(result.model, sha256="00" * 32)),
        "profile": replace(result, operating_point=OperatingPoint("other")),
        "program": replace(result, program="msloc-edge 9.9"),
    }
    for kind in KINDS:
        named = make_object(result, film, kind)
        for what, changed in changes.items():
            other = make_object(changed, film, kind)
            assert other.SOPInstanceUID != named.SOPInstanceUID, (kind, what)
            assert other.SeriesInstanceUID != named.SeriesInstanceUID, (kind, what)
    nearly = replace(result, findings=tuple(replace(f, score=f.score * 0.999) for f in result.findings))
    assert make_object(nearly, film, "sr").SOPInstanceUID != make_object(result, film, "sr").SOPInstanceUID


def test_dates_are_the_films_or_else_the_results(result: Result, localize: Localize, make_film: Make) -> None:
    dated = make_object(result, make_film(AcquisitionDate="20200304", ContentDate=None), "sr")
    assert [str(date) for date in (dated.ContentDate, dated.SeriesDate)] == ["20200304", "20200304"]
    bare = make_film(**SOURCES["CR, bare"])
    undated = replace(localize(bare), time="2031-02-03T04:05:06+00:00")
    assert (str(undated.to_sr(bare).ContentDate), str(undated.to_sc(bare).ContentTime)) == ("20310203", "040506")
    assert make_object(undated, bare, "sr").StudyDate == ""


@pytest.mark.parametrize(
    ("character_set", "written_as", "name"),
    [
        ("ISO_IR 100", "ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "ISO_IR 144", "Иванова^Анна"),
        ("ISO_IR 192", "ISO_IR 192", "山田^太郎"),
        (None, None, "Doe^Jane"),
        ("GB18030", "GB18030", "王^小东"),
        (["", "ISO 2022 IR 87"], ["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], ["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "ISO_IR 192", "Hong^Gildong=洪^吉洞=홍^길동"),  # highdicom does not know it
        ("ISO 2022 IR 100", "ISO_IR 192", "Müller^Jörg"),  # extends nothing
        (["ISO_IR 100", "ISO 2022 IR 87"], "ISO_IR 192", "Doe^Jane"),
        ("ISO_IR 6", "ISO_IR 192", "Doe^Jane"),
    ],
)
def test_names_keep_their_characters(
    result: Result, make_film: Make, dciodvfy: Any, tmp_path: Path, character_set: Any, written_as: Any, name: str
) -> None:
    film = make_film(SpecificCharacterSet=character_set, PatientName=name)
    written = write_objects(result, film, KINDS, tmp_path, "film")
    assert written.left_out == {}
    for kind, path in written.files.items():
        made = reopened(path)
        assert (made.PatientName, made.get("SpecificCharacterSet")) == (name, written_as), kind
        assert dciodvfy(path) == [], kind


def test_names_that_would_be_spoilt(result: Result, make_film: Make, tmp_path: Path) -> None:
    film = make_film(SpecificCharacterSet=["", "ISO 2022 IR 58"], PatientName="Doe^Jane")
    written = write_objects(result, film, KINDS, tmp_path, "film")
    assert not written.files
    assert all("got ISO 2022 IR 58; send the film in GB18030" in str(error) for error in written.left_out.values())


def test_dataset_of_the_caller_stays_as_it_is(result: Result, film: Path) -> None:
    source, untouched = pydicom.dcmread(film), pydicom.dcmread(film)
    for kind in KINDS:
        make_object(result, source, kind)
    assert source == untouched
    assert source.file_meta == untouched.file_meta


def test_labels_that_the_films_characters_cannot_spell(result: Result, make_film: Make, tmp_path: Path) -> None:
    film = make_film(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    first, *others = result.findings
    named = {finding.label: finding.label for finding in others} | {first.label: "胸水"}
    own = replace(
        result,
        findings=tuple(
            replace(f, label=named[f.label], boxes=tuple(replace(b, label=named[f.label]) for b in f.boxes))
            for f in result.findings
        ),
        maps={named[label]: map for label, map in result.maps.items()},
        map_thresholds={named[label]: value for label, value in result.map_thresholds.items()},
    )
    for path in write_objects(own, film, KINDS, tmp_path, "film").files.values():
        made = reopened(path)
        assert (made.PatientName, made.SpecificCharacterSet) == ("Müller^Jörg", "ISO_IR 192")
    assert "Finding: 胸水" in texts(own.to_sr(film))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("modality", [None, "", "x-ray"])
def test_a_film_without_a_legal_modality(
    result: Result, make_film: Make, dciodvfy: Any, tmp_path: Path, modality: str | None
) -> None:
    written = write_objects(result, make_film(Modality=modality), KINDS, tmp_path, "film")
    assert (list(written.files), written.left_out) == (list(KINDS), {})
    assert all(dciodvfy(path) == [] for path in written.files.values())


def test_what_is_not_legal_is_not_copied(
    result: Result, make_film: Make, dciodvfy: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    illegal = {"PatientAge": "62", "PatientBirthDate": "02.01.1950", "StudyTime": "noon", "PatientSex": "Unknown"}
    film = make_film(**dict.fromkeys(illegal, ""), ImagerPixelSpacing=[0, 0])
    ds = pydicom.dcmread(film)
    for keyword, value in illegal.items():
        ds[keyword]._value = value  # pydicom would refuse to set it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer objects
        ds.save_as(film, enforce_file_format=True)
    for kind, path in write_objects(result, film, KINDS, tmp_path, "film").files.items():
        made = reopened(path)
        assert "PatientAge" not in made, kind
        assert (made.PatientBirthDate, made.StudyTime, made.PatientSex) == ("", "", "")
        assert dciodvfy(path) == [], kind


def test_report_of_findings(result: Result, film: Path) -> None:
    report = result.to_sr(film)
    said = texts(report)
    assert "Summary of Detections: All algorithms succeeded; with findings" in said
    assert f"Comment: {len(result.positive)} findings above threshold" in said
    assert f"Comment: Profile {result.operating_point.profile}" in said
    for finding in result.findings:
        assert f"Probability: {finding.score:.6g}" in said
        assert f"Threshold Value: {finding.threshold:.6g}" in said
    content = hd.sr.Comprehensive3DSR.from_dataset(_through_a_file(report)).content
    groups = content.get_planar_roi_measurement_groups()
    assert len(groups) == len(result.boxes)
    first = next(group for group in groups if group.tracking_identifier == f"{result.positive[0].label} 1")
    box = result.positive[0].boxes[0]
    corners = first.roi.value
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert np.allclose([*low, *(high - low)], [box.x, box.y, box.w, box.h], atol=1e-3)
    assert content.get_observer_contexts()[0].observer_type == codes.DCM.Device


def test_report_of_measured_rates(result: Result, film: Path) -> None:
    rates = {
        "normals_flagged": {"value": 0.1, "low": 0.05, "high": 0.18, "n": 150},
        "abnormal_flagged": {"value": 0.4, "low": 0.3, "high": 0.5, "n": 198},
        "sensitivity": {"per_class": {"Mass": {"value": 0.6, "n": 35}}},
        "precision": {"per_class": {"Mass": {"value": None, "n": 0}}},
        "protocol": "5-fold cross-validation by patient",
    }
    quiet = replace(
        result,
        findings=(Finding("Mass", 0.3, 0.4, False, (1.0,)),),
        gate=FilmGate(0.2, 0.675),
        operating_point=OperatingPoint("normal-90", 0.1, rates),
    )
    said = texts(quiet.to_sr(film))
    assert "Summary of Detections: All algorithms succeeded; without findings" in said
    assert "Comment: No finding above the threshold" in said
    assert "Comment: 10.0% (5.0% to 18.0%), n = 150, of normal films with a positive finding" in said
    assert "Case Specificity: 0.9" in said
    assert said.count("Case Sensitivity: 0.4") == 1  # of the film
    assert said.count("Case Sensitivity: 0.6") == 1  # of the class
    assert not any(text.startswith("Positive predictive value") for text in said)
    assert "Decision at the operating point: Not positive: below the threshold" in said


@pytest.mark.parametrize(
    ("finding", "gate", "decision"),
    [
        (Finding("Mass", 0.5, 0.4, False, (1.0,)), FilmGate(0.2, 0.6), "film below the film threshold"),
        (Finding("Mass", 0.5, 0.4, False, (1.0,)), None, "no region in its map"),
        (Finding("Mass", 0.3, 0.4, False, (1.0,)), FilmGate(0.2, 0.6), "below the threshold"),
    ],
)
def test_report_says_why_a_class_is_not_positive(
    result: Result, film: Path, finding: Finding, gate: FilmGate | None, decision: str
) -> None:
    said = texts(replace(result, findings=(finding,), gate=gate).to_sr(film))
    assert f"Decision at the operating point: Not positive: {decision}" in said


def test_film_without_finding_has_a_report_and_a_picture(
    result: Result, film: Path, dciodvfy: Any, tmp_path: Path
) -> None:
    quiet = replace(result, findings=tuple(replace(f, positive=False, boxes=()) for f in result.findings))
    written = write_objects(quiet, film, KINDS, tmp_path, "film")
    assert list(written.files) == ["sr", "sc"]
    assert written.left_out == {}
    for kind in ("seg", "pm", "gsps"):
        with pytest.raises(OutputError, match="expected a result with a finding"):
            make_object(quiet, film, kind)
    assert all(dciodvfy(path) == [] for path in written.files.values())


def test_film_that_was_refused_has_a_result_of_its_own(make_film: Make, dciodvfy: Any, tmp_path: Path) -> None:
    film = make_film(Modality="CT")
    with pytest.raises(InputError) as refused:
        read_frame(film)
    model, point = ModelId("tiny", "1.2", "ab" * 32), OperatingPoint("normal-90")
    outcome = NotAnalysed.of(refused.value, model, point, "2026-01-02T03:04:05+00:00")
    assert str(film) not in outcome.message
    written = write_objects(outcome, film, KINDS, tmp_path, "film")
    assert list(written.files) == ["sr", "sc"]
    assert all(dciodvfy(path) == [] for path in written.files.values())
    said = texts(reopened(written.files["sr"]))
    assert "Summary of Detections: No algorithms succeeded; without findings" in said
    assert "Reason why the film was not analysed: wrong_modality" in said
    assert any(text.startswith("Comment: Not analysed: expected a projection radiograph") for text in said)
    assert not any("No finding" in text or "Probability" in text for text in said)


@pytest.mark.parametrize("elements", [{}, {"kind": "CR", "PixelSpacing": None}], ids=["DX", "CR without spacing"])
def test_segments_come_back_onto_the_film(localize: Localize, make_film: Make, elements: dict[str, Any]) -> None:
    film = make_film(**elements)
    result = localize(film)
    segmentation = hd.seg.Segmentation.from_dataset(_through_a_file(result.to_seg(film)))
    uid = pydicom.dcmread(film).SOPInstanceUID
    masks = segmentation.get_pixels_by_source_instance(source_sop_instance_uids=[uid])[0]
    assert masks.shape == (*read_frame(film).pixels.shape, len(result.positive))
    for number, finding in enumerate(result.positive, 1):
        described = segmentation.get_segment_description(number)
        assert described.tracking_id == finding.label
        rows, columns = np.nonzero(masks[..., number - 1])
        left, top = min(box.x for box in finding.boxes), min(box.y for box in finding.boxes)
        right, bottom = max(b.x + b.w for b in finding.boxes), max(b.y + b.h for b in finding.boxes)
        found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.subtract(found, (left, top, right, bottom))).max() <= 1


@pytest.mark.parametrize("elements", SOURCES.values(), ids=SOURCES)
def test_maps_come_back_onto_the_film(localize: Localize, make_film: Make, elements: dict[str, Any]) -> None:
    film = make_film(**elements)
    result = localize(film)
    map = hd.pm.ParametricMap.from_dataset(_through_a_file(result.to_pm(film)))
    assert "FloatPixelData" in map
    frames = map.get_frames(apply_real_world_transform=False)
    assert frames.shape == (len(result.positive), *read_frame(film).pixels.shape)
    for frame, item, finding in zip(frames, map.PerFrameFunctionalGroupsSequence, result.positive, strict=True):
        mapping = item.RealWorldValueMappingSequence[0]
        assert mapping.LUTExplanation == f"{finding.label}, logit units"
        quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("130402", "DCM")
        assert finding.peak is not None
        y, x = int(finding.peak.y), int(finding.peak.x)
        assert frame[y, x] == pytest.approx(finding.peak.value, abs=0.05)
        assert frame.max() <= finding.peak.value + 1e-5
        _, columns = np.nonzero(frame > result.map_thresholds[finding.label])
        left, right = min(box.x for box in finding.boxes), max(box.x + box.w for box in finding.boxes)
        assert abs(columns.min() - left) <= 2  # a pixel of the model's input is two of the film
        assert abs(columns.max() + 1 - right) <= 2


def _through_a_file(made: Dataset) -> Dataset:
    from msloc_edge.objects.encoding import encode

    return pydicom.dcmread(BytesIO(encode(made)))


@pytest.mark.parametrize("elements", SOURCES.values(), ids=SOURCES)
def test_presentation_state_shows_the_film_as_it_was_localized(
    localize: Localize, make_film: Make, dcmtk: Any, tmp_path: Path, elements: dict[str, Any]
) -> None:
    film = make_film(**elements)
    state = write_objects(localize(film), film, ["gsps"], tmp_path, "film").files["gsps"]
    dcmtk("dcmp2pgm", "--pstate", state, film, tmp_path / "film.pgm")
    rendered = np.asarray(Image.open(tmp_path / "film.pgm"), np.float32) / 255
    assert np.abs(rendered - read_frame(film).display()).max() < 2.5 / 255


def test_presentation_state_draws_every_finding(result: Result, film: Path) -> None:
    state = result.to_gsps(film)
    layers = {layer.GraphicLayer: layer.GraphicLayerDescription for layer in state.GraphicLayerSequence}
    labels = [finding.label.replace("_", " ") for finding in result.positive]
    assert list(layers.values()) == [*labels, "Intended use"]
    *annotations, note = state.GraphicAnnotationSequence
    assert note.TextObjectSequence[0].UnformattedTextValue == "msloc-edge: research use, not for diagnosis"
    for annotation, finding in zip(annotations, result.positive, strict=True):
        lines = [np.reshape(line.GraphicData, (-1, 2)) for line in annotation.GraphicObjectSequence]
        boxes, outlines = lines[: len(finding.boxes)], lines[len(finding.boxes) :]
        assert len(outlines) >= 1
        for box, corners in zip(finding.boxes, boxes, strict=True):
            low, high = corners.min(axis=0), corners.max(axis=0)
            assert np.allclose([*low, *(high - low)], [box.x, box.y, box.w, box.h], atol=1e-3)
        inside = [np.all((line >= 0) & (line <= (96, 120))) for line in lines]
        assert all(inside)
        assert all(np.array_equal(line[0], line[-1]) for line in outlines)
        assert annotation.TextObjectSequence[0].UnformattedTextValue.endswith(f"{finding.score:.2f}")


def test_picture_shows_the_overlay_under_its_purpose(result: Result, film: Path) -> None:
    picture = result.to_sc(film)
    pixels = picture.pixel_array
    overlay = np.asarray(replace(result, input=result.program).plot())
    assert np.array_equal(pixels[-overlay.shape[0] :], overlay)
    strip = pixels[: -overlay.shape[0]]
    assert strip.shape[0] > 20
    assert (strip[0] == (255, 212, 121)).all()
    assert (strip.min(axis=2) < 60).mean() > 0.02  # letters
    assert picture.BurnedInAnnotation == "NO"
    assert "film.dcm" not in str(picture)


def test_line_is_enough_for_report_boxes_and_picture(result: Result, film: Path, dciodvfy: Any, tmp_path: Path) -> None:
    read = drop_maps(result)
    written = write_objects(read, film, KINDS, tmp_path, "film")
    assert list(written.files) == ["sr", "gsps", "sc"]
    assert {error.message.split(";")[1] for error in written.left_out.values()} == {" localize the film again."}
    assert all(dciodvfy(path) == [] for path in written.files.values())


def test_lines_bundle_brings_thresholds_and_rates() -> None:
    with Localizer() as shipped:
        made = shipped.localize(Path(__file__).parents[2] / "examples" / "dicom" / "phantom4000181.dcm")
    read = Result.from_dict(json.loads(json.dumps(made.to_dict())), Bundle.open())
    assert read.map_thresholds == made.map_thresholds
    assert read.operating_point == made.operating_point
    assert read.operating_point.rates == made.operating_point.rates
    assert read.to_dict() == made.to_dict()
    with pytest.raises(ValueError, match="expected the bundle"):
        Result.from_dict({**made.to_dict(), "model": {"name": "other", "version": "1", "sha256": "00"}}, Bundle.open())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other/1"}, "schema"),
        ({"findings": None}, "whole result line"),
        ({"model": {}}, "whole result line"),
    ],
)
def test_line_that_is_none(result: Result, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Result.from_dict({**result.to_dict(), **change})


def test_result_of_another_film_is_refused(result: Result, make_film: Make, tmp_path: Path) -> None:
    other = make_film(SOPInstanceUID="1.2.3.4")
    written = write_objects(result, other, KINDS, tmp_path, "film")
    assert written.files == {}
    assert all("the film that the result is of" in error.message for error in written.left_out.values())
    assert not (tmp_path / "film.sr.dcm").exists()


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"StudyInstanceUID": None}, "StudyInstanceUID"),
        ({"NumberOfFrames": 2}, "one frame"),
        ({"SeriesInstanceUID": "1.02"}, "SeriesInstanceUID"),
    ],
)
def test_source_without_what_objects_need(
    result: Result, make_film: Make, elements: dict[str, Any], words: str, recwarn: pytest.WarningsRecorder
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer objects
        film = make_film(**elements)
    with pytest.raises(OutputError, match=words) as refused:
        replace(result, uids=None).to_sr(film)
    assert refused.value.reason == "object_refused"


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(200), b"no film"])
def test_what_is_no_dicom_is_refused(result: Result, content: bytes) -> None:
    with pytest.raises(OutputError, match="expected a DICOM film"):
        result.to_sr(content)
    with pytest.raises(OutputError, match="expected a DICOM film"):
        result.to_sr("/nowhere/film.dcm")


def test_nothing_of_the_patient_is_said(
    result: Result, make_film: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    film = make_film(PatientName="Secret^^^^^^Name", PatientID="SECRET", SOPClassUID="1.2.3.4.5")
    with caplog.at_level(logging.DEBUG):
        written = write_objects(result, film, KINDS, tmp_path, "film")
    said = caplog.text + " ".join(error.message for error in written.left_out.values())
    assert set(written.left_out) == {"sr", "seg", "pm", "gsps"}  # highdicom does not know the class
    assert "secret" not in said.lower()


def test_objects_are_written_by_highdicom_alone_when_asked_for() -> None:
    script = (
        "import sys, msloc_edge.objects, msloc_edge.result, msloc_edge.cli;"
        "sys.exit(bool({'highdicom', 'pydicom'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
