"""The command line as a user runs it: in this process for speed, or as the installed script."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(sys.executable).with_name("msloc-edge")
PATIENCE = 120  # seconds until something that should happen counts as lost


@dataclass(frozen=True)
class Ran:
    """Exit status, stdout as the JSON lines that it must consist of, stderr."""

    code: int
    lines: list[dict[str, Any]]
    err: str

    @property
    def inputs(self) -> list[str]:
        return [Path(line["input"]).name for line in self.lines]

    @property
    def reasons(self) -> list[str]:
        """The reason of each line of stderr that names one."""
        named = (line.split("]")[0] for line in self.err.splitlines() if line.startswith("msloc-edge: ["))
        return [line.removeprefix("msloc-edge: [") for line in named]


@pytest.fixture
def msloc(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """Runs `msloc-edge ARGUMENTS` through its entry point."""
    from msloc_edge.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["msloc-edge", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert isinstance(stop.value.code, int)
        return Ran(stop.value.code, [json.loads(line) for line in out.splitlines()], err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the installed script; what still runs when the test ends is killed."""
    running: list[subprocess.Popen[bytes]] = []
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as shells start what runs in the background; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen([SCRIPT, *map(str, arguments)], **{**pipes, **options})
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path, bundle_with: Callable[..., Path]) -> Path:
    """A bundle whose default profile finds the first class on every film, as one box over all of it, and no other.

    Its other profiles: "all" finds every class, "none" nothing.
    """
    count = len(json.loads((tiny_bundle / "manifest.json").read_text())["classes"])
    maps = [-1e6] * count
    profiles = {
        "first": {"score": [0.0] + [1.1] * (count - 1), "map": maps},
        "all": {"score": [0.0] * count, "map": maps},
        "none": {"score": [1.1] * count, "map": maps},
    }
    return bundle_with(profiles=profiles, default_profile="first")


@pytest.fixture(scope="session")
def made_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small phantoms: a.dcm, b.png, c.dcm."""
    from msloc_edge.train.phantom import generate, write_dicom, write_png

    folder = tmp_path_factory.mktemp("films")
    write_dicom(generate(1, (70, 64)), folder / "a.dcm")
    write_png(generate(2, 64), folder / "b.png")
    write_dicom(generate(3, 64, photometric="MONOCHROME1"), folder / "c.dcm")
    return folder


@pytest.fixture
def films(made_films: Path, tmp_path: Path) -> Path:
    """A folder with a.dcm, b.png, c.dcm that the test may change."""
    return Path(shutil.copytree(made_films, tmp_path / "films"))
