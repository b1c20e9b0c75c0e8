"""The tensorrt backend on stand-ins for TensorRT and for the driver: real data flows through every binding and copy.

test_tensorrt_backend.py runs this in a process whose libcuda.so.1 and tensorrt are the stand-ins: a process loads one
driver. cuda-bindings is the real one, and onnxruntime computes what the stand-in engine is asked for.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tensorrt as trt
from rich.progress import Progress

from msloc_edge.backends import Backend, Outputs, load_backend
from msloc_edge.backends.tensorrt import memory
from msloc_edge.backends.tensorrt.backend import TensorRTBackend
from msloc_edge.backends.tensorrt.builder import Settings
from msloc_edge.backends.tensorrt.building import BuildingBackend
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.bundle import Bundle
from msloc_edge.cli import main
from msloc_edge.cuda.streams import BindingsStream, open_stream
from msloc_edge.errors import BackendError, DependencyError, OutputError
from msloc_edge.export.tensorrt import EngineChoices, engine_files
from msloc_edge.pipeline import Localizer
from msloc_edge.train.evaluate.sources import open_model

LIBRARY = ctypes.CDLL("libcuda.so.1")


DEFAULTS = {
    **{"steps": [], "no_device": False, "broken_plans": "", "libraries": [], "configs": [], "plugins": set()},
    **{"contexts": [], "compiled": []},
}


TIMES = BindingsStream.times


def live() -> int:
    return int(LIBRARY.stand_in_live())


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(Path(os.environ["STAND_IN_BUNDLE"]))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache, a stand-in that does as it is told, and no memory that is left."""
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAND_IN_SM", "87")
    for name, value in DEFAULTS.items():
        monkeypatch.setattr(trt.SETTINGS, name, copy(value))
    before = live()
    yield
    assert live() == before, "memory, streams, graphs and events are freed"


def films(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 64, 64), np.float32)


def ready(bundle: Bundle, device: str = "cuda:0") -> Backend:
    backend = load_backend("tensorrt", bundle, device)
    backend.wait()
    return backend


