"""The whole film on the device: stand-ins for TensorRT and the driver, and the PTX that ships behind cuLaunchKernel.

test_tensorrt_backend.py runs this in a process of its own, as on_stand_in.py.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from interpreted import WHOLE, Interpreter, write_kernels

from msloc_edge.backends import load_backend
from msloc_edge.backends.base import STEPS
from msloc_edge.backends.tensorrt import memory
from msloc_edge.bundle import Bundle
from msloc_edge.cli import main
from msloc_edge.cuda.streams import BindingsStream, open_stream
from msloc_edge.errors import BackendError, InputError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.reading import frame_from_array
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate

LIBRARY = ctypes.CDLL("libcuda.so.1")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(Path(os.environ["STAND_IN_BUNDLE"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of a film."""
    folder = tmp_path_factory.mktemp("kernels")
    write_kernels(folder)
    return folder


@pytest.fixture
def device(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    """What the device runs; in the end nothing is left on it, and no kernel did what a device would not survive."""
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MSLOC_KERNELS", str(folder))
    monkeypatch.setenv("STAND_IN_SM", "87")
    before = LIBRARY.stand_in_live()
    interpreter = Interpreter(LIBRARY, folder)
    yield interpreter
    interpreter.close()
    gc.collect()  # films that an exception's frames still have
    assert interpreter.faults == []
    assert LIBRARY.stand_in_live() == before


def films() -> list[np.ndarray]:
    """High, wide, and smaller than the model's input; 8 and 12 bits."""
    found = [generate(seed, size).stored for seed, size in enumerate([(90, 150), (128, 96), (64, 70)], start=3)]
    return [*found[:2], found[2][:50, :40], np.round(generate(7, 80).display() * 255).astype(np.uint8)]


def ready(localizer: Localizer) -> Localizer:
    localizer.backend.wait()
    return localizer


def test_a_film_gives_what_it_gives_on_the_cpu(bundle: Bundle, device: Interpreter) -> None:
    """One after the other and as a batch: peaks, boxes, maps and scores, all of whose steps the device did."""
    with (
        Localizer(bundle.path, "tensorrt", all_classes=True) as ours,
        Localizer(bundle.path, all_classes=True) as theirs,
    ):
        ready(ours)
        assert "host_because" not in ours.backend.describe()
        expected, boxes = [theirs.localize(film) for film in films()], 0
        single = [ours.localize(film) for film in films()]
        ours.localize(films()[0])
        assert device.ran[-5:] == WHOLE, "in this order"
        assert {"window_resize.u16-enlarge", "window_resize.u8-shrink"} <= set(device.ran)
        for results in (single, ours.localize_batch(films())):
            for found, right in zip(results, expected, strict=True):
                assert (found.backend, found.warnings) == ("tensorrt", right.warnings)
                assert "fuse" not in found.timing_ms, "it was done on the device"
                assert set(STEPS) < set(found.timing_ms)
                for a, b in zip(found.findings, right.findings, strict=True):
                    boxes += len(b.boxes)
                    assert abs(a.score - b.score) < 1e-4
                    assert a.peak is not None
                    assert b.peak is not None
                    assert abs(a.peak.value - b.peak.value) < 1e-4
                    assert agreement(array_of(a.boxes), array_of(b.boxes)) >= 0.99
                for label, shown in right.maps.items():
                    np.testing.assert_allclose(found.maps[label], shown, atol=1e-3)
        assert boxes


def test_films_of_a_stream_come_in_order(bundle: Bundle, device: Interpreter) -> None:
    """Threads window films beside the run of those before, each on its own stream; memory is used again."""
    pictures = [generate(seed, (64, 96)).stored for seed in range(7)]
    with Localizer(bundle.path, "tensorrt") as ours, Localizer(bundle.path) as theirs:
        ready(ours)
        for found, expected in zip(ours.stream(pictures, batch=3), theirs.stream(pictures), strict=True):
            assert found.result is not None
            assert expected.result is not None
            pairs = zip(found.result.findings, expected.result.findings, strict=True)
            assert max(abs(a.score - b.score) for a, b in pairs) < 1e-4
    assert device.ran.count("window_resize.u16-shrink") == len(pictures)


def test_threads_that_end_leave_nothing_behind(bundle: Bundle, device: Interpreter) -> None:
    """Each `stream` has threads of its own; their streams and page-locked memory are used again."""
    pictures = [generate(seed, (64, 96)).stored for seed in range(2)]
    with ready(Localizer(bundle.path, "tensorrt")) as localizer:
        list(localizer.stream(pictures, workers=1))
        gc.collect()
        memory = LIBRARY.stand_in_live()
        for _ in range(3):
            list(localizer.stream(pictures, workers=1))
        gc.collect()
        assert LIBRARY.stand_in_live() <= memory + 1, "at most one more film was on its way at a time"


class Produced:
    """Stored pixels of another library, which its own stream writes on the device as late as it may."""

    def __init__(self, stored: np.ndarray) -> None:
        self.stream, self._stored = open_stream(), stored
        count = -(-stored.nbytes // 4)
        with self.stream.current():
            self.address = self.stream.allocate(count)
            self.stream.copy_in(self.address, stored)
            self.mark = self.stream.mark()
        content = (ctypes.c_uint8 * stored.nbytes).from_address(self.address)
        self._array = np.frombuffer(content, stored.dtype).reshape(stored.shape)

    def close(self) -> None:
        with self.stream.current():
            self.stream.forget(self.mark)
        self.stream.close()

    def interface(self, **changed: Any) -> Any:
        """The CUDA array interface, which names the stream."""
        facts = {"data": (self.address, False), "shape": self._array.shape, "typestr": self._array.dtype.str}
        return SimpleNamespace(__cuda_array_interface__=facts | {"version": 3, "stream": self.stream.handle} | changed)

    def dlpack(self, device: int = 0) -> Any:
        """DLPack, whose exporter makes the reader's stream wait."""

        class Exporter:
            def __dlpack_device__(exporter) -> tuple[int, int]:  # noqa: N805
                return 2, device

            def __dlpack__(exporter, *, stream: int | None = None) -> Any:  # noqa: N805
                if stream != -1:
                    LIBRARY.cuStreamWaitEvent(ctypes.c_void_p(stream), ctypes.c_void_p(int(self.mark)), 0)
                return self._array.__dlpack__()

        return Exporter()


@pytest.fixture
def produced(device: Interpreter) -> Iterator[list[Produced]]:
    """Arrays that are there for as long as the test; freed before the device is looked at."""
    found: list[Produced] = []
    yield found
    for one in found:
        one.close()


@pytest.mark.parametrize("kind", ["dlpack", "interface"])
def test_pixels_that_are_on_the_device_stay_there(
    bundle: Bundle, device: Interpreter, produced: list[Produced], kind: str
) -> None:
    """The same result as of the film on the host, and one copy less: that of its pixels."""
    with ready(Localizer(bundle.path, "tensorrt", all_classes=True)) as localizer:
        localizer.localize(films()[0])
        for stored in (films()[0], films()[3]):
            produced.append(Produced(stored))
            before = LIBRARY.stand_in_copies()
            found = localizer.localize(getattr(produced[-1], kind)())
            between = LIBRARY.stand_in_copies()
            right = localizer.localize(stored)
            from_device = between - before - 1  # the test's own, to the device
            from_host = LIBRARY.stand_in_copies() - between
            assert from_device == from_host - 1
            assert found.findings == right.findings
            assert found.warnings == tuple(code for code in right.warnings if code != "narrow_range"), "not looked for"
            assert found.film is not None
            np.testing.assert_array_equal(np.asarray(found.film.pixels), stored)


@pytest.mark.parametrize("kind", ["dlpack", "interface"])
def test_other_backends_copy_pixels_from_the_device(bundle: Bundle, produced: list[Produced], kind: str) -> None:
    produced.append(Produced(films()[0]))
    with Localizer(bundle.path, all_classes=True) as localizer:
        found = localizer.localize(getattr(produced[-1], kind)())
        assert found.findings == localizer.localize(films()[0]).findings


def test_the_producers_stream_is_waited_for(
    bundle: Bundle, produced: list[Produced], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of these tests: an interface that names no stream is read at once."""
    produced.append(Produced(films()[0]))
    with ready(Localizer(bundle.path, "tensorrt", input_gate=False)) as localizer:
        early = np.asarray(localizer.prepare(produced[-1].interface(stream=None)).input)
        late = np.asarray(localizer.prepare(produced[-1].interface()).input)
        right = np.asarray(localizer.prepare(films()[0]).input)
    assert not np.array_equal(early, right)
    np.testing.assert_array_equal(late, right)


def test_pixels_on_the_device_that_are_no_film(bundle: Bundle, produced: list[Produced]) -> None:
    produced += [Produced(films()[0]), Produced(np.zeros((90, 90), np.float32)), Produced(np.zeros((4, 4), np.uint8))]
    film, floats, small = produced
    strided = film.interface(strides=(400, 2))
    colour = film.interface(shape=(90, 50, 3), typestr="|u1")
    with ready(Localizer(bundle.path, "tensorrt")) as localizer:
        for wrong, reason, says in (
            (floats.dlpack(), "unsupported_pixels", "array: expected uint8 or uint16, got float32; convert it"),
            (floats.interface(), "unsupported_pixels", "array: expected uint8 or uint16, got float32; convert it"),
            (strided, "unsupported_pixels", "expected a contiguous array, got strides"),
            (colour, "unsupported_pixels", "got shape .90, 50, 3."),
            (small.dlpack(), "too_small", "4"),
        ):
            with pytest.raises(InputError, match=says) as caught:
                localizer.localize(wrong)
            assert caught.value.reason == reason
        with pytest.raises(BackendError, match="expected an array on cuda:0, got CUDA device 1"):
            localizer.localize(film.dlpack(device=1))


@pytest.mark.parametrize("integrated", [False, True])
def test_nothing_is_copied_that_nobody_asked_for(
    bundle: Bundle, device: Interpreter, integrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In: pixels, table, content, thresholds. Out: the film for the input gate, logits, class maps, what was found."""
    if integrated:
        monkeypatch.setenv("STAND_IN_INTEGRATED", "1")
        monkeypatch.setattr(memory, "measure_ms", lambda make, mapped, bundle: float(not mapped))
    with ready(Localizer(bundle.path, "tensorrt")) as localizer:
        localizer.localize(films()[0])
        before = LIBRARY.stand_in_copies()
        localizer.localize(films()[1])
        # and the film to the engine's image, on the device
        assert LIBRARY.stand_in_copies() - before == (0 if integrated else 2 + 2 + 1 + 5 + 4) + 1


def test_the_memory_of_an_integrated_gpu_is_measured(
    bundle: Bundle, device: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a whole film, from stored pixels, each way; either way gives what the CPU gives."""
    monkeypatch.setenv("STAND_IN_INTEGRATED", "1")
    for name, value in {"LARGER": 1, "WARMUP": 0, "RUNS": 1}.items():
        monkeypatch.setattr(memory, name, value)
    with ready(Localizer(bundle.path, "tensorrt")):
        assert device.ran == 2 * WHOLE
    (file,) = tmp_path.glob("cache/engines/*.plan.sm87.memory")
    kept = json.loads(file.read_text())
    assert kept["mapped"] == (kept["ms"]["mapped"] <= kept["ms"]["copied"])
    assert min(kept["ms"].values()) > 0
    with Localizer(bundle.path, all_classes=True) as localizer:
        right = localizer.localize(films()[0])
    for mapped in (True, False):
        file.write_text(json.dumps({"mapped": mapped}))
        with Localizer(bundle.path, "tensorrt", all_classes=True) as localizer:
            found = localizer.localize(films()[0])
            assert localizer.backend.describe()["memory"] == ("mapped" if mapped else "copied")
        for ours, theirs in zip(found.findings, right.findings, strict=True):
            assert agreement(array_of(ours.boxes), array_of(theirs.boxes)) >= 0.99


def test_a_map_with_more_regions_than_its_table_is_searched_on_the_host(
    bundle: Bundle, device: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msloc_edge.backends.tensorrt.locate.MAX_REGIONS", 1)
    with (
        Localizer(bundle.path, "tensorrt", all_classes=True) as ours,
        Localizer(bundle.path, all_classes=True) as theirs,
    ):
        found, expected = (localizer.localize(films()[0]) for localizer in (ready(ours), theirs))
    assert max(len(finding.boxes) for finding in expected.findings) > 1
    assert [len(f.boxes) for f in found.findings] == [len(f.boxes) for f in expected.findings]
    assert "fuse" in found.timing_ms


def test_bench_times_the_steps_of_the_device(
    bundle: Bundle, device: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single films and batches; the stand-in's events are 1.5 ms apart."""
    file = tmp_path / "bench.json"
    asked = f"--model {bundle.path} --backend tensorrt --scope device --generate 96x64x8 --streams 1 --batch 2 --cold 0"
    monkeypatch.setattr(
        sys, "argv", ["msloc-edge", "bench", *asked.split(), "--films", "2", "--warmup", "1", "--json", str(file), "-q"]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    single, offline = json.loads(file.read_text())["measurements"]
    assert (single["scope"], offline["scope"], offline["batch"]) == ("device", "device", 2)
    assert tuple(single["stages_ms"]) == STEPS
    assert {name: step["p50"]["value"] for name, step in single["stages_ms"].items()} == {
        **dict.fromkeys(STEPS, 1.5),
        "copy_in": 3.0,  # the film's stored pixels, then the film to the network's image
    }
    assert device.ran.count("window_resize.u8-shrink") >= 2 + 2


@pytest.mark.parametrize("forgotten", ["wait", "reach", "synchronize"])
def test_who_does_not_wait_reads_nonsense(
    bundle: Bundle, device: Interpreter, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of these tests: the engine waits for a film, the gate for its copy, the host for what came out."""
    backend, reference, kept = load_backend("tensorrt", bundle), load_backend("onnxruntime", bundle), []
    backend.wait()

    def right(stored: np.ndarray) -> tuple[bool, bool]:
        """Whether the film on the host is, and what the engine made of that on the device."""
        frame = frame_from_array(stored)
        geometry = Geometry.fit(stored.shape, (64, 64))
        expected = np.asarray(reference.preprocess(frame, geometry))
        kept.append(film := backend.preprocess(frame, geometry))
        logits = backend.run([film]).logits
        return (
            np.allclose(np.asarray(film), expected, atol=1e-5),
            np.allclose(logits, reference.run(expected[None, None]).logits, atol=1e-4),
        )

    assert right(films()[0]) == (True, True)
    with monkeypatch.context() as patch:
        patch.setattr(BindingsStream, forgotten, lambda *_: None)
        expected = {"wait": (True, False), "reach": (False, True), "synchronize": (True, False)}
        assert right(films()[1]) == expected[forgotten]
    kept.clear()
    backend.close()


def test_without_kernels_the_host_does_it(
    bundle: Bundle, device: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSLOC_KERNELS", str(tmp_path))
    with Localizer(bundle.path, "tensorrt") as localizer:
        ready(localizer)
        because = localizer.backend.describe()["host_because"]
        assert "kernels.json: cannot be read (No such file or directory); make it: python -m msloc" in because
        assert "fuse" in localizer.localize(films()[0]).timing_ms
    assert device.ran == []


def test_a_film_of_a_closed_backend(bundle: Bundle, device: Interpreter) -> None:
    with ready(Localizer(bundle.path, "tensorrt")) as localizer:
        prepared = localizer.prepare(films()[0])
        assert np.asarray(prepared.input).shape == (64, 64)
    with pytest.raises(BackendError, match="got a film of one that was closed") as caught:
        np.asarray(prepared.input)
    assert caught.value.reason == "backend_closed"
