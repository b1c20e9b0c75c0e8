"""libmsloc_edge as Python sees it through ctypes, built once per session by CMake."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "capi"
NO_DEADLINE = 2**32 - 1
LogFn = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
AuditFn = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)


class _Struct(ctypes.Structure):
    """A struct of the header with its size set, as its _INIT macro makes it."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**({"struct_size": ctypes.sizeof(self)} | values))


class Options(_Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("threads", c_uint32),
        ("bundle", c_char_p),
        ("profile", c_char_p),
        ("engine", c_char_p),
        ("device", c_char_p),
        ("cache_folder", c_char_p),
        ("max_pixels", c_uint64),
        ("max_boxes", c_uint32),
        ("error_size", c_uint32),
        ("error", c_char_p),
        ("log", LogFn),
        ("log_user", c_void_p),
        ("audit", AuditFn),
        ("audit_user", c_void_p),
    )


class Pixels(_Struct):
    _fields_ = (
        *((name, c_uint32) for name in ("struct_size", "width", "height", "bits_allocated", "bits_stored")),
        *((name, c_uint32) for name in ("is_signed", "photometric", "voi")),
        ("data", c_void_p),
        ("data_size", c_uint64),
        ("row_stride", c_uint64),
        *((name, c_double) for name in ("window_center", "window_width", "rescale_slope", "rescale_intercept")),
        ("table", c_void_p),
        ("table_size", c_uint32),
        ("reserved", c_uint32),
        ("device_data", c_void_p),
        ("stream", c_void_p),
    )


class Request(_Struct):
    _fields_ = (("struct_size", c_uint32), ("all_classes", c_uint32), ("deadline_ms", c_uint32))


class Model(_Struct):
    _fields_ = (
        *(
            (name, c_uint32)
            for name in ("struct_size", "classes", "stages", "input_width", "input_height", "max_boxes")
        ),
        *((name, c_char_p) for name in ("name", "version", "sha256", "profile", "engine")),
    )


class Summary(_Struct):
    _fields_ = (
        *((name, c_uint32) for name in ("struct_size", "warnings", "positive", "image_width", "image_height")),
        *((name, c_uint32) for name in ("left", "top", "width", "height")),
        *((name, c_float) for name in ("preprocess_ms", "network_ms", "localize_ms", "total_ms")),
        ("reserved", c_uint32),
        *((name, c_float) for name in ("abnormal", "abnormal_threshold")),
    )


class Finding(_Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("positive", c_uint32),
        ("label", c_char_p),
        *((name, c_double) for name in ("score", "threshold", "logit", "map_threshold")),
        *((name, c_uint32) for name in ("localized", "boxes", "boxes_found", "reserved")),
        *((name, c_double) for name in ("peak_x", "peak_y", "peak_value")),
    )


class Box(ctypes.Structure):
    _fields_ = tuple((name, c_double) for name in ("x", "y", "w", "h", "score"))


class Deviation(_Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("classes_beyond", c_uint32),
        *((name, c_double) for name in ("logit", "peak_value", "peak_shift", "iou", "abnormal")),
    )