def same(bundle: Bundle, found: Outputs, batch: np.ndarray) -> None:
    """As onnxruntime's own backend, to the last bit: it computes here, too."""
    expected = load_backend("onnxruntime", bundle).run(batch)
    np.testing.assert_array_equal(found.logits, expected.logits)
    for ours, theirs in zip(found.cams, expected.cams, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for image in range(len(batch)):
        maps = [outputs.fuse(image, [5, 2]).dense() for outputs in (found, expected)]
        np.testing.assert_allclose(*maps, atol=1e-5)
        assert found.fuse(image, []).dense().shape == (0, 64, 64)
        assert len(found.stage_maps(image, 1)) == 4


def test_it_gives_what_onnxruntime_gives(bundle: Bundle) -> None:
    backend = ready(bundle)
    for count in (1, 3, 1, 8, 1):
        batch = films(count, count)
        before = batch.copy()
        found = backend.run(batch)
        same(bundle, found, batch)
        assert np.array_equal(batch, before)
        assert found.timing_ms == {"copy_in": 1.5, "network": 1.5, "copy_out": 1.5}
    facts = dict(backend.describe())
    assert "make it: python -m msloc_edge.kernels.aot" in facts.pop("host_because")
    assert facts == {
        "engine": "tensorrt",
        "version": "10.16.1.11",
        "device": "cuda:0",
        "precision": "fp32",
        "graph": "network",
        "driver": "cuda-bindings",
        "memory": "copied",
    }
    backend.close()


def test_a_batch_size_is_captured_once(bundle: Bundle) -> None:
    ready(bundle).close()
    backend = load_backend("tensorrt", bundle)
    for seed in range(5):
        same(bundle, backend.run(films(2, seed)), films(2, seed))
    (slot,) = backend._session._slots._values.values()
    assert slot.context.enqueued == 2, "once to warm up, once to capture; then the graph"
    sizes = range(8, 0, -1)
    for count in sizes:
        backend.run(films(count))
    memory = live()
    for count in sizes:
        backend.run(films(count))
    assert live() == memory, "graphs of batch sizes that are not kept are freed"
    assert [count for count, _ in backend._session._slots._values] == [4, 3, 2, 1]
    backend.close()


@pytest.mark.parametrize("fail", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_without_a_graph_it_says_why(bundle: Bundle, fail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ready(bundle)
    monkeypatch.setenv("STAND_IN_FAIL", fail)
    same(bundle, backend.run(films(2)), films(2))
    same(bundle, backend.run(films(2, 1)), films(2, 1))
    assert f"{fail} failed: made to fail" in backend.describe()["eager_because"]
    monkeypatch.delenv("STAND_IN_FAIL")
    backend.close()


def test_work_that_fails_while_it_is_captured() -> None:
    """What was captured so far is freed, and the stream serves on."""
    stream = open_stream()
    with stream.current():
        buffer = stream.buffer(4)
        buffer.host[:] = [1, 2, 3, 4]

        def work() -> None:
            stream.copy_in(buffer.device, buffer.host)
            raise ValueError("no such layer")

        before = live()
        with pytest.raises(ValueError, match="no such layer"):
            stream.capture(work)
        assert live() == before
        stream.copy_in(buffer.device, buffer.host)
        found = np.zeros(4, np.float32)
        stream.copy_out(found, buffer.device)
        stream.synchronize()
    assert found.tolist() == [1, 2, 3, 4]
    stream.close()
    stream.close()


def test_on_a_driver_that_tells_no_times(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What test_driver.py shows of an older driver."""
    backend = ready(bundle)
    assert backend.run(films(1)).timing_ms.keys() == {"copy_in", "network", "copy_out"}
    monkeypatch.setattr(BindingsStream, "times", lambda stream, marks: TIMES(stream, marks) and [])
    outputs = backend.run(films(2))
    same(bundle, outputs, films(2))
    assert outputs.timing_ms == {}
    backend.close()


def test_an_address_that_the_engine_refuses(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ready(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(trt.Context, "set_tensor_address", lambda *_: False)
        with pytest.raises(BackendError, match="set_tensor_address failed for image"):
            backend.run(films(3))
    backend.close()


def test_outputs_outlive_the_next_run(bundle: Bundle) -> None:
    backend = ready(bundle)
    first = backend.run(films(1))
    backend.run(films(1, 1))
    same(bundle, first, films(1))
    backend.close()


@pytest.mark.parametrize("faster", [None, "mapped", "copied"])
def test_an_integrated_gpu_has_the_memory_that_is_faster(
    bundle: Bundle, faster: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured at the first start, and read at the next; the results are the same."""
    if faster:
        monkeypatch.setenv("STAND_IN_INTEGRATED", "1")
    measured = []

    def measure(make: Any, mapped: bool, bundle: Bundle) -> float:
        measured.append(mapped)
        return 1.0 if mapped == (faster == "mapped") else 2.0

    monkeypatch.setattr(memory, "measure_ms", measure)
    for _ in range(2):
        backend = ready(bundle)
        backend.run(films(2))
        before = LIBRARY.stand_in_copies()
        same(bundle, backend.run(films(2, 3)), films(2, 3))
        expected = 0 if faster == "mapped" else 6  # the image, logits, four stages
        assert LIBRARY.stand_in_copies() - before == expected
        assert backend.describe()["memory"] == ("mapped" if faster == "mapped" else "copied")
        backend.close()
    assert measured == ([True, False] if faster else [])
    kept = {file.name.split(".plan.")[1]: json.loads(file.read_text()) for file in Cache().folder.glob("*.memory")}
    ms = {"mapped": 1.0, "copied": 2.0} if faster == "mapped" else {"mapped": 2.0, "copied": 1.0}
    assert kept == ({"sm87.memory": {"mapped": faster == "mapped", "ms": ms}} if faster else {})


def exported(bundle: Bundle, precision: str = "fp32", graph: str = "heatmap", **settings: Any) -> None:
    network = onnx.load(bundle.onnx)
    choices = EngineChoices(Settings(**settings), graph)
    engine_files(bundle, "tensorrt", network, precision, choices, Progress(disable=True))


def test_an_exported_engine_keeps_its_maps_on_the_device(bundle: Bundle) -> None:
    exported(bundle, batch=Batch(1, 2, 4))
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, TensorRTBackend), "it is there, nothing is built"
    assert backend.describe()["graph"] == "heatmap"
    first = backend.run(films(3))
    before = LIBRARY.stand_in_copies()
    first.regions(1, [0, 4])
    assert LIBRARY.stand_in_copies() - before == 2, "the maps that are wanted"
    second = backend.run(films(2, 1))
    same(bundle, second, films(2, 1))
    same(bundle, first, films(3))
    memory = live()
    for seed in range(6):
        del first, second
        first, second = backend.run(films(3, seed)), backend.run(films(2, seed))
        same(bundle, first, films(3, seed))
        same(bundle, second, films(2, seed))
    assert live() == memory, "memory of maps that nobody has is used again"
    with pytest.raises(BackendError, match=r"expected 1 to 4 films of .1, 64, 64.; for larger batches export with"):
        backend.run(films(5))
    backend.close()


def test_maps_outlive_the_backend(bundle: Bundle) -> None:
    """As README shows it: a result is looked at after the `with` block; what was never asked for is refused."""
    exported(bundle)
    film = (films(1)[0, 0] * 255).astype(np.uint8)
    with Localizer(bundle.path, "tensorrt", all_classes=True) as localizer:
        assert localizer.backend.describe()["graph"] == "heatmap"
        result = localizer.localize(film)
        before = {label: heatmap.copy() for label, heatmap in result.maps.items()}
        picture = np.asarray(result.plot())
        bare = localizer.backend.run(films(1))
    assert set(before) == set(bundle.classes)
    for label, heatmap in before.items():
        assert np.array_equal(result.maps[label], heatmap)
    assert np.array_equal(np.asarray(result.plot()), picture)
    assert len(bare.stage_maps(0, 1)) == 4
    with pytest.raises(BackendError, match="got maps of one that was closed") as caught:
        bare.map(0, 1)
    assert caught.value.reason == "backend_closed"


def test_maps_are_fetched_while_the_next_film_runs(bundle: Bundle) -> None:
    """As `stream` does it, in another thread: every film has its own maps."""
    exported(bundle)
    pictures = [(film[0] * 255).astype(np.uint8) for film in films(24)]
    with (
        Localizer(bundle.path, "tensorrt", all_classes=True) as ours,
        Localizer(bundle.path, all_classes=True) as theirs,
    ):
        for batch in (1, 3):
            for found, expected in zip(ours.stream(pictures, batch=batch), theirs.stream(pictures), strict=True):
                assert found.result is not None
                assert expected.result is not None
                for label, heatmap in expected.result.maps.items():
                    np.testing.assert_allclose(found.result.maps[label], heatmap, atol=1e-4)
                assert found.result.backend == "tensorrt"


def test_a_precision_must_have_been_exported(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"no fp16 engine of tiny .* --target tensorrt --precision fp16") as caught:
        load_backend("tensorrt", bundle, precision="fp16")
    assert caught.value.reason == "plan_missing"
    exported(bundle, "fp16")
    backend = load_backend("tensorrt", bundle, precision="fp16")
    assert (backend.describe()["precision"], backend.name) == ("fp16", "tensorrt")
    backend.close()


def test_an_engine_of_fixed_batches_is_left_to_others(bundle: Bundle) -> None:
    exported(bundle, batch=Batch(4, 4, 4))
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, BuildingBackend)
    backend.wait()
    same(bundle, backend.run(films(1)), films(1))
    backend.close()


def test_a_compatible_plan_may_bring_its_runtime(bundle: Bundle) -> None:
    exported(bundle, version_compatible=True)
    backend = load_backend("tensorrt", bundle)
    assert backend._session._runtime.engine_host_code_allowed
    backend.close()


def threads(backend: Any) -> int:
    """Of onnxruntime that serves while an engine is built, or in place of one."""
    return int(backend._active._session.get_session_options().intra_op_num_threads)


def test_onnxruntime_serves_until_it_is_built(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()
    trt.SETTINGS.steps.append(lambda: go.wait(30))
    with Localizer(bundle.path, "tensorrt") as localizer:
        assert dict(localizer.backend.describe()) | {"version": ""} == {
            **{"engine": "onnxruntime", "version": "", "device": "cpu"},
            "until": "TensorRT 10.16.1.11, tiny is built",
        }
        assert threads(localizer.backend) == 1, "the builder measures kernels meanwhile"
        film = (films(1)[0, 0] * 255).astype(np.uint8)
        before = localizer.localize(film)
        assert before.backend == "onnxruntime"
        go.set()
        localizer.backend.wait()
        after = localizer.localize(film)
        assert after.backend == "tensorrt"
        assert after.findings == before.findings
        assert localizer.backend.describe()["engine"] == "tensorrt"
    assert [record.message.partition("tiny: ")[2] for record in caplog.records] == [
        "building the engine; onnxruntime serves until it is ready",
        *(f"building engine, step {step} of 3" for step in (1, 2, 3)),
        "the engine is ready after 0 s",
    ]
    again = load_backend("tensorrt", bundle)
    assert isinstance(again, TensorRTBackend), "the second time it is in the cache"
    again.close()


def test_eval_waits_for_the_engine(bundle: Bundle) -> None:
    with open_model(str(bundle.path), "tensorrt", None, "fp32", None, pytest.fail) as localizer:
        assert localizer.backend.name == "tensorrt"


def test_a_build_that_fails_leaves_onnxruntime(bundle: Bundle) -> None:
    trt.SETTINGS.no_device = True
    backend = load_backend("tensorrt", bundle, threads=2)
    assert threads(backend) == 1
    with pytest.raises(BackendError, match=r"cannot start on this device: .*CUDA initialization failure") as caught:
        backend.wait()
    assert threads(backend) == 2, "as many as were asked for"
    assert caught.value.reason == "backend_failed"
    same(bundle, backend.run(films(1)), films(1))
    assert backend.name == "onnxruntime"
    assert "CUDA initialization failure" in backend.describe()["instead_because"]
    backend.close()


def test_an_interrupted_wait_can_still_be_closed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    trt.SETTINGS.steps.append(lambda: go.wait(30))
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, BuildingBackend)
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", lambda future: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            backend.wait()
    go.set()
    backend.close()
    assert not any(thread.name.startswith("build ") for thread in threading.enumerate())


def test_closing_stops_the_build(bundle: Bundle) -> None:
    begun = threading.Event()
    trt.SETTINGS.steps.append(begun.set)
    trt.SETTINGS.steps.append(lambda: threading.Event().wait(0.2))
    backend = load_backend("tensorrt", bundle)
    assert begun.wait(30)
    backend.close()
    assert not list(Cache().folder.glob("*.plan"))


def test_a_plan_that_the_library_does_not_take_is_built_again(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    ready(bundle).close()
    caplog.clear()
    (plan,) = Cache().folder.glob("*.plan")
    trt.SETTINGS.broken_plans = "Platform (device) differs from that of the plan"
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, BuildingBackend)
    with pytest.raises(BackendError, match=r"does not take .*Platform .device. differs"):
        backend.wait()
    backend.close()
    trt.SETTINGS.broken_plans = ""
    assert plan.with_name(f"{plan.name}.refused-deserialise").is_file()
    assert "Platform (device) differs" in caplog.records[0].getMessage(), "why it was moved aside"
    ready(bundle).close()


def test_a_plan_of_another_machine_is_built_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(bundle).close()
    (plan,) = Cache().folder.glob("*.plan")
    foreign = plan.with_name(plan.name.replace("sm87", "sm86"))
    shutil.copy(plan, foreign)
    shutil.copy(f"{plan}.json", f"{foreign}.json")
    monkeypatch.setenv("STAND_IN_SM", "86")
    ready(bundle).close()
    assert foreign.with_name(f"{foreign.name}.refused-key").is_file()
    assert foreign.is_file()
    assert plan.is_file(), "the other machine's own is left alone"


@pytest.mark.parametrize("why", ["device", "memory"])
def test_a_plan_is_kept_when_the_fault_is_not_its_own(bundle: Bundle, why: str) -> None:
    exported(bundle)
    (plan,) = Cache().folder.glob("*.plan")
    trt.SETTINGS.no_device = why == "device"
    trt.SETTINGS.broken_plans = "OutOfMemory (Requested size was 8192 bytes.)"
    expected = {"device": "cannot start on this device: .*failure", "memory": "no room on the device .*OutOfMemory"}
    with pytest.raises(BackendError, match=expected[why]) as caught:
        load_backend("tensorrt", bundle)
    assert caught.value.reason == "backend_failed"
    assert plan.is_file()


def test_one_scratch_memory_serves_every_batch_size(bundle: Bundle) -> None:
    """It is as large as the largest batch that came needs; a context is made for a batch, and not to ask for shapes."""
    backend = ready(bundle)
    assert trt.SETTINGS.contexts == []
    same(bundle, backend.run(films(1)), films(1))
    memory = live()
    for count in (3, 1, 2):
        same(bundle, backend.run(films(count)), films(count))
    assert [context.batch for context in trt.SETTINGS.contexts] == [1, 3, 1, 2], "one film's had the smaller scratch"
    contexts = [slot.context for slot in backend._active._session._slots._values.values()]
    assert len(contexts) == 3
    assert len({context.scratch for context in contexts}) == 1
    assert live() == memory + 2, "two more graphs, and no more memory"
    backend.close()


def test_tensorrt_rtx_runs_in_the_same_way(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    for loaded in ("built", "from the cache"):
        backend = load_backend("tensorrt_rtx", bundle)
        assert isinstance(backend, BuildingBackend) == (loaded == "built")
        backend.wait()
        same(bundle, backend.run(films(2)), films(2))
        assert backend.describe()["engine"] == "tensorrt_rtx"
        backend.close()
    (config,) = trt.SETTINGS.configs
    assert config.flags == {trt.BuilderFlag.REQUIRE_USER_ALLOCATION}
    assert config.cache is None
    assert not list(Cache().folder.glob("*.timing"))


def test_tensorrt_rtx_compiles_a_batch_size_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runtime cache is kept beside the plan, for this device, and read by the next process."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    for sizes, compiled in (([2, 2, 1], [2, 1]), ([1, 2], []), ([3], [3]), ([1, 2, 3], [])):
        backend = load_backend("tensorrt_rtx", bundle)
        backend.wait()
        trt.SETTINGS.compiled.clear()
        for count in sizes:
            same(bundle, backend.run(films(count)), films(count))
        assert trt.SETTINGS.compiled == [f"{count}x1x64x64" for count in compiled]
        backend.close()
    (kept,) = Cache().folder.glob("*.kernels")
    assert kept.name.endswith(".plan.sm87.kernels")
    kept.write_bytes(b"of another driver")
    backend = load_backend("tensorrt_rtx", bundle)
    same(bundle, backend.run(films(2)), films(2))
    assert trt.SETTINGS.compiled == ["2x1x64x64"], "what is refused is compiled anew"
    backend.close()
    assert kept.read_bytes() == b"kernels 2x1x64x64 "
    monkeypatch.setenv("STAND_IN_SM", "89")
    backend = load_backend("tensorrt_rtx", bundle)
    same(bundle, backend.run(films(1)), films(1))
    backend.close()
    assert len(list(Cache().folder.glob("*.kernels"))) == 2, "another device of this machine has its own"
    assert len(list(Cache().folder.glob("*.plan"))) == 1


class Exported:
    """Stands in for a tensor on a CUDA device: its memory is the host's, as all memory of the stand-in driver."""

    def __init__(self, films: np.ndarray, device: tuple[int, int] = (2, 0)) -> None:
        self.films, self.device, self.stream = films, device, None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.stream = stream
        return self.films.__dlpack__()


def test_films_come_by_dlpack(bundle: Bundle) -> None:
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, BuildingBackend)
    batch = films(3)
    exporter, references = Exported(batch), sys.getrefcount(batch)
    found = backend.run(exporter)
    assert exporter.stream == backend._active._session.stream.handle, "the exporter makes this one wait"
    assert sys.getrefcount(batch) == references, "given back"
    same(bundle, found, batch)
    with pytest.raises(BackendError, match="expected an array on cuda:0, got CUDA device 1"):
        backend.run(Exported(films(1), (2, 1)))
    with pytest.raises(BackendError, match=r"failed on a batch of shape .9, 1, 64, 64."):
        backend.run(Exported(films(9)))
    backend.close()


def test_films_that_are_on_the_device_stay_there(bundle: Bundle) -> None:
    ready(bundle).close()
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, TensorRTBackend)
    batch = films(3)
    facts = {"data": (batch.ctypes.data, True), "shape": batch.shape, "typestr": "<f4", "strides": None, "version": 3}
    for stream in (None, backend._session.stream.handle):  # a writer's, which is waited for
        films_there = SimpleNamespace(__cuda_array_interface__=facts | {"stream": stream})
        same(bundle, backend.run(films_there), batch)
    for wrong in ({"typestr": "<f8"}, {"strides": (4, 4, 4, 4)}, {"shape": (3, 64, 64)}):
        with pytest.raises(BackendError, match="expected "):
            backend.run(SimpleNamespace(__cuda_array_interface__=facts | wrong))
    backend.close()


def test_the_command(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["--target", "tensorrt", "--graph", "heatmap", "--batch", "1:2:4", "--workspace", "64"]
    assert command(monkeypatch, "export", "target", bundle.path, out, *arguments) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    assert set(report["files"]) == {"model.plan", "model.plan.json", "build.log", "model.onnx"}
    assert (report["graph"], report["plugin"]["route"]) == ("heatmap", "plain")
    assert "tensorrt.plugin cannot be imported" in report["plugin"]["reason"]
    assert f"heatmap: plain ({report['plugin']['reason']})" in captured.err
    sidecar = json.loads((out / "model.plan.json").read_text())
    assert sidecar["sha256"] == report["files"]["model.plan"]
    assert sidecar["key"] == {
        **{"bundle": bundle.sha256, "flavour": "tensorrt", "version": "10.16.1.11", "sm": 87, "precision": "fp32"},
        **{"graph": "heatmap", "batch": {"least": 1, "best": 2, "most": 4}},
    }
    assert sidecar["facts"]["workspace_mib"] == 64
    (kept,) = Cache().folder.glob("*.plan")
    assert kept.read_bytes() == (out / "model.plan").read_bytes()
    assert (out / "model.plan").read_bytes().endswith((out / "model.onnx").read_bytes())
    assert len(list(Cache().folder.glob("*.timing"))) == 1


def test_an_export_is_of_the_network_unless_asked(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one that the backend takes, then; no plugin has to do with it."""
    exported(bundle)
    asked = ["export", "target", bundle.path, tmp_path / "out", "--target", "tensorrt"]
    assert command(monkeypatch, *asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["graph"], "plugin" in report) == ("network", False)
    outputs = [output.name for output in onnx.load(tmp_path / "out" / "model.onnx").graph.output]
    assert outputs == ["logits", "cams_1", "cams_2", "cams_3", "cams_4"]
    backend = load_backend("tensorrt", bundle)
    assert backend.describe()["graph"] == "network"
    same(bundle, backend.run(films(2)), films(2))
    backend.close()
    assert command(monkeypatch, *asked, "--plugin", "plain") == 2
    assert "--plugin and --plugin-library belong to --graph heatmap" in capsys.readouterr().err


def test_a_servers_repository_with_a_plan(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = ["export", "target", bundle.path, out, "--target", "triton-server"]
    assert command(monkeypatch, *asked, "--engine", "tensorrt", "--batch", "1:2:4") == 0
    report = json.loads(capsys.readouterr().out)
    beside = {"client.py", "model.plan.json", "build.log"}
    assert set(report["files"]) == {"tiny/config.pbtxt", "tiny/1/model.plan", *beside}
    assert report["tools"]["tensorrt"] == "10.16.1.11"
    plan = (out / "tiny/1/model.plan").read_bytes()
    assert json.loads((out / "model.plan.json").read_text())["bytes"] == len(plan)
    assert 'platform: "tensorrt_plan"' in (out / "tiny/config.pbtxt").read_text()
    assert trt.BuilderFlag.TF32 not in trt.SETTINGS.configs[-1].flags
    assert command(monkeypatch, *asked, "--workspace", "64") == 2
    assert "belong to --engine tensorrt" in capsys.readouterr().err
    assert command(monkeypatch, *asked, "--engine", "tensorrt", "--batch", "2:2:4") == 1
    assert "--batch: expected a smallest batch of 1 for a server, got 2" in capsys.readouterr().err


@pytest.fixture
def quick_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """tensorrt.plugin, as far as `camfuse_plugin.register` goes; what it is told is tested on NVIDIA's bindings."""
    implemented = []

    def aot_impl(plugin: str) -> Any:
        domain, _, name = plugin.partition("::")
        trt.SETTINGS.plugins.add((domain, name))
        return implemented.append

    named = ("TensorDesc", "AutoTuneCombination", "KernelLaunchParams", "SymExprs")
    plugins = SimpleNamespace(
        **dict.fromkeys(named, object), op=SimpleNamespace(), aot_impl=aot_impl, register=lambda _: implemented.append
    )
    plugins.autotune = plugins.register
    monkeypatch.setattr(trt, "plugin", plugins, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", plugins)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    file = tmp_path / "libmsloc_camfuse.so"
    file.write_bytes(b"\x7fELF")
    return file


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["msloc-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.usefixtures("quick_plugins")
@pytest.mark.parametrize(("asked", "chosen"), [("auto", "aot"), ("aot", "aot"), ("library", "library")])
def test_an_export_with_the_plugin(
    bundle: Bundle,
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    chosen: str,
) -> None:
    """The parser refuses a CamFuse node that nobody has made known to it, and so does the runtime."""
    out = tmp_path / "out"
    options = ["--target", "tensorrt", "--graph", "heatmap", "--plugin", asked, "--plugin-library", library]
    for _ in range(2):  # a library is loaded into a registry once
        assert command(monkeypatch, "export", "target", bundle.path, out, *options) == 0
    captured = capsys.readouterr()
    reason = "TensorRT 10.16.1.11 can" if asked == "auto" else "as asked"
    assert f"heatmap: {chosen} ({reason})" in captured.err
    report = json.loads((out / "export.json").read_text())
    assert report["plugin"] == {"route": chosen, "reason": reason}
    assert report["tools"]["tensorrt"] == "10.16.1.11"
    assert [node.op_type for node in onnx.load(out / "model.onnx").graph.node][-1] == "CamFuse"
    assert trt.SETTINGS.libraries == ([str(library)] * 2 if chosen == "library" else [])
    trt.SETTINGS.libraries.clear()
    trt.SETTINGS.plugins.clear()  # another process
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, TensorRTBackend)
    assert trt.SETTINGS.libraries == ([str(library)] if chosen == "library" else [])
    same(bundle, backend.run(films(2)), films(2))
    backend.close()


def test_what_is_missing_is_found_before_the_work(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msloc_edge.export.precision.convert.convert", lambda *_: pytest.fail("minutes of work"))
    asked = ["export", "target", bundle.path, tmp_path, "--target", "tensorrt", "--precision", "fp16"]
    (tmp_path / "notes.txt").touch()
    assert command(monkeypatch, *asked) == 1
    assert "[out_occupied]" in capsys.readouterr().err
    (tmp_path / "notes.txt").unlink()
    assert command(monkeypatch, *asked, "--graph", "heatmap", "--plugin", "aot") == 1
    assert "[option_invalid]" in capsys.readouterr().err
    monkeypatch.setenv("STAND_IN_FAIL", "cuInit")
    assert command(monkeypatch, *asked) == 1
    assert "[backend_device]" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_plugins")
def test_a_plugin_that_fails_names_the_way_without_it(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt.Builder, "build_serialized_network", lambda *_: None)
    asked = ["--target", "tensorrt", "--graph", "heatmap"]
    assert command(monkeypatch, "export", "target", bundle.path, tmp_path / "out", *asked) == 1
    assert "cannot build the engine: it gives no reason; without the plugin: --plugin plain" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_need_the_cache(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file")
    exported(bundle)
    assert "the engine cache" in caplog.records[-1].getMessage()


def test_an_engine_of_the_accelerator(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported as any; it runs where its core is asked for, and nowhere else."""
    with pytest.raises(
        BackendError, match=r"no fp16 engine of tiny for dla:1; make it: .*--dla 1 --batch 1:1:1"
    ) as caught:
        load_backend("tensorrt", bundle, "dla:1", "fp16")
    assert caught.value.reason == "plan_missing"
    monkeypatch.setattr(trt, "__version__", "10.3.0.30")
    exported(bundle, "fp16", "network", batch=Batch(1, 1, 1), dla=1)
    (plan,) = Cache().folder.glob("*.plan")
    assert plan.name.endswith("-fp16-dla1-1.1.1.plan")
    assert json.loads(plan.with_name(f"{plan.name}.json").read_text())["facts"]["dla"] == 1
    backend = load_backend("tensorrt", bundle, "dla:1", "fp16")
    assert backend.describe()["device"] == "dla:1"
    same(bundle, backend.run(films(1)), films(1))
    backend.close()
    for device in ("cuda:0", "dla:0"):
        with pytest.raises(BackendError, match="no fp16 engine of tiny for"):
            load_backend("tensorrt", bundle, device, "fp16")
    with pytest.raises(BackendError, match="expected a precision of fp16, int8 for dla:1, got 'fp32'"):
        load_backend("tensorrt", bundle, "dla:1")
    out = tmp_path / "out"
    asked = ["export", "target", bundle.path, out, "--target", "tensorrt", "--dla", "0"]
    assert command(monkeypatch, *asked) == 1
    assert "--dla 0 is not possible: it computes in fp16 and int8: add --precision fp16" in capsys.readouterr().err
    assert command(monkeypatch, *asked[:-3], "tensorrt-rtx", "--dla", "0") == 2
    assert "--dla: not of --target tensorrt-rtx" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "cuda:0,fp16", "abacus", "dla:x"])
def test_devices(bundle: Bundle, device: str) -> None:
    with pytest.raises(BackendError, match="tensorrt: expected a device such as cuda:0 or dla:0, got") as caught:
        load_backend("tensorrt", bundle, device)
    assert caught.value.reason == "backend_device"


def test_a_device_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="expected a device from 0 to 0, got 3"):
        load_backend("tensorrt", bundle, "cuda:3")


@pytest.mark.parametrize("shape", [(1, 1, 64, 63), (1, 3, 64, 64), (64, 64), (0, 1, 64, 64), (9, 1, 64, 64)])
def test_wrong_batch(bundle: Bundle, shape: tuple[int, ...]) -> None:
    backend = ready(bundle)
    with pytest.raises(BackendError, match=f"failed on a batch of shape .{shape[0]}, ") as caught:
        backend.run(np.zeros(shape, np.float32))
    assert caught.value.reason == "backend_failed"
    backend.close()


def test_an_old_library(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "__version__", "8.6.1")
    with pytest.raises(DependencyError, match=r"expected version 10.3 or newer, got 8.6.1; JetPack 6: ") as caught:
        load_backend("tensorrt", bundle)
    assert caught.value.reason == "backend_missing"


def test_a_cache_that_cannot_be_written(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    backend = load_backend("tensorrt", bundle)
    with pytest.raises(OutputError, match=r"the engine cache .* cannot be used: .*set MSLOC_CACHE") as caught:
        backend.wait()
    assert caught.value.reason == "out_unwritable"
    backend.close()


def test_a_plan_finds_its_plugin(bundle: Bundle) -> None:
    ready(bundle).close()
    plan = Cache().find(Key(bundle.sha256, "tensorrt", trt.__version__, 87, "fp32", "network", Batch()))
    assert plan is not None
    Cache().put(replace(plan, facts={"plugin_library": "/opt/libmsloc_camfuse.so"}))
    load_backend("tensorrt", bundle).close()
    assert trt.SETTINGS.libraries == ["/opt/libmsloc_camfuse.so"]
    Cache().put(replace(plan, facts={"plugin_library": "/broken.so"}))
    backend = load_backend("tensorrt", bundle)
    assert isinstance(backend, BuildingBackend), "it is built again, without it"
    backend.wait()
    backend.close()
