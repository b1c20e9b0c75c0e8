"""Small files that ask for much, and files without an end: refused soon, with little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MAX_SECONDS, MAX_MB = 6.0, 400
"""Processor time and peak memory that a process may take for any of these, start and libraries included."""

OUTCOMES = {
    "palette.png": "too_large",
    "colour.png": "too_large",
    "wide.png": "too_large",
    "chunks.png": "too_large",
    "pages.tif": "too_large",
    "overlap.tif": "too_large",
    "array.tif": "too_large",
    "scans.jpg": "too_large",
    "scans-large.jpg": "too_large",
    "large.jpg": "too_large",
    "large-jpeg.dcm": "too_large",
    "dhp.dcm": "unsupported_pixels",
    "large-j2k.dcm": "too_large",
    "decoy.dcm": "corrupt",
    "box.dcm": "corrupt",
    "rle.dcm": "corrupt",
    "items.dcm": "too_large",
    "items-length.dcm": "too_large",
    "values.dcm": "too_large",
    "deflated.dcm": "too_large",
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    subprocess.run([sys.executable, HERE / "bombs.py", folder], check=True)
    return folder


def read(path: Path) -> tuple[str, float, int]:
    """(outcome, seconds of processor time, peak MB) of reading one file in a process of its own."""
    command = [sys.executable, HERE / "read_one.py", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)
    return found["outcome"], found["seconds"], found["mb"]


def test_every_bomb_is_here(bombs: Path) -> None:
    assert {path.name for path in bombs.iterdir()} == OUTCOMES.keys()
    assert all(path.stat().st_size < 30_000_000 for path in bombs.iterdir())


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_bomb_is_refused_before_it_costs(bombs: Path, name: str) -> None:
    outcome, seconds, mb = read(bombs / name)
    assert outcome == OUTCOMES[name]
    assert seconds < MAX_SECONDS
    assert mb < MAX_MB


def device(_: Path) -> Path:
    return Path("/dev/zero")


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def sparse(folder: Path) -> Path:
    with open(folder / "sparse.dcm", "wb") as file:
        file.truncate(12 << 30)
    return folder / "sparse.dcm"


@pytest.mark.parametrize(("make", "reason"), [(device, "unreadable"), (pipe, "unreadable"), (sparse, "too_large")])
def test_what_is_no_file_of_a_film_is_not_read(make: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    outcome, _, mb = read(make(tmp_path))
    assert outcome == reason
    assert mb < 120
