"""The launcher that a device uses: without a driver, against stand-ins for one, and on a GPU where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from msloc_edge.cuda.compiled import INDEX, SCHEMA, Argument, Compiled, Picked, read_index
from msloc_edge.cuda.driver import Device, Kernel, grid_size, pick
from msloc_edge.errors import BackendError, DependencyError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.kernels.regions.reference import regions
from msloc_edge.kernels.regions.table import rows
from msloc_edge.kernels.window_resize.reference import enlarges, window_resize

CUBIN, PTX = b"\x7fELF of this device", b"// PTX of any device {}"

FACTS = Compiled(
    operation="blend",
    variant="",
    sm=87,
    portable=False,
    dtype="fp16",
    entry="blend_kernel",
    arguments=(
        Argument("image", "*u8"),
        Argument("share", "fp32"),
        Argument("width", "i32"),
        Argument("stride", "i64"),
        Argument("output", "*fp16"),
    ),
    aligned=("image",),
    grid=("cdiv(width, 128)", "1", "1"),
    block=128,
    tile=None,
    registers=20,
    spills=0,
    shared=256,
    triton="3.9.0",
    ptxas="12.9.86",
    files={"cubin": "blend.cubin"},
    sha256={"cubin": hashlib.sha256(CUBIN).hexdigest()},
)
VALUES = (0x7F0000000010, 0.5, -1024, 2**40, 0x7F0000000101)

NO_PACKAGE = {"cuda.bindings.driver": None, "pycuda.driver": None, "pycuda": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One kernel, for sm_87 and as portable PTX; files that only a stand-in takes for kernels."""
    portable = {"sm": 80, "portable": True, "files": {"ptx": "blend.ptx"}}
    entries = [FACTS.to_dict(), {**FACTS.to_dict(), **portable, "sha256": {"ptx": hashlib.sha256(PTX).hexdigest()}}]
    out = tmp_path / "kernels"
    out.mkdir()
    (out / "blend.cubin").write_bytes(CUBIN)
    (out / "blend.ptx").write_bytes(PTX)
    (out / INDEX).write_text(json.dumps({"schema": SCHEMA, "kernels": entries}))
    return out


def test_nothing_is_needed_to_import_it() -> None:
    """Neither a package that reaches the driver, nor torch, Triton or numpy."""
    heavy = {"cuda", "pycuda", "torch", "triton", "numpy"}
    code = f"import sys, msloc_edge.cuda.driver; print(sorted({heavy} & {{*sys.modules}}))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_the_real_package_without_a_driver() -> None:
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    with pytest.raises(BackendError, match="no NVIDIA driver on this machine: ") as caught:
        Device()
    assert caught.value.reason == "backend_device"
    assert "\n" not in caught.value.message


def test_neither_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in NO_PACKAGE.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(DependencyError, match="expected cuda-bindings or pycuda, found neither; install one") as caught:
        Device()
    assert caught.value.reason == "backend_missing"


# cuda-bindings, calling a driver that prints


@pytest.fixture(scope="module")
def stand_in(libcuda: Callable[[str], Path]) -> Callable[..., list[str]]:
    """Runs a program with the real cuda-bindings on stand_ins/libcuda.c: the lines that both print."""
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    driver = libcuda("libcuda.c")

    def run(program: str, folder: Path, sm: int = 87, fail: str = "", version: int = 13000) -> list[str]:
        program = (
            "from msloc_edge.errors import BackendError\nfrom msloc_edge.cuda.driver import Device\n"
            "from msloc_edge.cuda.streams import open_stream\n"
            f"folder, values = {str(folder)!r}, {VALUES}\ntry:\n    {program}\n"
            "except BackendError as error:\n    print(f'[{error.reason}] {error}')"
        )
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(driver),
            "STAND_IN_SM": str(sm),
            "STAND_IN_SIZES": "84488",
            "STAND_IN_FAIL": fail,
            "STAND_IN_VERSION": str(version),
            "PYTHONUNBUFFERED": "1",
        }
        return subprocess.check_output([sys.executable, "-c", program], env=environment, text=True).splitlines()

    return run


FIND = "kernel = Device().find(folder, 'blend', 'fp16')"


