"""benchmarks/gpu_check.py without a GPU: its limits, its rehearsal, what it writes, and when it stops a step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import sleep
from types import ModuleType

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def check(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/gpu_check.py")


@pytest.fixture
def scratch(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a checkout's packages, where steps run."""
    check.links(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_all_steps_fit_a_lent_machine(check: ModuleType, tmp_path: Path) -> None:
    steps = check.steps(tmp_path)
    assert sum(step.limit for step in steps) <= check.MAX_SECONDS
    assert [step.name for step in steps][:4] == ["kernels", "whole", "bench", "device"], "what is measured comes first"


def test_a_rehearsal_parses_and_does_nothing(
    check: ModuleType, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts and the command line alike; a typing error anywhere ends it with the name of the step."""
    bench = next(step for step in check.steps(scratch / "out") if step.name == "bench")
    own = check.Step("parity", 50, [str(FILE), "--only", "parity"])
    with pytest.raises(SystemExit) as stop:
        check.rehearse([bench, own], scratch)
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "  70 s  bench     python -m msloc_edge bench --backend torch --device cuda" in said
    assert " 120 s  in all, of 480" in said
    assert not (scratch / "out").exists()
    wrong = [
        check.Step("bench", 1, [*bench.command, "--colt", "1"]),
        check.Step("parity", 1, [str(FILE), "--only", "party"]),
        check.Step("slow", 1000, own.command),
    ]
    with pytest.raises(SystemExit) as stop:
        check.rehearse(wrong, scratch)
    assert "bench: " in stop.value.code
    assert "--colt" in stop.value.code
    assert "invalid choice: 'party'" in stop.value.code
    assert "expected limits of 480 s in all, got 1002" in stop.value.code


def test_what_is_known_is_written_after_each_step(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may be taken back at any time."""
    path = tmp_path / "gpu_check.json"
    look = f"import json; print(list(json.load(open({str(path)!r}))['steps']))"
    monkeypatch.setattr(check, "gpu", lambda: {"name": "none"})
    monkeypatch.setattr(
        check, "steps", lambda out: [check.Step("one", 60, ["-c", "exit(3)"]), check.Step("two", 60, ["-c", look])]
    )
    with pytest.raises(SystemExit) as stop:
        check.check(tmp_path, None, tmp_path)
    assert stop.value.code == 1
    found = json.loads(path.read_text())
    assert found["steps"]["one"]["status"] == 3, "the next step runs all the same"
    assert (found["steps"]["two"]["status"], found["steps"]["two"]["said"]) == (0, "['one']\n")


def test_a_step_that_takes_too_long_ends_with_all_that_it_started(check: ModuleType, tmp_path: Path) -> None:
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert check.run(["-c", parent], 5, tmp_path)["status"] == 124
    words = Path("/proc", (tmp_path / "child").read_text(), "cmdline")
    for _ in range(100):  # whoever has it now buries it in its own time
        if not words.exists() or not words.read_bytes():
            return
        sleep(0.1)
    pytest.fail("the child lives on")


def test_kernels_of_another_triton_are_left_alone(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setattr(check.metadata, "version", lambda _: "3.6.0")
    (tmp_path / "prepared.json").write_text('{"sm": 90, "triton": "3.9.0"}')
    assert check.use(tmp_path) == f"nothing: {tmp_path} is of Triton 3.9.0, this is 3.6.0"
    assert "TRITON_CACHE_DIR" not in check.os.environ
    (tmp_path / "prepared.json").write_text('{"sm": 90, "triton": "3.6.0"}')
    monkeypatch.setenv("TRITON_CACHE_DIR", "theirs")
    assert check.use(tmp_path) == "kernels for sm_90 of Triton 3.6.0"
    assert check.os.environ["TRITON_CACHE_DIR"] == str(tmp_path)
