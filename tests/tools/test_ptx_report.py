"""The report of what kernels execute: of a folder that the compiler made, and of one with a fault in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from msloc_edge.kernels.aot.build import build
from msloc_edge.kernels.aot.variants import variants

TOOL = Path(__file__).parents[2] / "tools" / "ptx_report.py"
PEAKS, FILM = "fuse_cams.peaks.fp32", "window_resize.u8-enlarge.fp16"


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, folder], capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("aot")
    build([variant for variant in variants() if variant.name in (PEAKS, FILM)], (90,), out)
    return out


def test_a_line_for_each_form(folder: Path) -> None:
    done = report(folder)
    assert done.returncode == 0, done.stderr
    header, *lines = (line.split() for line in done.stdout.splitlines())
    assert header == ["form", "launch", "sm", "error", "races", "instructions", "loads", "bytes"]
    assert [line[0] for line in lines] == [PEAKS, FILM, FILM]
    of_peaks, *of_films = lines
    assert of_peaks[-7:-5] == ["90", "portable"], "the same PTX for both"
    assert of_peaks[-5:-3] == ["0.0e+00", "0"]
    assert of_peaks[-2:] == ["1.00", "8.19"], "64 keys of 8 bytes are read once, 12 bytes are written"
    assert [line[-6] for line in of_films] == ["90", "portable"]
    assert all(0 < float(line[-5]) < 5e-4 and line[-4] == "0" and float(line[-3]) > 10 for line in of_films)


def test_a_wrong_kernel_is_seen(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        text = file.read_bytes()
        if file.name == f"{PEAKS}.sm_90.ptx":
            text = text.replace(b"max.s64", b"min.s64")
        (tmp_path / file.name).write_bytes(text)
    done = report(tmp_path)
    assert done.returncode == 1
    wrong = [line.split() for line in done.stdout.splitlines() if " inf " in line]
    assert [(line[0], line[-6]) for line in wrong] == [(PEAKS, "90")]


def test_no_folder(tmp_path: Path) -> None:
    done = report(tmp_path)
    assert done.returncode == 1
    assert "kernels.json: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