def test_a_cubin_is_loaded_and_launched(stand_in: Callable[..., list[str]], folder: Path) -> None:
    said = stand_in(f"{FIND}; kernel.launch((8, 1, 2), values, stream=0xabc); print(kernel.facts.sm)", folder)
    (share,) = struct.unpack("<i", struct.pack("<f", 0.5))
    assert said == [
        "push 0x1000",
        "load 7f ELF",
        "function blend_kernel",
        "pop",
        "push 0x1000",
        "launch 0x3000 grid 8 1 2 block 128 1 1 shared 256 stream 0xabc",
        "0x7f0000000010",
        str(share),
        "-1024",
        "0x10000000000",
        "0x7f0000000101",
        "pop",
        "87",
    ]


@pytest.mark.parametrize("sm", [80, 121])
def test_another_device_loads_the_ptx(sm: int, stand_in: Callable[..., list[str]], folder: Path) -> None:
    """As a C string: the stand-in reads up to its end."""
    assert stand_in(FIND, folder, sm)[1] == "load 2f }"


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        ("cuInit", "[backend_device] CUDA's driver: cuInit failed: made to fail (CUDA_ERROR_INVALID_IMAGE)"),
        (
            "cuModuleLoadData",
            "[backend_failed] CUDA's driver: cuModuleLoadData failed: made to fail (CUDA_ERROR_INVALID_IMAGE)",
        ),
        (
            "cuLaunchKernel",
            "[backend_failed] CUDA's driver: cuLaunchKernel failed: made to fail (CUDA_ERROR_INVALID_IMAGE)",
        ),
    ],
)
def test_the_driver_refuses(fail: str, expected: str, stand_in: Callable[..., list[str]], folder: Path) -> None:
    said = stand_in(f"{FIND}; kernel.launch((1, 1, 1), values)", folder, fail=fail)
    assert said[-1] == expected
    assert said.count("push 0x1000") == said.count("pop"), "the thread's own context came back"


def test_a_driver_that_is_older_than_the_bindings(stand_in: Callable[..., list[str]], folder: Path) -> None:
    """JetPack 6: cuda-bindings 13 asks for the cuEventElapsedTime of CUDA 12.8. Only times are lost."""
    times = "stream = open_stream(); print(stream.times([stream.mark(), stream.mark()])); stream.close()"
    assert stand_in(times, folder, version=12080)[-3] == "[1.5]"
    assert stand_in(times, folder, version=12060)[-3] == "[]"
    said = stand_in("open_stream()._call('cuEventElapsedTime', 0, 0)", folder, version=12060)
    assert said[-1] == (
        f"[backend_failed] CUDA's driver: cuEventElapsedTime of cuda-bindings {metadata.version('cuda-bindings')} is "
        "not in a driver of CUDA 12.6; update the driver, or: pip install 'cuda-bindings<13'"
    )


def test_a_device_that_is_not_there(stand_in: Callable[..., list[str]], folder: Path) -> None:
    assert stand_in("Device(1)", folder) == ["[backend_device] expected a device from 0 to 0, got 1"]


# pycuda cannot be built on every machine: a stand-in with the calls that its source has


