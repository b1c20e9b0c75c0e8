"""The whole film on the device by the C library: a network behind TensorRT's stand-in, the PTX that ships behind
cuLaunchKernel.

test_tensorrt_engine.py runs this in a process of its own, as on_stand_in.py.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from interpreted import Interpreter, write_kernels
from plans import DRIVER, NVINFER, SM, VERSION, nothing_left, plan_of

from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.imaging.reading import frame_from_array, read_frame
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

COMPUTE = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
WHOLE = ["window_resize.u16-shrink", "fuse_cams.located", "fuse_cams.peaks", "regions.runs", "regions.regions"]
REAL_FILMS = 2

Open = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def capi(pytestconfig: pytest.Config) -> Any:
    binding: Any = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    path = Path(os.environ["STAND_IN_LIBRARY"])
    return binding.Capi(binding.load(path), path, path.parent)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(Path(os.environ["STAND_IN_BUNDLE"]))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of a film."""
    folder = tmp_path_factory.mktemp("kernels")
    write_kernels(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def network(bundle: Bundle) -> Iterator[None]:
    """The bundle's network behind the stand-in for TensorRT."""
    session = ort.InferenceSession(bundle.read(ONNX))
    height, width = bundle.input_size

    @COMPUTE
    def compute(tensor: bytes, image: int, out: int) -> None:
        pixels = np.ctypeslib.as_array((ctypes.c_float * (height * width)).from_address(image))
        (found,) = session.run([tensor.decode()], {"image": pixels.reshape(1, 1, height, width)})
        ctypes.memmove(out, found.ctypes.data, found.nbytes)

    NVINFER.stand_in_compute(compute)
    yield
    NVINFER.stand_in_compute(None)


@pytest.fixture
def device(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    """What the device runs; in the end nothing is left on it, and no kernel did what a device would not survive."""
    monkeypatch.setenv("STAND_IN_SM", str(SM))
    interpreter = Interpreter(DRIVER, kernels)
    with nothing_left():
        yield interpreter
    interpreter.close()
    assert interpreter.faults == []


@pytest.fixture
def cache(bundle: Bundle, kernels: Path, tmp_path: Path) -> Path:
    """A cache with the plan, and the kernels beside it."""
    Cache(tmp_path / "engines").put(plan_of(bundle))
    shutil.copytree(kernels, tmp_path / "kernels")
    return tmp_path


@pytest.fixture
def opened(capi: Any, bundle: Bundle, cache: Path) -> Open:
    """Opens the bundle by the engine under test: on the device, or on the host by a cache without kernels."""
    shutil.copytree(cache / "engines", cache / "alone" / "engines")

    def open_engine(on_device: bool = True, **options: Any) -> Any:
        folder = (cache if on_device else cache / "alone") / "engines"
        given = {"engine": b"tensorrt", "threads": 1, "cache_folder": str(folder).encode()}
        return capi.open(bundle.path, **(given | options))

    return open_engine


def phantoms() -> list[Frame]:
    """High, wide, and smaller than the model's input; 8 and 12 bits."""
    found = [generate(seed, size).stored for seed, size in enumerate([(90, 150), (128, 96), (64, 70)], start=3)]
    shallow = np.round(generate(7, 80).display() * 255).astype(np.uint8)
    return [frame_from_array(film) for film in (*found[:2], found[2][:50, :40], shallow)]


def localize(handle: Any, frame: Frame) -> None:
    handle.localize(frame.pixels, lut=frame.lut)


def same(ours: Any, theirs: Any) -> int:
    """Compare the results of two open localizers on one film; returns the number of boxes."""
    geometry = ("warnings", "image_width", "image_height", "left", "top", "width", "height")
    for name in geometry:
        assert getattr(ours.summary(), name) == getattr(theirs.summary(), name)
    boxes = 0
    for k, expected in enumerate(theirs.findings()):
        found = ours.finding(k)
        assert found.logit == pytest.approx(expected.logit, abs=1e-4)
        assert (found.peak_x, found.peak_y) == (expected.peak_x, expected.peak_y)
        assert found.peak_value == pytest.approx(expected.peak_value, abs=1e-4)
        assert agreement(ours.boxes(k)[:, :4], theirs.boxes(k)[:, :4]) >= 0.99
        np.testing.assert_allclose(ours.boxes(k)[:, 4], theirs.boxes(k)[:, 4], atol=1e-3)
        np.testing.assert_allclose(ours.map(k), theirs.map(k), atol=1e-3)
        boxes += len(theirs.boxes(k))
    return boxes


def test_a_film_gives_what_it_gives_on_the_host(opened: Open, device: Interpreter, bundle: Bundle) -> None:
    """By the same library, and by Python on onnxruntime: all steps of a film are the device's."""
    with (
        opened() as ours,
        opened(on_device=False) as theirs,
        Localizer(bundle.path, all_classes=True) as python,
    ):
        assert ours.model().engine.decode() == f"tensorrt {VERSION} cuda:0 fp32, films on the device"
        assert theirs.model().engine.decode() == f"tensorrt {VERSION} cuda:0 fp32"
        boxes = 0
        for frame in phantoms():
            localize(ours, frame)
            ran = len(device.ran)
            localize(theirs, frame)
            assert len(device.ran) == ran, "nothing is launched without kernels"
            boxes += same(ours, theirs)
            for k, expected in enumerate(python.localize(frame).findings):
                assert expected.peak is not None
                assert ours.finding(k).score == pytest.approx(expected.score, abs=1e-4)
                assert ours.finding(k).peak_value == pytest.approx(expected.peak.value, abs=1e-4)
                assert agreement(ours.boxes(k)[:, :4], array_of(expected.boxes)) >= 0.99
        assert boxes
        localize(ours, phantoms()[0])
        assert device.ran[-5:] == WHOLE, "in this order"
        assert {"window_resize.u16-enlarge", "window_resize.u8-shrink"} <= set(device.ran)


def test_real_films(opened: Open, device: Interpreter, shared_data: Path) -> None:
    films = sorted(shared_data.glob("nih/images/*.jpg"))[:REAL_FILMS]
    assert films
    with opened() as ours, opened(on_device=False) as theirs:
        for file in films:
            frame = read_frame(file)
            localize(ours, frame)
            localize(theirs, frame)
            same(ours, theirs)
