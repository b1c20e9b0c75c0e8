"""A small archive in every form, and its films scored once."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("msloc-edge")
FILMS = 12
GATE = 0.85
"""Threshold on p_abnormal of the model: some of the films are flagged, some are not."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms as 00.png ... 10.png and 11.dcm, and bad.png, which is no film."""
    from msloc_edge.train.phantom import generate, write_dicom, write_png

    folder = tmp_path_factory.mktemp("archive")
    for seed in range(FILMS - 1):
        write_png(generate(seed, (70, 64)), folder / f"{seed:02}.png")
    write_dicom(generate(FILMS, 64), folder / f"{FILMS - 1:02}.dcm")
    (folder / "bad.png").write_bytes(b"no film")
    return folder


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    """The same, which the test may change."""
    return Path(shutil.copytree(made, tmp_path / "archive"))


@pytest.fixture(scope="session")
def model(bundle_with: Callable[..., Path], tiny_bundle: Path) -> Path:
    """The tiny bundle with a film gate, and without an input gate: its films are phantoms of 64 pixels."""
    from msloc_edge.bundle import Bundle

    count = len(Bundle.open(tiny_bundle).classes)
    gate = {"weights": [0.5] * count, "bias": -1.0}
    profile = Bundle.open(tiny_bundle).manifest["profiles"]["youden"] | {"film": GATE}
    return bundle_with(abnormal=gate, profiles={"first": profile}, default_profile="first", input_gate=None)


@pytest.fixture(scope="session")
def scored(made: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the archive, made by the installed script; parts of 5 films. Copy before changing it."""
    out = tmp_path_factory.mktemp("scored") / "scores"
    words = [SCRIPT, "score", made, out, "--model", model, "--part", "5", "--workers", "1", "--maps"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # bad.png
    assert "12 films scored, 1 failed" in done.stderr
    return out


@pytest.fixture(scope="session")
def shard(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive as a WebDataset shard, with labels beside the films."""
    path = tmp_path_factory.mktemp("shards") / "films-000.tar"
    with tarfile.open(path, "w") as tar:
        for film in sorted(made.iterdir()):
            tar.add(film, film.name)
            label = tarfile.TarInfo(f"{film.stem}.json")
            label.size = 2
            tar.addfile(label, io.BytesIO(b"{}"))
    return path


@pytest.fixture(scope="session")
def benchmark(script: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    """benchmarks/score.py, which kills runs and compares what they wrote; it imports scripts beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield script("benchmarks/score.py")
