"""msloc-edge doctor, as a user runs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.doctor import SCHEMA, machine, places

LINES = {"GPU", "JetPack", "onnxruntime", "openvino", "tensorrt", "DICOM", "cxr-edge", "cache", "DICOM port"}


@pytest.fixture(autouse=True)
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port of the test's own in place of 11112, which something else may have here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = int(server.getsockname()[1])
    monkeypatch.setattr(places, "DICOM_PORT", number)
    return number


def checks(ran: Any) -> dict[str, dict[str, Any]]:
    """Name -> check, of the one JSON object on stdout."""
    assert len(ran.lines) == 1
    return {check["name"]: check for check in ran.lines[0]["checks"]}


def test_json(msloc: Callable[..., Any]) -> None:
    ran = msloc("doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert set(checks(ran)) > LINES
    assert len(checks(ran)) == len(ran.lines[0]["checks"])
    assert set(ran.lines[0]) == {"schema", "ok", "checks", "environment"}
    assert (ran.lines[0]["schema"], ran.lines[0]["ok"]) == (SCHEMA, True)
    for check in ran.lines[0]["checks"]:
        assert set(check) == {"group", "name", "status", "found", "fix"}
        assert check["status"] in ("ok", "absent", "warning", "failing")
        assert check["found"]
    assert ran.lines[0]["environment"] == machine.environment()


def test_the_table(msloc: Callable[..., Any]) -> None:
    ran = msloc("doctor")
    assert (ran.code, ran.lines) == (0, [])
    assert all(f"{name}  " in ran.err for name in LINES)
    assert "failing" not in ran.err
    assert len(ran.err.splitlines()) < 40  # one screen
    assert ran.err.splitlines()[-1].split()[1] == "ok,"


def test_failing_lines_are_shown_with_what_mends_them(
    msloc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, free_port: int
) -> None:
    broken = Path(shutil.copytree(tiny_bundle, tmp_path / "a [bold]model[/bold]"))
    (broken / "model.onnx").write_bytes(b"")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "file"))
    with socket.create_server(("127.0.0.1", free_port)):
        ran = msloc("doctor", "--json", "--model", broken)
        table = msloc("doctor", "--model", broken)
    statuses = {name: check["status"] for name, check in checks(ran).items()}
    assert (ran.code, ran.lines[0]["ok"], ran.err) == (1, False, "")
    assert [name for name, status in statuses.items() if status == "failing"] == ["--model", "cache"]
    assert statuses["DICOM port"] == "warning"
    assert checks(ran)["--model"]["found"].startswith("[bundle_hash] ")
    assert (table.code, table.lines) == (1, [])
    for check in ran.lines[0]["checks"]:
        assert check["fix"] is None or f"fix: {check['fix']}" in table.err
    assert "a[bold]model[/bold]" in "".join(table.err.split())  # a long path is folded
    assert "2 failing" in table.err.splitlines()[-1]


def test_a_model_that_is_whole(msloc: Callable[..., Any], tiny_bundle: Path) -> None:
    ran = msloc("doctor", "--json", "--model", tiny_bundle)
    assert (ran.code, checks(ran)["--model"]["status"]) == (0, "ok")


@pytest.mark.parametrize(
    ("script", "status", "says"),
    [
        ("echo 'NVIDIA H100 80GB HBM3, 9.0, 81559 MiB, 550.54.15'", "ok", "NVIDIA H100 80GB HBM3, sm_90, 85.5 GB"),
        ("echo '?,?'", "absent", "none listed"),
        ("exec sleep 600", "absent", "none listed"),
    ],
)
def test_an_nvidia_smi(
    msloc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, status: str, says: str
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(machine, "NVIDIA_PATIENCE", 5.0)
    ran = msloc("doctor", "--json")
    assert ran.code == 0
    assert (checks(ran)["GPU"]["status"], checks(ran)["GPU"]["found"]) == (status, says)
    assert checks(ran)["NVIDIA driver"]["status"] == ("ok" if status == "ok" else "warning")


def test_the_installed_script_outlives_packages_that_crash(start: Callable[..., Any], tmp_path: Path) -> None:
    for name, source in (("onnxruntime", "import os; os.abort()"), ("openvino", "raise OSError('libtbb.so.12')")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
    begun = time.monotonic()
    process: subprocess.Popen[bytes] = start("doctor", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    out, err = process.communicate(timeout=120)
    text = err.decode()
    assert (process.returncode, out) == (1, b"")
    assert "Traceback" not in text
    assert "it crashes: Aborted" in text
    assert "fix: pip install --force-reinstall onnxruntime" in text
    assert "it fails: OSError: libtbb.so.12" in text
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("arguments", [("doctor", "film.png"), ("doctor", "--model")])
def test_wrong_usage(msloc: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    assert msloc(*arguments).code == 2
