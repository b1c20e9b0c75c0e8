"""msloc-build against TensorRT's headers: it compiles, and says what is missing. It has never built a plan here.

What it writes into the cache: test_plan_file.py.
"""

from __future__ import annotations

import ctypes.util
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

TENSORRT_ROOT = Path(os.environ.get("TENSORRT_ROOT", "/nowhere"))

pytestmark = pytest.mark.skipif(
    not list(TENSORRT_ROOT.glob("include/**/NvOnnxParser.h")), reason="TENSORRT_ROOT has no NvOnnxParser.h"
)


@pytest.fixture(scope="module")
def program(structs: dict[str, Any]) -> Path:
    build: Path = structs["ROOT"] / "build" / "capi-build-program"
    options = ("-DMSLOC_BUILD_TESTS=OFF", "-DMSLOC_WITH_OPENVINO=OFF", "-DMSLOC_BUILD_PROGRAMS=ON")
    with structs["alone_in"](build):
        structs["configure"](build, *options, f"-DTENSORRT_ROOT={TENSORRT_ROOT}")
        structs["run"]("cmake", "--build", build, "--target", "msloc-build")
    return build / "msloc_edge" / "capi" / "programs" / "msloc-build"


@pytest.mark.parametrize("arguments", [("film",), ("--batch", "2:1:1"), ("--batch", "1:1"), ("--device", "first")])
def test_usage(arguments: tuple[str, ...], program: Path) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: msloc-build")


def test_what_is_missing_is_named(program: Path, bundle: Path, tmp_path: Path) -> None:
    def failure(folder: Path) -> str:
        command = [program, "--bundle", folder, "--cache", tmp_path / "engines"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    assert "expected a bundle's folder, got none" in failure(tmp_path / "nowhere")
    if ctypes.util.find_library("cuda"):
        pytest.skip("there is a driver")
    assert "libcuda.so.1" in failure(bundle)
    assert not (tmp_path / "engines").exists()
