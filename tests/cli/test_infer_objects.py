"""msloc-edge infer --write sr,seg,pm,gsps,sc: DICOM objects beside the films, and UIDs in the lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from msloc_edge.objects import KINDS

pytest.importorskip("highdicom")
EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., Any]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder with a DICOM film with findings, the same as a PNG, and a CT slice."""
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copy(EXAMPLES / "dicom" / "phantom4000181.dcm", folder / "found.dcm")
    shutil.copy(EXAMPLES / "png" / "phantom4000176.png", folder / "plain.png")
    slice_ = pydicom.dcmread(folder / "found.dcm")
    slice_.Modality = "CT"
    slice_.save_as(folder / "slice.dcm", enforce_file_format=True)
    return folder


def test_objects_are_written_beside_the_lines(msloc: Run, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = msloc("infer", films, "--out", out, "--write", "json,sr,seg,pm,gsps,sc", "--no-input-gate", "-q")
    assert ran.code == 1  # the slice
    assert sorted(ran.reasons) == ["object_refused", "wrong_modality"]  # one sentence for all of the PNG's objects
    found, plain = sorted(
        map(json.loads, (out / "results.jsonl").read_text().splitlines()), key=lambda line: line["input"]
    )
    assert found["files"] == {kind: f"found.{kind}.dcm" for kind in KINDS}
    assert "files" not in plain
    for name in found["files"].values():
        made = pydicom.dcmread(out / name)
        assert made.StudyInstanceUID == found["dicom"]["study_instance_uid"]
    assert pydicom.dcmread(out / "slice.sr.dcm").StudyInstanceUID == found["dicom"]["study_instance_uid"]
    assert sorted(path.name for path in out.glob("slice.*")) == ["slice.sc.dcm", "slice.sr.dcm"]


def test_written_objects_are_no_films_of_the_next_run(msloc: Run, films: Path) -> None:
    for name in ("plain.png", "slice.dcm"):
        (films / name).unlink()
    arguments = ("infer", films, "--out", films, "--write", "json,sr,sc", "--no-input-gate", "-q")
    assert (msloc(*arguments).code, msloc(*arguments).code) == (0, 0)
    (line,) = (films / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["files"] == {"sr": "found.sr.dcm", "sc": "found.sc.dcm"}


def test_lines_carry_uids_unless_they_are_to_be_left_out(msloc: Run, films: Path) -> None:
    source = pydicom.dcmread(films / "found.dcm")
    (line,) = msloc("infer", films / "found.dcm", "--no-input-gate", "-q").lines
    assert line["dicom"] == {
        "sop_instance_uid": source.SOPInstanceUID,
        "series_instance_uid": source.SeriesInstanceUID,
        "study_instance_uid": source.StudyInstanceUID,
    }
    (line,) = msloc("infer", films / "found.dcm", "--no-input-gate", "-q", "--no-uids").lines
    assert "dicom" not in line
    (line,) = msloc("infer", films / "plain.png", "--no-input-gate", "-q").lines
    assert "dicom" not in line


def test_film_on_stdin(msloc: Run, films: Path, tmp_path: Path) -> None:
    data = (films / "found.dcm").read_bytes()
    ran = msloc("infer", "-", "--out", tmp_path / "out", "--write", "sr", "--no-input-gate", "-q", stdin=data)
    assert ran.code == 0
    assert pydicom.dcmread(tmp_path / "out" / "stdin.sr.dcm").Modality == "SR"


def test_film_that_the_gate_refused_has_a_report_that_says_so(msloc: Run, tmp_path: Path) -> None:
    from msloc_edge.result import Result

    ran = msloc("infer", EXAMPLES / "dicom" / "phantom4000181.dcm", "--no-input-gate", "-q")
    line = ran.lines[0] | {"refused": "not_frontal", "findings": []}
    report = Result.from_dict(line).to_sr(EXAMPLES / "dicom" / "phantom4000181.dcm")
    assert "No algorithms succeeded; without findings" in str(report)
    assert "No finding above the threshold" not in str(report)


def test_objects_need_a_folder_and_known_kinds(msloc: Run, films: Path, tmp_path: Path) -> None:
    assert msloc("infer", films, "--write", "sr").code == 2
    assert msloc("infer", films, "--write", "sr,xml", "--out", tmp_path / "out").code == 2


def test_an_object_that_cannot_be_made_is_no_success(msloc: Run, films: Path, tmp_path: Path) -> None:
    inputs = [films / "found.dcm", films / "plain.png"]
    ran = msloc("infer", *inputs, "--out", tmp_path / "out", "--write", "sr", "--no-input-gate")
    assert (ran.code, len(ran.lines)) == (1, 2)  # both are localized
    assert "2 films localized, 1 without an object that was asked for" in " ".join(ran.err.split())
    assert "overlay" not in ran.err  # no column for what nobody asked for
    assert (tmp_path / "out" / "found.sr.dcm").is_file()
