"""What a folder holds: films by name or content, and nothing passed over in silence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def uids(films: Path, tmp_path: Path) -> Path:
    """A folder of films as storescp and Orthanc name them: by UID, whose last number is no suffix."""
    folder = tmp_path / "uids"
    folder.mkdir()
    for number, name in enumerate(("a.dcm", "c.dcm")):
        shutil.copy(films / name, folder / f"1.2.826.0.1.3680043.10.{number}")
    return folder


def test_films_named_by_uid(msloc: Run, uids: Path, bundle: Path, tmp_path: Path) -> None:
    ran = msloc("infer", uids, "--model", bundle, "--out", tmp_path / "out", "--write", "overlay")
    assert (ran.code, ran.inputs) == (0, ["1.2.826.0.1.3680043.10.0", "1.2.826.0.1.3680043.10.1"])
    assert [line["files"]["overlay"] for line in ran.lines] == [
        "1.2.826.0.1.3680043.10.0.overlay.png",
        "1.2.826.0.1.3680043.10.1.overlay.png",
    ]


def test_a_damaged_film_named_by_uid_is_named(msloc: Run, uids: Path, bundle: Path) -> None:
    for name in ("1.2.3", "IM000001"):
        (uids / name).write_bytes(b"\0no film any more")
    ran = msloc("infer", uids, "--model", bundle)
    assert (ran.code, len(ran.lines), ran.reasons) == (1, 2, ["not_an_image", "not_an_image"])


@pytest.mark.parametrize("name", ["MR.1.2.840.113619", "film.img", "film.dcm.bak", "a.b", "film"])
def test_other_suffixes_are_films_by_content(msloc: Run, films: Path, bundle: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for source in ("a.dcm", "b.png"):
        shutil.copy(films / source, folder / f"{source[0]}-{name}")
    (folder / f"c-{name}").write_text("a text")
    ran = msloc("infer", folder, "--model", bundle)
    assert (ran.code, ran.inputs) == (0, [f"a-{name}", f"b-{name}"])
    assert "1 file in the folders passed over; --verbose names them" in ran.err


def test_without_a_suffix_only_a_text_is_passed_over(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(films / "a.dcm", folder / "IM0001")
    (folder / "IM0002").write_bytes(bytes(200) + (films / "a.dcm").read_bytes()[200:])  # damaged, so it is named
    (folder / "Containerfile").write_text("FROM scratch, für alle\n" * 60)
    ran = msloc("infer", folder, "--model", bundle)
    assert (ran.code, ran.inputs, ran.reasons) == (1, ["IM0001"], ["not_an_image"])


def test_what_was_passed_over_is_named_on_request(msloc: Run, films: Path, bundle: Path) -> None:
    expected = {
        "DICOMDIR": "a directory of DICOM files",
        ".hidden.png": "hidden",
        "notes.txt": "neither a film's name nor its content",
        "gone.png": "no file, or a link to none",
        ".thumbs": "hidden",
        "linked": "a link to a folder",
        "pipe.dat": "no file, or a link to none",
    }
    for name in ("DICOMDIR", ".hidden.png", "notes.txt", "z.overlay.png"):
        (films / name).write_bytes(b"no film")
    (films / "gone.png").symlink_to(films / "nowhere.png")
    (films / ".thumbs").mkdir()
    (films / "linked").symlink_to(films / ".thumbs")
    os.mkfifo(films / "pipe.dat")
    ran = msloc("infer", films, "--model", bundle)
    assert (ran.code, ran.inputs) == (0, ["a.dcm", "b.png", "c.dcm"])
    assert "7 files in the folders passed over" in ran.err
    ran = msloc("infer", films, "--model", bundle, "--verbose")
    named = [line.removeprefix("passed over: ") for line in ran.err.splitlines() if line.startswith("passed over: ")]
    assert named == sorted(f"{films / name} ({why})" for name, why in expected.items())


def test_names_are_printed_without_control_characters(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    name = "a\nmsloc-edge: [forged] b\x1b[2J.png"
    shutil.copy(films / "b.png", films / name)
    (films / f"{name}.txt").touch()
    (films / f"x{name}").touch()
    ran = msloc("infer", films, "--model", bundle, "--out", tmp_path / "out\n", "-v")
    assert ran.reasons == ["truncated"]
    assert "\x1b" not in ran.err
    assert not any(line.startswith("msloc-edge: [forged]") for line in ran.err.splitlines())


def test_the_shared_case(msloc: Run, bundle: Path) -> None:
    folder = Path(__file__).parents[3] / "shared" / "cases" / "03-uid-file-names" / "only-uids"
    if not folder.is_dir():
        pytest.skip(f"the case is not here: {folder}")
    ran = msloc("infer", folder, "--model", bundle)
    assert (ran.code, ran.inputs) == (0, sorted(file.name for file in folder.iterdir()))
