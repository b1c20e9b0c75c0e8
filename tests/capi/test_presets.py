"""Builds of the parts without an engine that look for what a test cannot see, each a CMake workflow of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NEEDS = {
    "fuzz": ("clang++", "libclang_rt.fuzzer-x86_64.a"),
    "asan": ("c++", "libasan.so"),
    "tsan": ("c++", "libtsan.so"),
    "aarch64-cross": ("aarch64-linux-gnu-g++", "libstdc++.so"),
}
"""Compiler and library of each preset."""


def missing(preset: str) -> str | None:
    """Name a tool or library of a preset that this machine lacks; None where all are here."""
    compiler, library = NEEDS[preset]
    tools = ("cmake", "ninja", compiler, *(("qemu-aarch64",) if preset == "aarch64-cross" else ()))
    for tool in tools:
        if not shutil.which(tool):
            return tool
    found = subprocess.run([compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    return None if Path(found.stdout.strip()).is_absolute() else library


@pytest.mark.parametrize("preset", NEEDS)
def test_workflow(preset: str, structs: dict[str, Any]) -> None:
    if what := missing(preset) or structs["missing_tool"]():
        pytest.skip(f"{preset} cannot be built here: no {what}")
    if preset == "asan" and missing("fuzz") is None:
        pytest.skip("fuzz runs the tests of asan")
    seen = structs["run"]("cmake", "--workflow", "--preset", preset, cwd=structs["ROOT"])
    assert "100% tests passed, 0 tests failed" in seen
    assert {"fuzz_manifest", "fuzz_pixels"} <= set(seen.split()) or preset != "fuzz"
    assert "test_api" in seen
