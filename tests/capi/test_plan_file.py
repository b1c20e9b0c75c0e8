"""Plans that msloc-build writes are those of Python's engine cache: name, sidecar, lock."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.plan import SIDECAR, Plan

KEY = Key("ab" * 32, "tensorrt", "10.16.1.11", 87, "fp32", "network", Batch(1, 2, 4))
DATA = b"ftrt" + bytes(20) + bytes((10, 16, 1, 11)) + bytes(range(256)) * 5


@pytest.fixture
def command(capi: Any, tmp_path: Path) -> list[str | Path]:
    (tmp_path / "plan").write_bytes(DATA)
    return [
        *(capi.build / "tests" / "capi" / "msloc_plan_file", tmp_path / "engines"),
        *(KEY.bundle, KEY.version, str(KEY.sm), tmp_path / "plan"),
    ]


def test_python_finds_the_plan(command: list[str | Path], tmp_path: Path, structs: dict[str, Any]) -> None:
    assert structs["run"](*command).split() == [KEY.file]
    plan = Cache(tmp_path / "engines").find(KEY)
    assert plan is not None
    assert plan.data == DATA
    sidecar = tmp_path / "engines" / (KEY.file + SIDECAR)
    assert sidecar.read_bytes() == Plan(DATA, KEY, 1.5).sidecar()
    assert {path.name for path in sidecar.parent.iterdir()} == {KEY.file + end for end in ("", SIDECAR, ".lock")}


def test_a_whole_plan_is_kept_and_another_is_replaced(
    command: list[str | Path], tmp_path: Path, structs: dict[str, Any]
) -> None:
    Cache(tmp_path / "engines").put(Plan(DATA, KEY, 9.0))
    assert structs["run"](*command).split() == ["kept", KEY.file]
    (tmp_path / "engines" / KEY.file).write_bytes(DATA[:-1])
    assert structs["run"](*command).split() == [KEY.file]
    assert (tmp_path / "engines" / KEY.file).read_bytes() == DATA


def test_it_waits_for_a_process_that_builds(command: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    with (tmp_path / "engines" / f"{KEY.file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        assert not (tmp_path / "engines" / KEY.file).exists()
    assert process.communicate()[0] == f"{KEY.file}\n"
    assert process.returncode == 0


def test_a_folder_that_cannot_be_written(command: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "engines" in done.stderr