class StatusError(Exception):
    """A call that did not return MSLOC_OK: the status's name and the library's sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(f"{status}: {sentence}")
        self.status, self.sentence = status, sentence


@dataclass
class Handle:
    """An open localizer; each method is one call of the C library and raises StatusError."""

    library: ctypes.CDLL
    pointer: c_void_p
    keep: list[Any] = field(default_factory=list)

    def call(self, name: str, *arguments: Any) -> None:
        """msloc_NAME(localizer, *arguments)."""
        status = getattr(self.library, f"msloc_{name}")(self.pointer, *arguments)
        if status:
            text = self.library.msloc_status_text(status).decode()
            raise StatusError(text, self.library.msloc_last_error(self.pointer).decode())

    def localize(self, pixels: np.ndarray, *, all_classes: bool = True, **values: Any) -> None:
        """One film [H, W] of uint8, uint16 or int16; `values` are members of msloc_pixels."""
        self.call("localize", byref(pixels_of(pixels, **values)), byref(request(all_classes=int(all_classes))))

    def model(self) -> Model:
        self.call("get_model", byref(model := Model()))
        return model

    def summary(self) -> Summary:
        self.call("get_summary", byref(summary := Summary()))
        return summary

    def finding(self, k: int) -> Finding:
        self.call("get_finding", k, byref(finding := Finding()))
        return finding

    def findings(self) -> list[Finding]:
        return [self.finding(k) for k in range(self.model().classes)]

    def boxes(self, k: int) -> np.ndarray:
        """[N, 5]: x, y, w, h, score."""
        boxes = (Box * self.finding(k).boxes)()
        self.call("get_boxes", k, boxes, len(boxes))
        return np.array([(b.x, b.y, b.w, b.h, b.score) for b in boxes]).reshape(-1, 5)

    def map(self, k: int) -> np.ndarray:
        model = self.model()
        out = np.full((model.input_height, model.input_width), np.nan, np.float32)
        self.call("get_map", k, out.ctypes.data_as(POINTER(c_float)), out.size)
        return out


def request(**values: int) -> Request:
    return Request(**{"deadline_ms": NO_DEADLINE, **values})


def pixels_of(pixels: np.ndarray, **values: Any) -> Pixels:
    """Wrap an array as msloc_pixels; a `lut` becomes its table. The struct keeps the arrays that it points to."""
    if (lut := values.pop("lut", None)) is not None:
        lut = np.ascontiguousarray(lut, np.float32)
        bits = (lut.size - 1).bit_length()
        values = {"voi": 4, "table": lut.ctypes.data, "table_size": lut.size, "bits_stored": bits} | values
    height, width = pixels.shape
    film = Pixels(
        **{
            "data": pixels.ctypes.data,
            "data_size": (height - 1) * pixels.strides[0] + width * pixels.itemsize,
            "row_stride": pixels.strides[0],
            "width": width,
            "height": height,
            "bits_allocated": 8 * pixels.itemsize,
            "is_signed": int(pixels.dtype.kind == "i"),
            "rescale_slope": 1.0,
            **values,
        }
    )
    film.keep = (pixels, lut)
    return film


@dataclass(frozen=True)
class Capi:
    """The built library, its structs, and a maker of handles."""

    library: ctypes.CDLL
    path: Path
    build: Path

    @contextmanager
    def open(self, bundle: Path, **options: Any) -> Iterator[Handle]:
        """A localizer of a bundle, closed at the end; raises StatusError where it cannot be opened."""
        error, pointer = ctypes.create_string_buffer(512), c_void_p()
        given = Options(bundle=str(bundle).encode(), **options)
        given.error, given.error_size = ctypes.cast(error, c_char_p), len(error)
        status = self.library.msloc_open(byref(given), byref(pointer))
        if status:
            assert not pointer
            raise StatusError(self.library.msloc_status_text(status).decode(), error.value.decode())
        try:
            yield Handle(self.library, pointer, [given])
        finally:
            self.library.msloc_close(pointer)


def missing_tool() -> str | None:
    """Name a tool that the build needs and this machine lacks; None where all are here."""
    for tool in ("cmake", "ninja", "c++"):
        if not shutil.which(tool):
            return tool
    version = run("cmake", "--version").split()[2]
    if tuple(map(int, version.split(".")[:2])) < (3, 25):
        return f"cmake 3.25 for the presets, but {version}"
    return None if importlib.util.find_spec("openvino") else "openvino"


def run(*command: str | Path, **options: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def has_dcmtk() -> bool:
    return any(any(Path("/usr").glob(pattern)) for pattern in ("lib/*/cmake/dcmtk", "lib/cmake/dcmtk"))


@contextmanager
def alone_in(build: Path) -> Iterator[None]:
    """One process at a time configures and builds in a folder: pytest-xdist runs several sessions."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def configure(build: Path, *settings: str) -> None:
    """The x86-release preset into a folder of the tests' own. Skips where a tool or a package is missing."""
    if tool := missing_tool():
        pytest.skip(f"libmsloc_edge cannot be built here: no {tool}")
    done = subprocess.run(
        ["cmake", "--preset", "x86-release", "-B", build, f"-DPython3_EXECUTABLE={sys.executable}", *settings],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if "nlohmann-json:" in done.stderr:
        pytest.skip("libmsloc_edge cannot be built here: no nlohmann-json")
    assert done.returncode == 0, done.stderr


def load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.msloc_status_text.restype = c_char_p
    library.msloc_last_error.restype = c_char_p
    library.msloc_last_error.argtypes = [c_void_p]
    library.msloc_version.restype = c_uint32
    library.msloc_close.restype = None
    library.msloc_close.argtypes = [c_void_p]
    library.msloc_get_map.argtypes = [c_void_p, c_uint32, c_void_p, c_uint64]
    return library


@pytest.fixture(scope="session")
def capi() -> Capi:
    """libmsloc_edge with its unit tests, in build/capi, with DCMTK where it is: the second session builds only what
    changed."""
    with alone_in(BUILD):
        configure(BUILD, f"-DMSLOC_WITH_DCMTK={'ON' if has_dcmtk() else 'OFF'}")
        run("cmake", "--build", BUILD)
    path = BUILD / "msloc_edge" / "capi" / "libmsloc_edge.so"
    return Capi(load(path), path, BUILD)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped edge model, without its input gate: what these tests localize is often no film."""
    shipped = ROOT / "msloc_edge" / "bundle" / "models" / "cxr-edge"
    folder = shutil.copytree(shipped, tmp_path_factory.mktemp("shipped") / "cxr-edge")
    manifest = json.loads((shipped / "manifest.json").read_text())
    manifest.pop("input_gate", None)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def edge(capi: Capi, bundle: Path) -> Iterator[Handle]:
    """One open localizer of the edge model for tests that only localize."""
    with capi.open(bundle) as handle:
        yield handle


@pytest.fixture(scope="session")
def structs() -> Mapping[str, Any]:
    """Structs and helpers for tests that call the library by hand, by name."""
    names = ("Options", "Pixels", "Request", "Model", "Summary", "Finding", "Box", "Deviation", "LogFn", "AuditFn")
    helpers: dict[str, Callable[..., Any] | Any] = {
        "pixels_of": pixels_of,
        "request": request,
        "StatusError": StatusError,
        "run": run,
        "alone_in": alone_in,
        "configure": configure,
        "has_dcmtk": has_dcmtk,
        "missing_tool": missing_tool,
        "ROOT": ROOT,
        "ExitStack": ExitStack,
    }
    return {name: globals()[name] for name in names} | helpers
