"""The C++ plugin: what it carries, chooses and launches on a stand-in for the driver, and what TensorRT sees of it.

TENSORRT_ROOT names a folder with TensorRT's headers; without it the plugin itself is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from msloc_edge.cuda.compiled import INDEX

pytest.importorskip("triton", reason="triton is not installed")

from msloc_edge.kernels.fuse_cams.launch import strided_tile

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "kernels" / "plugin"
TENSORRT_ROOT = os.environ.get("TENSORRT_ROOT", "")

COMPILE = """
import sys
from pathlib import Path
from msloc_edge.kernels.aot.build import build
from msloc_edge.kernels.aot.variants import variants

build([v for v in variants() if (v.operation, v.variant) == ("fuse_cams", "maps")], (87, 90), Path(sys.argv[1]))
"""

needs_headers = pytest.mark.skipif(not TENSORRT_ROOT, reason="TENSORRT_ROOT is not given")


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, timeout=300)


def output(*command: str | Path, **variables: str) -> str:
    done = run(*command, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two devices' cubins and the portable PTX, of what the plugin carries alone."""
    folder = tmp_path_factory.mktemp("kernels")
    output(sys.executable, "-c", COMPILE, folder)
    return folder


@pytest.fixture(scope="module")
def built(kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no CMake or no C++ compiler")
    folder = tmp_path_factory.mktemp("plugin")
    options = {
        "MSLOC_WARNINGS_AS_ERRORS": "ON",
        "MSLOC_KERNELS_DIR": kernels,
        "Python3_EXECUTABLE": sys.executable,
        "TENSORRT_ROOT": TENSORRT_ROOT,
    }
    said = output("cmake", "-S", SOURCE, "-B", folder, *(f"-D{key}={value}" for key, value in options.items()))
    assert ("msloc_camfuse (the TensorRT plugin) is skipped: TENSORRT_ROOT is not given" in said) == (not TENSORRT_ROOT)
    output("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def driver(libcuda: Callable[[str], Path]) -> Path:
    """A folder with a stand-in for libcuda.so.1."""
    return libcuda("libcuda_camfuse.c")


@pytest.fixture
def check(built: Path, driver: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the check program on the stand-in."""

    def on_stand_in(*size: int, sm: int = 87, **variables: str) -> subprocess.CompletedProcess[str]:
        program = built / "msloc_camfuse_check"
        return run(program, *map(str, size), LD_LIBRARY_PATH=str(driver), STAND_IN_SM=str(sm), **variables)

    return on_stand_in


# What is launched


@pytest.mark.parametrize(
    ("sm", "image"),
    [(87, "cubin sm_87"), (90, "cubin sm_90"), (80, "PTX sm_80"), (88, "PTX sm_80"), (121, "PTX sm_80")],
)
def test_a_device_gets_its_own_cubin_or_the_portable_ptx(
    sm: int, image: str, check: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Loaded once for each type, however often it is launched."""
    done = check(2, 3, 64, 96, sm=sm)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("load")] == [f"load {image}"] * 2
    assert re.findall(r"^(fp\d+) 2 x 3 x 64 x 96: RMS ratio", done.stdout, re.MULTILINE) == ["fp32", "fp16"]


def test_an_old_device_is_refused(check: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = check(1, 1, 32, 64, sm=75)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CamFuse: expected a device from sm_80 on, got sm_75; run the plain graph there\n"


@pytest.mark.parametrize(
    ("batch", "classes", "height", "width", "rows"),
    [(1, 1, 32, 64, 16), (1, 3, 96, 320, 16), (10, 14, 96, 288, 32), (300, 4, 32, 64, 128)],
)
def test_the_launch_is_that_of_the_kernel(
    batch: int, classes: int, height: int, width: int, rows: int, check: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The rule of launch.py, and the arguments of kernels.json; the stand-in computes what it was told to."""
    done = check(batch, classes, height, width)
    assert done.returncode == 0, done.stdout + done.stderr
    tile = strided_tile(batch * classes, (height, width))
    assert (tile.rows, tile.columns) == (rows, 256)
    blocks = batch * classes * -(-height // rows) * -(-width // 256)
    scalars = f"{classes} {classes} {height} {width} {rows}"
    launch = f"launch grid {blocks} 1 1 block 128 1 1 shared 0 stream 0xabc scalars {scalars}"
    assert launch in done.stderr.splitlines()


@pytest.mark.parametrize("pixel", [0, 777])
def test_a_pixel_that_is_not_written_is_found(
    pixel: int, check: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = check(1, 2, 32, 96, STAND_IN_FORGETS=str(pixel))
    assert done.returncode == 1
    assert [line.endswith("WRONG") for line in done.stdout.splitlines()] == [True, True]


@pytest.mark.parametrize("function", ["cuCtxGetDevice", "cuLibraryLoadData", "cuLaunchKernel"])
def test_the_driver_refuses(function: str, check: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = check(1, 1, 32, 64, STAND_IN_FAIL=function)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"CUDA's driver: {function} failed: made to fail (200)"


def test_no_device(check: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = check(1, 1, 32, 64, STAND_IN_FAIL="cuInit")
    assert (done.returncode, done.stderr) == (77, "skipped: expected a CUDA device, found none\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_no_driver(built: Path) -> None:
    done = run(built / "msloc_camfuse_check")
    assert (done.returncode, done.stdout) == (77, "")
    assert re.fullmatch(r"skipped: expected NVIDIA's driver .*, found no libcuda\.so\.1; .*\n", done.stderr)


CELLS = "class maps of at least two columns, with cells of 4, 8, 16 and 32 pixels"


@pytest.mark.parametrize(
    ("size", "expected", "got"),
    [
        ((0, 1, 32, 64), "at least one image and one class", "0 and 1"),
        ((1, -1, 32, 64), "at least one image and one class", "1 and -1"),
        ((1, 1, 97, 131), CELLS, "24 x 32 of 4 for a map of 97 x 131; run the plain graph for other models"),
        ((1, 1, 40, 64), CELLS, "2 x 4 of 16 for a map of 40 x 64; run the plain graph for other models"),
        ((1, 1, 64, 72), CELLS, "4 x 4 of 16 for a map of 64 x 72; run the plain graph for other models"),
        ((1, 1, 64, 32), CELLS, "2 x 1 of 32 for a map of 64 x 32; run the plain graph for other models"),
        ((1, 1, 0, 64), CELLS, "0 x 16 of 4 for a map of 0 x 64; run the plain graph for other models"),
        ((1, 1, 32, 1 << 26), "a smaller map", "32 x 67108864"),
    ],
)
def test_sizes_that_the_kernel_cannot_have(
    size: tuple[int, ...], expected: str, got: str, check: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = check(*size)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"CamFuse: expected {expected}, got {got}\n"


def test_wrong_usage(check: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert check(1, 2).returncode == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_this_gpu(built: Path) -> None:
    lines = output(built / "msloc_camfuse_check").splitlines()
    assert len(lines) == 8
    assert not any("WRONG" in line for line in lines)


# What is carried


def embed(kernels: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, SOURCE / "embed.py", kernels, out)


def test_every_image_is_carried(kernels: Path, tmp_path: Path) -> None:
    assert embed(kernels, tmp_path).returncode == 0
    table = re.findall(r"\{Type::(\w+), (\d+), (\w+), ", (tmp_path / "camfuse_images.cpp").read_text())
    devices = [("87", "false"), ("90", "false"), ("80", "true")]
    assert table == [(dtype, *device) for dtype in ("fp16", "fp32") for device in devices]
    files = re.findall(r'\.incbin "(.*)"', (tmp_path / "camfuse_images.S").read_text())
    names = [Path(file).name for file in files]
    assert names == [
        f"fuse_cams.maps.{dtype}.{file}"
        for dtype in ("fp16", "fp32")
        for file in ("sm_87.cubin", "sm_90.cubin", "portable.ptx")
    ]


@pytest.fixture
def copied(kernels: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kernels, tmp_path / "copied"))


def changed(folder: Path, change: Callable[[dict[str, object]], object]) -> Path:
    content = json.loads((folder / INDEX).read_text())
    for kernel in content["kernels"]:
        change(kernel)
    (folder / INDEX).write_text(json.dumps(content))
    return folder


def swapped(kernel: dict[str, object]) -> None:
    arguments = kernel["arguments"]
    assert isinstance(arguments, list)
    arguments[-2], arguments[-3] = arguments[-3], arguments[-2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (swapped, "another call of fuse_cams_strided_kernel than camfuse_launch.cpp makes"),
        (lambda kernel: kernel.update(grid=["B", "1", "1"]), "another call of fuse_cams_strided_kernel"),
        (lambda kernel: kernel.update(shared=64), "another call of fuse_cams_strided_kernel"),
        (lambda kernel: kernel.update(block=256), "another call of fuse_cams_strided_kernel"),
        (lambda kernel: kernel.update(aligned=["maps", "cams_1"]), "another call of fuse_cams_strided_kernel"),
        (lambda kernel: kernel.pop("aligned"), "another call of fuse_cams_strided_kernel"),
        (lambda kernel: kernel.update(variant="findings"), "expected fuse_cams in the form maps for fp16 and fp32"),
        (lambda kernel: kernel.update(portable=False), "expected fuse_cams in the form maps for fp16 and fp32"),
    ],
)
def test_another_kernel_than_the_plugin_calls_is_refused(
    change: Callable[[dict[str, object]], object], sentence: str, copied: Path, tmp_path: Path
) -> None:
    done = embed(changed(copied, change), tmp_path / "out")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "fuse_cams.maps.fp16.sm_87.cubin").write_bytes(b"\x7fELF")
    done = embed(copied, tmp_path / "out")
    assert done.returncode == 1
    assert "fuse_cams.maps.fp16.sm_87.cubin: not the file that kernels.json names" in done.stderr


def test_no_kernels(tmp_path: Path) -> None:
    done = embed(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert "make it: python -m msloc_edge.kernels.aot" in done.stderr


# What TensorRT sees


@needs_headers
def test_nothing_of_tensorrt_or_cuda_is_linked(built: Path) -> None:
    library = built / "libmsloc_camfuse.so"
    exported = [line.split()[-1] for line in output("nm", "-D", "--defined-only", library).splitlines()]
    assert sorted(exported) == ["getCreators", "setLoggerFinder"]
    needed = [line.split()[-1] for line in output("nm", "-D", "--undefined-only", library).splitlines()]
    foreign = r"nvinfer|getInfer|getPlugin|getLogger|^_?_?cu[A-Z]|^_?_?cuda"
    assert [name for name in needed if re.search(foreign, name)] == []
    libraries = set(re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", library)))
    assert libraries <= {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libdl.so.2", "libpthread.so.0"}


@pytest.fixture(scope="module")
def host(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that does what TensorRT does with a plugin."""
    program = tmp_path_factory.mktemp("host") / "camfuse_plugin_host"
    cache = (built / "CMakeCache.txt").read_text()
    folders = re.findall(r"^MSLOC_(?:TENSORRT|CUDA)_INCLUDE:PATH=(.*)$", cache, re.MULTILINE)
    includes = [word for folder in folders for word in ("-isystem", folder)]
    output("c++", "-std=c++17", *includes, "-o", program, HERE / "camfuse_plugin_host.cpp", "-ldl")
    return program


@needs_headers
@pytest.mark.parametrize(
    ("last", "failing"), [((), {}), (("fail",), {"STAND_IN_FAIL": "cuLaunchKernel"})], ids=["runs", "fails"]
)
def test_through_the_interfaces_of_tensorrt(
    last: tuple[str, ...], failing: dict[str, str], host: Path, built: Path, driver: Path
) -> None:
    output(host, built / "libmsloc_camfuse.so", *last, LD_LIBRARY_PATH=str(driver), STAND_IN_SM="87", **failing)
