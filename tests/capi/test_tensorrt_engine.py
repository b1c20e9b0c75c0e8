"""The TensorRT engine of the C library: built against TensorRT's headers, and run on tests/stand_ins.

TENSORRT_ROOT names a folder with TensorRT's headers; without it all of this is skipped.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "tensorrt"
TENSORRT_ROOT = os.environ.get("TENSORRT_ROOT", "")

pytestmark = pytest.mark.skipif(not TENSORRT_ROOT, reason="TENSORRT_ROOT is not given")


@pytest.fixture(scope="module")
def binding(pytestconfig: pytest.Config) -> Any:
    """conftest.py itself: the library's structs and calls, and how it is built."""
    return pytestconfig.pluginmanager.get_plugin(str(HERE.parent / "conftest.py"))


@pytest.fixture(scope="module")
def library(binding: Any) -> Path:
    """libmsloc_edge with TensorRT as its only engine."""
    build: Path = binding.ROOT / "build" / "capi-tensorrt"
    options = {"MSLOC_BUILD_TESTS": "OFF", "MSLOC_WITH_OPENVINO": "OFF", "TENSORRT_ROOT": TENSORRT_ROOT}
    binding.configure(build, *(f"-D{name}={value}" for name, value in options.items()))
    binding.run("cmake", "--build", build)
    return build / "msloc_edge" / "capi" / "libmsloc_edge.so"


@pytest.fixture(scope="module")
def nvinfer(
    library: Path,
    binding: Any,
    stand_ins: Path,
    libcuda: Callable[[str], Path],
) -> Path:
    """libnvinfer.so.MAJOR, in a folder with libcuda.so.1."""
    folder, run = libcuda("libcuda_contexts.c"), binding.run
    commands = json.loads((library.parents[2] / "compile_commands.json").read_text())
    command = next(entry["command"] for entry in commands if entry["file"].endswith("nvinfer.cpp"))
    tensorrt, cuda = re.findall(r"-isystem (\S+)", command)[:2]
    (folder / "major").write_text("NV_TENSORRT_MAJOR")
    version = ("-include", Path(tensorrt) / "NvInferVersion.h")
    major = run("c++", "-E", "-P", "-x", "c++", *version, folder / "major").split()[-1]
    built = folder / f"libnvinfer.so.{major}"
    (folder / "unexpected.h").write_text(run(sys.executable, stand_ins / "unexpected.py", tensorrt))
    includes = ("-I", folder, "-isystem", tensorrt, "-isystem", cuda)
    run("c++", "-std=c++17", *includes, "-shared", "-fPIC", "-o", built, stand_ins / "libnvinfer.cpp", "-ldl")
    return built


@pytest.mark.parametrize("file", ["on_stand_in.py", "device_on_stand_in.py"])
def test_on_stand_ins(library: Path, nvinfer: Path, tiny_bundle: Path, stand_ins: Path, file: str) -> None:
    """All of a file."""
    if file == "device_on_stand_in.py":
        pytest.importorskip("triton", reason="triton is not installed: it compiles the kernels")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(nvinfer.parent),
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, stand_ins / "python", stand_ins.parent / "ptx"))),
        "STAND_IN_BUNDLE": str(tiny_bundle),
        "STAND_IN_LIBRARY": str(library),
        "STAND_IN_NVINFER": str(nvinfer),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    if (stand_ins.parents[2] / "shared" / "data").is_dir() or file == "on_stand_in.py":
        assert "skipped" not in done.stdout


def test_nothing_of_tensorrt_or_cuda_is_linked(library: Path) -> None:
    if not shutil.which("nm") or not shutil.which("readelf"):
        pytest.skip("no nm or readelf here: binutils is missing")
    listing = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in listing.stdout.splitlines()]
    assert [name for name in names if re.search(r"nvinfer|getInfer|createInfer|^_?_?cu[A-Z]|^_?_?cuda", name)] == []
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"NEEDED.*(nvinfer|cuda)", needed)


@pytest.mark.parametrize("device", [b"cuda", b"cuda:0,fp16"])
def test_without_a_driver(device: bytes, library: Path, tiny_bundle: Path, binding: Any) -> None:
    """The library loads, and says what is missing."""
    if ctypes.util.find_library("cuda"):
        pytest.skip("there is a driver")
    capi = binding.Capi(binding.load(library), library, library.parent)
    with (
        pytest.raises(binding.StatusError) as error,
        capi.open(tiny_bundle, engine=b"tensorrt", device=device, cache_folder=b"engines"),
    ):
        pass
    assert error.value.status == "backend_device"
    assert "found no libcuda.so.1" in error.value.sentence


def test_without_tensorrt(library: Path, nvinfer: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A driver alone."""
    shutil.copy(nvinfer.parent / "libcuda.so.1", tmp_path)
    program = f"""
import ctypes, sys
sys.path.insert(0, {str(HERE.parent)!r})
from conftest import Capi, StatusError, load
from pathlib import Path
path = Path({str(library)!r})
try:
    with Capi(load(path), path, path).open(Path({str(tiny_bundle)!r}), engine=b"tensorrt", cache_folder=b"engines"):
        pass
except StatusError as error:
    print(error)
"""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "STAND_IN_SM": "87"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert re.fullmatch(
        r"backend_device: tensorrt: expected TensorRT on this machine, found no libnvinfer\.so\.\d+; .*\n", done.stdout
    )