class PyCuda:
    """pycuda.driver, as far as it is used; `log` has what happened, `refuses` makes the next call fail."""

    class Error(Exception):
        """pycuda's own."""

    class Stream:
        """One of its own streams."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.refuses = False
        fake = self

        class Context:
            def push(self) -> None:
                fake.log.append("push")

            @staticmethod
            def pop() -> None:
                fake.log.append("pop")

        class OneDevice:
            count = staticmethod(lambda: 1)

            def __init__(self, ordinal: int) -> None:
                self.ordinal = ordinal

            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

            def get_attribute(self, attribute: str) -> int:
                return {"INTEGRATED": 0}[attribute]

            def retain_primary_context(self) -> Context:
                return Context()

        self.Context, self.Device = Context, OneDevice
        self.device_attribute = SimpleNamespace(INTEGRATED="INTEGRATED")

    def init(self) -> None:
        self.answer("no CUDA-capable device is detected")

    def answer(self, words: str) -> None:
        if self.refuses:
            raise self.Error(words)

    def module_from_buffer(self, image: bytes) -> Any:
        self.answer("module_from_buffer failed: device kernel image is invalid")
        self.log.append(image)
        return SimpleNamespace(get_function=lambda name: Function(self, name))


class Function:
    """A kernel of pycuda's."""

    def __init__(self, driver: PyCuda, name: str) -> None:
        self.driver, self.name, self.format = driver, name, ""

    def prepare(self, types: list[str]) -> None:
        self.format = "".join(types)

    def prepared_async_call(self, grid: Any, block: Any, stream: Any, *values: Any, shared_size: int) -> None:
        self.driver.answer("cuLaunchKernel failed: too many resources requested")
        packed = struct.pack(self.format.replace("P", "Q"), *values)  # in the C compiler's alignment, as pycuda does
        self.driver.log.append((self.name, grid, block, shared_size, stream, packed))


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> PyCuda:
    fake = PyCuda()
    for name, module in {**NO_PACKAGE, "pycuda": SimpleNamespace(driver=fake), "pycuda.driver": fake}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def test_pycuda_where_that_is_installed(pycuda: PyCuda, folder: Path) -> None:
    device = Device()
    assert (device.provider, device.sm) == ("pycuda", 87)
    kernel = device.load(pick(folder, "blend", "fp16", device.sm))
    stream = PyCuda.Stream()
    kernel.launch((8, 1, 2), VALUES)
    kernel.launch((8, 1, 2), VALUES, stream)
    packed = struct.pack("<QfiqQ", *VALUES)
    launch = ["push", ("blend_kernel", (8, 1, 2), (128, 1, 1), 256, None, packed), "pop"]
    assert pycuda.log[:6] == ["push", CUBIN + b"\0", "pop", *launch]
    assert pycuda.log[7][4] is stream


def test_pycuda_cannot_use_a_foreign_stream(pycuda: PyCuda, folder: Path) -> None:
    kernel = Device().find(folder, "blend", "fp16")
    with pytest.raises(BackendError, match="expected 0 or a pycuda Stream") as caught:
        kernel.launch((1, 1, 1), VALUES, stream=0xABC)
    assert caught.value.reason == "backend_failed"


def test_pycuda_refuses(pycuda: PyCuda, folder: Path) -> None:
    device = Device()
    kernel = device.find(folder, "blend", "fp16")
    pycuda.refuses = True
    with pytest.raises(BackendError, match="too many resources requested"):
        kernel.launch((1, 1, 1), VALUES)
    with pytest.raises(BackendError, match="device kernel image is invalid"):
        device.find(folder, "blend", "fp16")
    assert pycuda.log.count("push") == pycuda.log.count("pop")
    with pytest.raises(BackendError, match="no NVIDIA device on this machine: no CUDA-capable device") as caught:
        Device()
    assert caught.value.reason == "backend_device"
    pycuda.refuses = False
    with pytest.raises(BackendError, match="expected a device from 0 to 0, got -1"):
        Device(-1)


def test_values_that_cannot_be_those_of_the_kernel(pycuda: PyCuda, folder: Path) -> None:
    kernel = Device().find(folder, "blend", "fp16")
    with pytest.raises(BackendError, match=r"blend: expected 5 values \(image, share, width, .*\), got 4"):
        kernel.launch((1, 1, 1), VALUES[:4])


def test_an_address_beside_the_promised_multiple(pycuda: PyCuda, folder: Path) -> None:
    kernel = Device().find(folder, "blend", "fp16")
    before = list(pycuda.log)
    with pytest.raises(
        BackendError, match="blend: expected image at a multiple of 16 bytes, got 0x7f0000000018"
    ) as caught:
        kernel.launch((1, 1, 1), (0x7F0000000018, *VALUES[1:]))
    assert caught.value.reason == "backend_failed"
    assert pycuda.log == before


@pytest.mark.parametrize("grid", [(0, 1, 1), (1, 0, 1)])
def test_no_block_is_no_launch(grid: tuple[int, int, int], pycuda: PyCuda, folder: Path) -> None:
    kernel = Device().find(folder, "blend", "fp16")
    before = list(pycuda.log)
    kernel.launch(grid, VALUES)
    assert pycuda.log == before


