"""Files that nobody meets half of, and what is said when one cannot be written."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from msloc_edge._files import atomic_folder, atomic_write, require_writable, writing
from msloc_edge.errors import OutputError


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "nowhere" / "a.png", tmp_path / "taken"):
        with pytest.raises(OSError, match=str(path)) as failed:
            atomic_write(path, b"1")
        assert failed.value.filename == str(path)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (OSError(errno.ENOSPC, "full"), "disk_full", "OUT: no space left; free some, or go"),
        (OSError(errno.EDQUOT, "full"), "disk_full", "OUT: no space left; free some, or go"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "out_unwritable",
            "OUT: cannot be written (Permission denied); make it writable, or go",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "OUT/a.png"),
            "out_unwritable",
            "OUT/a.png: cannot be written (Read-only file system); make it writable, or go",
        ),
    ],
)
def test_faults_of_writing(error: OSError, reason: str, says: str) -> None:
    with pytest.raises(OutputError) as caught, writing(Path("OUT"), "or go"):
        raise error
    assert (caught.value.reason, caught.value.message) == (reason, says)


def test_a_reader_that_has_gone_is_no_fault_of_writing() -> None:
    with pytest.raises(BrokenPipeError), writing(Path("OUT")):
        raise BrokenPipeError


def test_a_folder_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with atomic_folder(out) as folder:
        (folder / "1").write_text("first")
    with suppress(KeyError), atomic_folder(out) as folder:
        (folder / "1").write_text("second")
        raise KeyError
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "1").read_text() == "first"
    with pytest.raises(OutputError, match="Not a directory"), atomic_folder(out / "1" / "below"):
        pass


def test_a_place_is_asked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "folders")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=f"expected a folder that can be written, got {tmp_path / 'file'}"):
            require_writable(path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OutputError, match=f"got {tmp_path};"):
        require_writable(tmp_path / "new" / "folders")
