"""Damaged films: each is read or refused with a reason; nothing else ever happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from msloc_edge.imaging.reading import decode_frame

ROOT = Path(__file__).parents[2]


def test_whole_films_are_read_without_a_word(robustness: ModuleType) -> None:
    for name, data in robustness.films().items():
        frame = decode_frame(data, name)
        assert frame.pixels.shape == (72, 88), name
        assert set(frame.warnings) <= {"colour_converted"}, name


@pytest.mark.parametrize("seed", range(4))
def test_damaged_films_are_read_or_refused(
    robustness: ModuleType, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = robustness.Counts()
    for name, data in robustness.mutations(400, seed):
        counts.add(name, data)
    assert counts.faults == []
    assert counts.read + counts.refused.total() == 400
    assert counts.read > 20, "most damages are found, not all can be"
    assert counts.refused["internal_error"] == 0
    assert not any(name in "".join(capfd.readouterr()).upper() for name in robustness.NAMES)


SWEEP = """
import sys
sys.path.insert(0, "benchmarks")
from robustness import NAMES, films
from msloc_edge.errors import MslocError
from msloc_edge.imaging.reading import decode_frame

whole = films()[sys.argv[1]]
header = min(whole.index(b"\\xe0\\x7f\\x10\\x00") + 16, 800)
read = 0
for at in range(100, header):
    for value in (0, 32, 255):
        damaged = whole[:at] + bytes([value]) + whole[at + 1:]
        try:
            read += bool(decode_frame(damaged, "film").name)
        except MslocError as error:
            print(error.reason, error)
print("read", read)
"""


@pytest.mark.parametrize("kind", ["dicom-explicit", "dicom-implicit", "dicom-voi-lut"])
def test_no_damage_brings_a_name_out(robustness: ModuleType, kind: str) -> None:
    """Every byte of the header, so every length, tag and VR of it, is damaged in turn."""
    done = subprocess.run([sys.executable, "-c", SWEEP, kind], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not any(name in done.stdout.upper() for name in robustness.NAMES)
    assert "corrupt " in done.stdout
    assert int(done.stdout.split()[-1]) > 300


def test_no_name_in_any_file_of_a_run(robustness: ModuleType, tmp_path: Path) -> None:
    """The lengths before every name are damaged; then all that `infer` says and writes is searched."""
    whole = robustness.films()["dicom-explicit"]
    upper = whole.upper()
    (tmp_path / "in").mkdir()
    for name in map(str.encode, robustness.NAMES):
        at = upper.index(name)
        for place in range(at - 8, at):
            for value in (0, 255):
                file = tmp_path / "in" / f"{place}-{value}.dcm"
                file.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    words = [sys.executable, "-m", "msloc_edge", "infer", tmp_path / "in", "--out", tmp_path / "out"]
    done = subprocess.run([*words, "--write", "json,report"], cwd=ROOT, capture_output=True)
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert {"results.jsonl", "failures.jsonl", "report.html"} <= set(written)
    everything = b"".join([done.stdout, done.stderr, *written.values()]).upper()
    assert not [name for name in robustness.NAMES if name.encode() in everything]