# On a GPU


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kernels for the GPU of this machine, by the command."""
    pytest.importorskip("triton", reason="triton is not installed")
    out = tmp_path_factory.mktemp("compiled")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    major, minor = torch.cuda.get_device_capability()
    command = [sys.executable, "-m", "msloc_edge.kernels.aot", "--out", str(out), "--sm", f"{10 * major + minor}"]
    subprocess.run(command, env=environment, check=True)
    return out


def launch(kernel: Kernel, batch: int, named: Mapping[str, int | torch.Tensor]) -> None:
    """By the names and the grid rule of kernels.json, on torch's current stream."""
    found = [named[argument.name] for argument in kernel.facts.arguments]
    numbers = {name: value for name, value in named.items() if isinstance(value, int)}
    values = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in found]
    kernel.launch(
        grid_size(kernel.facts.grid, {**numbers, "B": batch}), values, torch.cuda.current_stream().cuda_stream
    )


def on_gpu(folder: Path, operation: str, dtype: str, variant: str) -> list[Kernel]:
    """The cubin of this GPU, and the PTX of any."""
    device = Device()
    portable = next(
        k for k in read_index(folder) if k.portable and (k.operation, k.dtype, k.variant) == (operation, dtype, variant)
    )
    return [
        device.find(folder, operation, dtype, variant),
        device.load(Picked(portable, (folder / portable.files["ptx"]).read_bytes())),
    ]


DTYPES = {"fp16": (torch.float16, 1e-3), "fp32": (torch.float32, 1e-6)}


CLASSES = torch.tensor([[4, 0], [1, 1]], dtype=torch.int32)


