"""The whole film on the device by the C library: a network behind TensorRT's stand-in, the PTX that ships behind
cuLaunchKernel.

test_tensorrt_engine.py runs this in a process of its own, as on_stand_in.py.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from interpreted import WHOLE, Interpreter, write_kernels
from plans import DRIVER, NVINFER, SM, VERSION, nothing_left, plan_of

from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.imaging.reading import frame_from_array, read_frame
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

COMPUTE = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
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


@pytest.mark.parametrize("integrated", [False, True])
def test_nothing_is_copied_that_nobody_asked_for(
    opened: Open, device: Interpreter, integrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In: pixels, table, content. Out: the film for the input gate, logits, class maps, what was found."""
    if integrated:
        monkeypatch.setenv("STAND_IN_INTEGRATED", "1")
    with opened() as handle:
        before, enqueued = DRIVER.stand_in_copies(), NVINFER.stand_in_enqueues()
        localize(handle, phantoms()[0])
        assert DRIVER.stand_in_copies() - before == (0 if integrated else 3 + 1 + 5 + 4)
        assert NVINFER.stand_in_enqueues() == enqueued, "a graph"
        assert handle.summary().network_ms > 0


def test_without_a_graph_kernels_are_launched_one_by_one(
    opened: Open, device: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAIL", "cuStreamBeginCapture")
    with opened() as ours, opened(on_device=False) as theirs:
        assert ", films on the device, no CUDA graph: CUDA's driver: cuStreamB" in ours.model().engine.decode()
        localize(ours, phantoms()[0])
        assert device.ran[-5:] == WHOLE
        localize(theirs, phantoms()[0])
        same(ours, theirs)


def test_memory_grows_with_the_largest_film(opened: Open, device: Interpreter) -> None:
    with opened() as handle, opened(on_device=False) as theirs:
        localize(handle, phantoms()[0])
        memory = DRIVER.stand_in_live()
        for frame in (phantoms()[1], frame_from_array(generate(8, 160).stored), phantoms()[0]):
            localize(handle, frame)
            localize(theirs, frame)
            same(handle, theirs)
        assert DRIVER.stand_in_live() == memory


def test_a_map_with_more_regions_than_its_table_is_searched_on_the_host(
    opened: Open, bundle: Bundle, device: Interpreter, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device says of every second class that there were too many."""
    run = Interpreter._run

    def crowded(self: Interpreter, number: int) -> None:
        run(self, number)
        called = self._launches[number - 1]
        if called.kernel.variant == "regions":
            names = [argument.name for argument in called.kernel.arguments]
            counts = (ctypes.c_int32 * len(bundle.classes)).from_address(called.values[names.index("counts")])
            for k in range(0, len(bundle.classes), 2):
                counts[k] = 65

    monkeypatch.setattr(Interpreter, "_run", crowded)
    Interpreter(DRIVER, kernels)  # in place of `device`
    with opened() as ours, opened(on_device=False) as theirs:
        localize(ours, phantoms()[0])
        localize(theirs, phantoms()[0])
        assert same(ours, theirs)


# Who does not wait


def test_a_gate_that_does_not_wait_sees_the_film_before(
    opened: Open, structs: dict[str, Any], device: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of these tests: before the first film a black one went through."""
    first, second = phantoms()[:2]
    with opened() as handle:
        with monkeypatch.context() as forgetful:
            forgetful.setenv("STAND_IN_FORGET", "cuEventSynchronize")
            with pytest.raises(structs["StatusError"], match="got one brightness for every pixel"):
                localize(handle, first)
        localize(handle, second)


def test_a_host_that_does_not_wait_reads_the_film_before(
    opened: Open, device: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = phantoms()[:2]
    with opened() as ours, opened(on_device=False) as theirs:
        localize(ours, first)
        localize(theirs, first)
        with monkeypatch.context() as forgetful:
            forgetful.setenv("STAND_IN_FORGET", "cuStreamSynchronize")
            localize(ours, second)
        assert [f.logit for f in ours.findings()] == pytest.approx([f.logit for f in theirs.findings()], abs=1e-4)
        localize(ours, second)
        localize(theirs, second)
        same(ours, theirs)


# Films that are on the device already


class Caller:
    """A caller's own stream and memory on the device, which is written as late as may be."""

    def __init__(self) -> None:
        self.stream = ctypes.c_void_p()
        self._memory: list[ctypes.c_void_p] = []
        self._source: list[np.ndarray] = []
        assert DRIVER.cuStreamCreate(ctypes.byref(self.stream), 1) == 0

    def put(self, pixels: np.ndarray) -> int:
        """Put the copy of an array to new memory on the stream; its address."""
        address, source = ctypes.c_void_p(), np.ascontiguousarray(pixels)
        with self._context():
            assert DRIVER.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(source.nbytes)) == 0
            size = ctypes.c_size_t(source.nbytes)
            DRIVER.cuMemcpyHtoDAsync_v2(address, ctypes.c_void_p(source.ctypes.data), size, self.stream)
        self._memory.append(address)
        self._source.append(source)
        assert address.value
        return address.value

    def close(self) -> None:
        with self._context():
            DRIVER.cuStreamDestroy_v2(self.stream)
            for address in self._memory:
                DRIVER.cuMemFree_v2(address)

    @contextmanager
    def _context(self) -> Iterator[None]:
        DRIVER.cuCtxPushCurrent_v2(ctypes.c_void_p(0x1000))
        yield
        DRIVER.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


@pytest.fixture
def caller(device: Interpreter) -> Iterator[Caller]:
    made = Caller()
    yield made
    made.close()


def localize_there(handle: Any, caller: Caller, frame: Frame, padding: int = 0) -> None:
    """Localize a film whose samples the caller's stream writes, with columns between its rows."""
    padded = np.pad(frame.pixels, ((0, 0), (0, padding)), constant_values=77)
    there = {"data": None, "device_data": caller.put(padded), "stream": caller.stream}
    handle.localize(frame.pixels, lut=frame.lut, **there, data_size=padded.nbytes, row_stride=padded.strides[0])


@pytest.mark.parametrize("padding", [0, 6])
def test_a_film_on_the_device_gives_what_it_gives_from_the_host(
    opened: Open, device: Interpreter, caller: Caller, padding: int
) -> None:
    with opened() as ours, opened() as theirs:
        for frame in phantoms():
            before = DRIVER.stand_in_copies()
            localize_there(ours, caller, frame, padding)
            # the caller's own copy, the table, the content, what comes out, and rows that are packed
            assert DRIVER.stand_in_copies() - before == 1 + 2 + 1 + 5 + 4 + bool(padding)
            localize(theirs, frame)
            same(ours, theirs)


def test_a_film_on_the_device_that_nobody_waits_for(
    opened: Open, structs: dict[str, Any], device: Interpreter, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is allocated holds one value everywhere until it is written."""
    frame = phantoms()[0]
    with opened() as handle:
        with monkeypatch.context() as forgetful:
            forgetful.setenv("STAND_IN_FORGET", "cuStreamWaitEvent")
            with pytest.raises(structs["StatusError"], match="got one brightness for every pixel"):
                localize_there(handle, caller, frame)
        localize_there(handle, caller, frame)


def test_a_film_on_the_device_is_refused_where_the_host_does_the_steps(
    opened: Open, structs: dict[str, Any], device: Interpreter, caller: Caller
) -> None:
    with opened(on_device=False) as handle:
        with pytest.raises(structs["StatusError"]) as error:
            localize_there(handle, caller, phantoms()[0])
        assert error.value.status == "backend_device"
        assert "got device_data; copy them to the host" in error.value.sentence
        assert "make it: python -m msloc_edge.kernels.aot --out" in error.value.sentence
        localize(handle, phantoms()[0])


# The host in place of the device


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "kernels.json: expected a readable file, got none; make it: python -m"),
        (lambda folder: next(folder.glob("regions.runs*.ptx")).unlink(), "expected a readable file, got none; compile"),
        (lambda folder: next(folder.glob("regions.runs*.ptx")).write_text("no PTX"), "not the file that kernels.json"),
        (
            lambda folder: (folder / "kernels.json").write_text('{"schema": "msloc-edge/kernels/3", "kernels": []}'),
            "expected window_resize.u8-shrink (fp32) for sm_87, found none",
        ),
    ],
)
def test_without_a_kernel_the_host_does_it(
    damage: Callable[[Path], Any],
    reason: str,
    opened: Open,
    cache: Path,
    device: Interpreter,
    structs: dict[str, Any],
) -> None:
    """The log says why."""
    lines: list[tuple[int, str]] = []
    log = structs["LogFn"](lambda _, level, line: lines.append((level, line.decode())))
    damage(cache / "kernels")
    with opened(log=log) as handle:
        assert handle.model().engine.decode() == f"tensorrt {VERSION} cuda:0 fp32"
        localize(handle, phantoms()[0])
    assert [level for level, _ in lines[:2]] == [0, 0]
    assert lines[1][1].startswith("the host windows films and locates findings, not the device: ")
    assert reason in lines[1][1]
    assert device.ran == []


@pytest.mark.parametrize("call", ["cuLibraryLoadData", "cuModuleGetFunction"])
def test_a_driver_that_does_not_take_a_kernel(
    call: str, opened: Open, device: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is older than the PTX."""
    monkeypatch.setenv("STAND_IN_FAIL", call)
    with opened() as handle:
        assert handle.model().engine.decode() == f"tensorrt {VERSION} cuda:0 fp32"
        localize(handle, phantoms()[0])


@pytest.mark.parametrize("call", ["cuLaunchKernel", "cuEventSynchronize", "cuGraphLaunch"])
def test_a_film_fails_and_the_next_does_not(
    call: str, opened: Open, device: Interpreter, structs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as ours, opened(on_device=False) as theirs:
        with monkeypatch.context() as failing:
            failing.setenv("STAND_IN_FAIL", call)
            with pytest.raises(structs["StatusError"], match=f"{call} failed: made to fail") as error:
                localize(ours, phantoms()[0])
        assert error.value.status == "backend_failed"
        larger = frame_from_array(generate(8, 160).stored)  # its memory is another
        localize(ours, larger)
        localize(theirs, larger)
        same(ours, theirs)