def fusion(
    kind: torch.dtype, stages: Sequence[tuple[int, int]], size: tuple[int, int]
) -> tuple[dict[str, int | torch.Tensor], torch.Tensor]:
    """Arguments that all forms of fuse_cams have, for two images and five classes, and the maps by the formula."""
    generator = torch.Generator().manual_seed(0)
    cams = [torch.randn(2, 5, *stage, generator=generator).to(kind).cuda() for stage in stages]
    relevance = torch.rand(5, 4, generator=generator).softmax(1).cuda()
    named: dict[str, int | torch.Tensor] = {f"cams_{stage}": cam for stage, cam in enumerate(cams, start=1)}
    named |= {"relevance": relevance, "classes": CLASSES.cuda(), "K": 5, "H": size[0], "W": size[1]}
    return named, fuse_cams([cam.double() for cam in cams], relevance.double(), size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("size", [(512, 512), (96, 288), (32, 64)])
def test_maps_on_this_gpu(dtype: str, size: tuple[int, int], compiled: Path) -> None:
    """The forms for a network: all classes, and those of each image."""
    kind, limit = DTYPES[dtype]
    named, reference = fusion(kind, [(size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)], size)
    for variant, wanted in (("maps", 5), ("wanted", 2)):
        expected = reference if wanted == 5 else reference[torch.arange(2)[:, None], CLASSES.long()]
        for kernel in on_gpu(compiled, "fuse_cams", dtype, variant):
            maps = torch.full((2, wanted, *size), torch.nan, dtype=kind, device="cuda")
            launch(kernel, 2, {**named, "J": wanted, "tile_h": 16, "maps": maps})
            error = (maps.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
            assert float(error) <= limit


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("size", [(512, 512), (97, 131)])
def test_findings_on_this_gpu(dtype: str, size: tuple[int, int], compiled: Path) -> None:
    """Peaks and masks of maps of any size."""
    stages = [(64, 65), (32, 33), (16, 17), (8, 9)]
    named, reference = fusion(DTYPES[dtype][0], stages, size)
    thresholds = torch.linspace(-0.5, 0.5, 5, device="cuda")
    named |= {f"heights_{stage}": h for stage, (h, _) in enumerate(stages, start=1)}
    named |= {f"widths_{stage}": w for stage, (_, w) in enumerate(stages, start=1)}
    named |= {"thresholds": thresholds, "J": 2, "tile_h": 8}
    height, width = size
    expected = reference[torch.arange(2)[:, None], CLASSES.long()]
    for kernel in on_gpu(compiled, "fuse_cams", dtype, "findings"):
        tiles = -(-height // 8) * -(-width // kernel.facts.block)
        parts = tiles * kernel.facts.block // 32
        keys = torch.zeros((2, 2, parts), dtype=torch.int64, device="cuda")
        mask = torch.zeros((2, 2, -(-height // 8), width), dtype=torch.uint8, device="cuda")
        launch(kernel, 2, {**named, "peaks": keys, "mask": mask})
        values = torch.zeros((2, 2), device="cuda")
        positions = torch.zeros((2, 2, 2), dtype=torch.int32, device="cuda")
        peaks = Device().find(compiled, "fuse_cams", "fp32", "peaks")
        launch(
            peaks,
            2,
            {"parts": parts, "W": width, "J": 2, "peaks": keys, "values": values, "positions": positions},
        )
        torch.testing.assert_close(values.double(), expected.amax((2, 3)), rtol=1e-5, atol=1e-5)
        y, x = positions.long().unbind(-1)
        at_peak = expected[torch.arange(2)[:, None], torch.arange(2)[None], y, x]
        torch.testing.assert_close(at_peak, values.double(), rtol=1e-5, atol=1e-5)
        rows = torch.arange(height, device="cuda")
        above = mask[:, :, rows // 8] >> (rows % 8)[:, None] & 1
        limits = thresholds.double()[CLASSES.long()][:, :, None, None]
        clear = (expected - limits).abs() > 1e-5
        assert bool((above.bool() == (expected >= limits))[clear].all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("image", [(3000, 2500), (1024, 1024), (300, 200)])
def test_window_resize_on_this_gpu(dtype: str, image: tuple[int, int], compiled: Path) -> None:
    kind, _ = DTYPES[dtype]
    geometry = Geometry.fit(image, (512, 512))
    pixels = torch.randint(0, 4096, image, generator=torch.Generator().manual_seed(0)).to(torch.int16).cuda()
    table = torch.linspace(0, 1, 4096).square().cuda()
    named: dict[str, int | torch.Tensor] = {"pixels": pixels, "table": table, "last": 4095}
    for name in ("image_width", "image_height", "input_width", "input_height", "left", "top", "width", "height"):
        named[name] = int(getattr(geometry, name))
    expected = window_resize(pixels, table, geometry, torch.float64)
    for kernel in on_gpu(compiled, "window_resize", dtype, "u16-enlarge" if enlarges(geometry) else "u16-shrink"):
        output = torch.full((1, 1, 512, 512), torch.nan, dtype=kind, device="cuda")
        launch(kernel, 1, {**named, "output": output})
        assert float((output.double() - expected).abs().max()) < 1 / 1024


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("size", [(512, 512), (97, 131), (600, 1)])
def test_regions_on_this_gpu(dtype: str, size: tuple[int, int], compiled: Path) -> None:
    kind, _ = DTYPES[dtype]
    height, width = size
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(kind)
    thresholds = torch.tensor([-1.0, 0.5, 2.0])
    content = torch.tensor([[0, 0, height, width], [5, 0, height - 9, width]], dtype=torch.int32)
    counts, table = regions(maps, thresholds, content, height * width)
    expected = rows(counts.numpy(), table.numpy())
    words = (4 * -(-width // 2) + 1) * height
    inputs = {"maps": maps.cuda(), "thresholds": thresholds.cuda(), "content": content.cuda()}
    named = {**inputs, "J": 3, "H": height, "W": width, "max_regions": height * width}
    steps = zip(on_gpu(compiled, "regions", dtype, "runs"), on_gpu(compiled, "regions", "fp32", "regions"), strict=True)
    for of_rows, of_maps in steps:
        written = {
            "runs": torch.full((2, 3, words), -1, dtype=torch.int32, device="cuda"),
            "counts": torch.full((2, 3), -1, dtype=torch.int32, device="cuda"),
            "table": torch.full((2, 3, height * width, 8), -1, dtype=torch.int32, device="cuda"),
        }
        for kernel in (of_rows, of_maps):
            launch(kernel, 2, {**named, **written})
        assert rows(written["counts"].cpu().numpy(), written["table"].cpu().numpy()) == expected
