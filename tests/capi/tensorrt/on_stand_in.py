"""The TensorRT engine of the C library on stand-ins for TensorRT and for the driver, through the C ABI.

test_tensorrt_engine.py runs this in a process whose libcuda.so.1 and libnvinfer.so are the stand-ins. Plans are filled
into the cache by Python's own engine cache, so that names and sidecars are those that Python writes.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import DRIVER, NVINFER, PARTS, SM, VERSION, nothing_left, plan_of, tensors

from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.backends.tensorrt.plan import SIDECAR
from msloc_edge.bundle import Bundle
from msloc_edge.maps.fuse import fuse_cams


@pytest.fixture(scope="module")
def capi(pytestconfig: pytest.Config) -> Any:
    binding: Any = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    path = Path(os.environ["STAND_IN_LIBRARY"])
    return binding.Capi(binding.load(path), path, path.parent)


HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle, said to be of another size: the stand-in has that of its plan, and sides should differ."""
    folder = shutil.copytree(os.environ["STAND_IN_BUNDLE"], tmp_path_factory.mktemp("wide") / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["input"] |= {"height": HEIGHT, "width": WIDTH}
    for stage in manifest["stages"]:
        stage |= {"height": HEIGHT // stage["stride"], "width": WIDTH // stage["stride"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left of what an engine makes."""
    monkeypatch.setenv("STAND_IN_SM", str(SM))
    with nothing_left():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def put(folder: Path, bundle: Bundle) -> Callable[..., Path]:
    """Puts a plan into the cache; returns its file."""

    def put_plan(*arguments: Any, **change: Any) -> Path:
        plan = plan_of(bundle, *arguments, **change)
        Cache(folder).put(plan)
        return folder / plan.key.file

    return put_plan


@pytest.fixture
def opened(capi: Any, bundle: Bundle, folder: Path) -> Callable[..., Any]:
    """Opens the bundle by the engine under test."""

    def open_engine(device: str | None = None, cache: Path | None = folder) -> Any:
        given = {"engine": b"tensorrt", "threads": 1, "device": device and device.encode()}
        return capi.open(bundle.path, cache_folder=cache and str(cache).encode(), **given)

    return open_engine


@pytest.fixture
def refused(opened: Callable[..., Any], structs: dict[str, Any]) -> Callable[..., tuple[str, str]]:
    """Status and sentence of an opening that fails."""

    def open_refused(*arguments: Any, **values: Any) -> tuple[str, str]:
        with pytest.raises(structs["StatusError"]) as error, opened(*arguments, **values):
            pass
        return error.value.status, error.value.sentence

    return open_refused


def film(seed: int) -> np.ndarray:
    """Of the size of the model's input, so that its pixels are the network's."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def check(handle: Any, bundle: Bundle, pixels: np.ndarray) -> None:
    """Localize a film and compare with what the stand-in computes of it (libnvinfer.cpp)."""
    handle.localize(pixels)
    x, classes = pixels.astype(np.float64) / 255, np.arange(len(bundle.classes))
    logits = [finding.logit for finding in handle.findings()]
    np.testing.assert_allclose(logits, (classes + 1) * x.mean(), rtol=1e-5)
    cams = []
    for s, stage in enumerate(bundle.stages, 1):
        cells = x.reshape(stage.height, stage.stride, stage.width, stage.stride).mean((1, 3))
        cams.append(((classes + s)[:, None, None] * cells).astype(np.float32))
    expected = fuse_cams(cams, bundle.relevance, (HEIGHT, WIDTH), list(classes)).dense()
    for k in classes:
        np.testing.assert_allclose(handle.map(int(k)), expected[k], atol=1e-4)


# One film


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("graph", ["network", "heatmap"])
def test_films_go_through_one_graph(
    graph: str,
    integrated: bool,
    put: Callable[..., Path],
    opened: Callable[..., Any],
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each film is copied in, and logits and class maps out, but not the heatmap; nothing where memory is shared."""
    if integrated:
        monkeypatch.setenv("STAND_IN_INTEGRATED", "1")
    put(graph=graph)
    before = NVINFER.stand_in_enqueues()
    with opened() as handle:
        assert handle.model().engine.decode() == f"tensorrt {VERSION} cuda:0 fp32"
        for seed in (1, 2, 1):
            copies = DRIVER.stand_in_copies()
            check(handle, bundle, film(seed))
            assert DRIVER.stand_in_copies() - copies == (0 if integrated else 2 + len(bundle.stages))
    assert NVINFER.stand_in_enqueues() - before == 2, "to warm up, and for the graph"


@pytest.mark.parametrize(
    ("setting", "call", "words"),
    [
        ("STAND_IN_FAIL", "cuStreamBeginCapture", "CUDA's driver: cuStreamBeginCapture failed"),
        ("STAND_IN_FAIL", "cuStreamEndCapture", "CUDA's driver: cuStreamEndCapture failed"),
        ("STAND_IN_FAIL", "cuGraphInstantiate", "CUDA's driver: cuGraphInstantiate failed"),
        ("STAND_IN_TRT_FAIL", "second enqueueV3", "tensorrt: enqueueV3 failed"),
    ],
)
def test_without_a_graph_films_are_enqueued(
    setting: str,
    call: str,
    words: str,
    put: Callable[..., Path],
    opened: Callable[..., Any],
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put()
    monkeypatch.setenv(setting, call)
    with opened() as handle:
        engine = handle.model().engine.decode()
        assert engine.startswith(f"tensorrt {VERSION} cuda:0 fp32, no CUDA graph: {words}")
        before = NVINFER.stand_in_enqueues()
        for seed in (1, 2):
            check(handle, bundle, film(seed))
        assert NVINFER.stand_in_enqueues() - before == 2


def test_beside_another_context(put: Callable[..., Path], opened: Callable[..., Any], bundle: Bundle) -> None:
    """The caller's own context is current before and after every call."""
    put()
    theirs = 0x77
    DRIVER.stand_in_current.restype = ctypes.c_void_p
    DRIVER.cuCtxPushCurrent_v2(ctypes.c_void_p(theirs))
    with opened() as handle:
        assert DRIVER.stand_in_current() == theirs
        check(handle, bundle, film(3))
        assert DRIVER.stand_in_current() == theirs
    assert DRIVER.stand_in_current() == theirs
    DRIVER.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def test_two_engines_in_two_threads(put: Callable[..., Path], opened: Callable[..., Any], bundle: Bundle) -> None:
    put()

    def work(seed: int) -> None:
        with opened() as handle:
            for more in range(20):
                check(handle, bundle, film(seed + more))
        assert DRIVER.stand_in_depth() == 0

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (10, 50)))


def test_closed_by_another_thread(put: Callable[..., Path], opened: Callable[..., Any]) -> None:
    put()
    handle = opened()
    handle.__enter__()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(handle.__exit__, None, None, None).result()


# Which plan


def test_the_plan_for_single_films(put: Callable[..., Path], opened: Callable[..., Any]) -> None:
    """Without heatmaps, then of the smallest batch; those for others are left alone."""
    put("pairs", batch=Batch(2, 2, 8))
    put("old", version="10.2.0.19")
    put("other device", sm=86)
    put("half", precision="fp16")
    for name, change in [
        ("maps", {"graph": "heatmap", "batch": Batch(1, 1, 1)}),
        ("large", {"batch": Batch(1, 4, 8)}),
        ("eight", {"batch": Batch(1, 1, 8)}),
        ("one", {"batch": Batch(1, 1, 1)}),
    ]:
        put(name, **change)
        with opened():
            assert NVINFER.stand_in_plan().decode() == name
    with opened("cuda:0,fp16") as handle:
        assert NVINFER.stand_in_plan().decode() == "half"
        assert handle.model().engine.decode().endswith(" cuda:0 fp16")


def test_a_version_with_its_build_number(put: Callable[..., Path], opened: Callable[..., Any]) -> None:
    """As Python's module says it; the library does not tell it everywhere."""
    put(version=f"{VERSION}.999")
    with opened():
        pass


def test_what_a_plan_brings_and_needs(put: Callable[..., Path], opened: Callable[..., Any]) -> None:
    put()
    with opened():
        assert (NVINFER.stand_in_host_code(), NVINFER.stand_in_plugin()) == (0, b"")
    put(facts={"version_compatible": True, "plugin_library": "/opt/libmsloc_camfuse.so"})
    with opened():
        assert (NVINFER.stand_in_host_code(), NVINFER.stand_in_plugin()) == (1, b"/opt/libmsloc_camfuse.so")


@pytest.mark.parametrize(("fail", "films"), [("", 1), ("updateDeviceMemorySizeForShapes", 8)])
def test_layers_get_the_memory_of_one_film(
    fail: str,
    films: int,
    put: Callable[..., Path],
    opened: Callable[..., Any],
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a plan for up to eight; that of eight where TensorRT does not tell."""
    put(batch=Batch(1, 4, 8))
    monkeypatch.setenv("STAND_IN_TRT_FAIL", fail)
    with opened() as handle:
        assert NVINFER.stand_in_scratch() == 1001 * films
        check(handle, bundle, film(5))


OLDER = {"version": f"{PARTS[0]}.0.0.9"}
COMPATIBLE = {"version_compatible": True, "hardware_compatible": True}


@pytest.mark.parametrize(
    ("built", "facts", "taken"),
    [
        (OLDER, {"version_compatible": True}, True),
        (OLDER, {"hardware_compatible": True}, False),
        ({"version": f"{PARTS[0]}.{PARTS[1] + 1}.0.9"}, {"version_compatible": True}, False),
        ({"version": "10.3.0.9"}, {"version_compatible": True}, True),
        ({"version": "9.3.0.9"}, {"version_compatible": True}, False),
        ({"sm": 86}, {"hardware_compatible": True}, True),
        ({"sm": 86}, {"version_compatible": True}, False),
        ({"sm": 75}, {"hardware_compatible": True}, False),
        ({**OLDER, "sm": 120}, COMPATIBLE, True),
        ({**OLDER, "precision": "int8"}, COMPATIBLE, False),
    ],
)
def test_a_compatible_plan_serves_elsewhere(
    built: dict[str, Any],
    facts: dict[str, Any],
    taken: bool,
    bundle: Bundle,
    folder: Path,
    opened: Callable[..., Any],
    refused: Callable[..., tuple[str, str]],
) -> None:
    """As Python's cache has it; this machine's own plan comes first, also one with heatmaps."""
    plan = plan_of(bundle, "elsewhere", facts, **built)
    written = bytes(int(part) for part in plan.key.version.split(".")[:3])
    Cache(folder).put(replace(plan, data=plan.data[:24] + written + plan.data[27:]))
    if not taken:
        assert refused()[0] == "backend_failed"
        return
    with opened() as handle:
        assert NVINFER.stand_in_plan() == b"elsewhere"
        check(handle, bundle, film(6))
    Cache(folder).put(plan_of(bundle, "own", graph="heatmap"))
    with opened():
        assert NVINFER.stand_in_plan() == b"own"


def exported(bundle: Bundle, folder: Path, **change: Any) -> Path:
    """model.plan with its sidecar, as `msloc-edge export` writes them."""
    plan, file = plan_of(bundle, **change), folder / "model.plan"
    file.write_bytes(plan.data)
    (folder / f"model.plan{SIDECAR}").write_bytes(plan.sidecar())
    return file


def test_a_file(bundle: Bundle, opened: Callable[..., Any], tmp_path: Path) -> None:
    """Of any precision: its sidecar says which."""
    file = exported(bundle, tmp_path, precision="int8")
    with opened(f"cuda:0,{file}", cache=None) as handle:
        assert handle.model().engine.decode().endswith(" int8")
        check(handle, bundle, film(4))


# What is refused before TensorRT sees it


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def apply(plan: Path) -> None:
        sidecar = plan.with_name(plan.name + SIDECAR)
        content = json.loads(sidecar.read_text())
        change(content)
        sidecar.write_text(json.dumps(content))

    return apply


def write(start: int, data: bytes) -> Callable[[Path], Any]:
    def apply(plan: Path) -> None:
        content = bytearray(plan.read_bytes())
        content[start : start + len(data)] = data
        plan.write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda plan: plan.with_name(plan.name + SIDECAR).unlink(), "one without its sidecar FILE.json"),
        (lambda plan: plan.with_name(plan.name + SIDECAR).write_bytes(b"\xff{"), "one with a sidecar that is not of"),
        (lambda plan: plan.with_name(plan.name + SIDECAR).write_bytes(b"[]"), "one with a sidecar that is not of"),
        (edit(lambda entry: entry.update(schema="msloc-edge/engine/2")), "one with a sidecar that is not of"),
        (edit(lambda entry: entry["key"].pop("sm")), "one with a sidecar that is not of"),
        (edit(lambda entry: entry.update(facts=[])), "one with a sidecar that is not of"),
        (edit(lambda entry: entry["key"].update(bundle="0" * 64)), "one of another bundle"),
        (edit(lambda entry: entry["key"].update(flavour="tensorrt_rtx")), "one for tensorrt_rtx"),
        (edit(lambda entry: entry["key"].update(version="10.2.0.19")), "one for TensorRT 10.2.0.19"),
        (edit(lambda entry: entry["key"].update(version="10")), "one for TensorRT 10"),
        (edit(lambda entry: entry["key"].update(sm=86)), "one for sm_86"),
        (edit(lambda entry: entry["key"]["batch"].update(least=2)), "one that takes no single films"),
        (lambda plan: plan.write_bytes(plan.read_bytes()[:-1]), "one of another length than its sidecar says"),
        (lambda plan: plan.write_bytes(b""), "one of another length than its sidecar says"),
        (write(0, b"\x7fELF"), "one that is no plan of TensorRT"),
        (write(24, b"\x08\x06\x01"), "one that TensorRT 8.6.1 wrote, against its sidecar"),
        (write(40, b"\x00"), "one of another sha256 than its sidecar says"),
        (lambda plan: (plan.unlink(), plan.mkdir()), "one that cannot be read"),
        (lambda plan: plan.unlink(), "none"),
    ],
)
def test_a_plan_that_is_not_for_this_machine(
    damage: Callable[[Path], Any],
    why: str,
    put: Callable[..., Path],
    refused: Callable[..., tuple[str, str]],
    bundle: Bundle,
    folder: Path,
    tmp_path: Path,
) -> None:
    """In the cache as in a file; one sentence, with the command. The cache stays as it is: Python moves plans aside."""
    plan = put()
    damage(plan)
    kept = {file: file.is_file() and file.read_bytes() for file in folder.iterdir()}
    command = f"make it here: msloc-edge export target {bundle.name} OUT --target tensorrt --precision fp32"
    expected = f"expected an fp32 plan of {bundle.name} for TensorRT {VERSION} on sm_{SM}, got {why}"
    status, sentence = refused()
    assert status == "backend_failed"
    assert sentence.startswith(f"{folder}: {expected}")
    assert sentence.endswith(f"; {command}")
    assert {file: file.is_file() and file.read_bytes() for file in folder.iterdir()} == kept

    file = exported(bundle, tmp_path)
    damage(file)
    status, sentence = refused(f"cuda:0,{file}")
    assert status == "backend_failed"
    assert f"{file}: expected a plan of {bundle.name}" in sentence
    assert ("got one that cannot be read" if why == "none" else f"got {why}") in sentence


def test_another_plan_serves_in_place_of_a_damaged_one(put: Callable[..., Path], opened: Callable[..., Any]) -> None:
    best = put("best", batch=Batch(1, 1, 1))
    put("second")
    write(40, b"\x00")(best)
    with opened():
        assert NVINFER.stand_in_plan() == b"second"


def test_no_cache(refused: Callable[..., tuple[str, str]], folder: Path) -> None:
    assert refused(cache=None)[0] == "argument"
    assert not folder.exists()
    assert ", got none; " in refused()[1]


@pytest.mark.parametrize(
    "device", ["cpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0,", "cuda:0,fp8", "cuda0", "cuda:0,fp32,fp16", "cuda:99999"]
)
def test_devices_that_cannot_be(device: str, refused: Callable[..., tuple[str, str]]) -> None:
    status, sentence = refused(device)
    assert status == "backend_device"
    assert sentence.endswith(f", got '{device}'; choose one")


# What TensorRT and the driver refuse


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("createInferRuntime", "cannot start on this device (createInferRuntime was made to fail)"),
        ("deserializeCudaEngine", "does not take"),
        ("loadLibrary", "cannot load the plugin /opt/plugin.so"),
        ("createExecutionContext", "no memory for"),
        ("setInputShape", "expected a plan that takes [1, 1, 64, 96] as image, got another"),
        ("setTensorAddress", "the address of image is not taken"),
        ("enqueueV3", "enqueueV3 failed"),
    ],
)
def test_tensorrt_fails(
    method: str,
    sentence: str,
    put: Callable[..., Path],
    refused: Callable[..., tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own words are in the sentence, which is one line."""
    put(facts={"plugin_library": "/opt/plugin.so"})
    monkeypatch.setenv("STAND_IN_TRT_FAIL", method)
    status, said = refused()
    assert status == "backend_failed"
    assert sentence in said
    assert f"{method} was made to fail" in said


@pytest.mark.parametrize(
    ("name", "line", "sentence"),
    [
        ("logits", None, "expected a plan with logits of float32 [1, 8], got none"),
        ("logits", "out logits float -1 7", "logits of float32 [1, 8], got [1, 7]"),
        ("logits", "out logits half -1 8", "logits of float32 [1, 8], got [1, 8] of another type"),
        ("cams_2", "out cams_2 float -1 8 12 8", "cams_2 of float32 [1, 8, 8, 12], got [1, 8, 12, 8]"),
        ("cams_4", None, "cams_4 of float32 [1, 8, 2, 3], got none"),
        ("image", "in image half -1 1 64 96", "image of float32 [1, 1, 64, 96], got [1, 1, 64, 96] of another type"),
        ("image", "in image float -1 1 96 64", "takes [1, 1, 64, 96] as image"),
        ("other", "out other float -1 8", "expected a plan with the tensors of the bundle, got other as well"),
        ("heatmap", "out heatmap float -1 8 96 64", "heatmap of float32 [1, 8, 64, 96], got [1, 8, 96, 64]"),
    ],
)
def test_a_network_that_is_not_the_bundles(
    name: str,
    line: str | None,
    sentence: str,
    put: Callable[..., Path],
    refused: Callable[..., tuple[str, str]],
    bundle: Bundle,
) -> None:
    lines = tensors(bundle) | {name: line}
    put(lines={tensor: text for tensor, text in lines.items() if text})
    status, said = refused()
    assert status == "backend_failed"
    assert sentence in said


def test_a_device_that_is_not_there(
    put: Callable[..., Path], refused: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    status, sentence = refused("cuda:1")
    assert (status, sentence[:48]) == ("backend_device", "tensorrt: expected one of 1 devices, the first o")
    monkeypatch.setenv("STAND_IN_FAIL", "cuInit")
    assert refused() == ("backend_device", "tensorrt: CUDA's driver: cuInit failed: made to fail (200)")


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuStreamSynchronize"])
def test_a_film_fails_and_the_next_does_not(
    call: str,
    put: Callable[..., Path],
    opened: Callable[..., Any],
    bundle: Bundle,
    structs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put()
    with opened() as handle:
        with monkeypatch.context() as failing:
            failing.setenv("STAND_IN_FAIL", call)
            with pytest.raises(structs["StatusError"], match=f"{call} failed: made to fail") as error:
                handle.localize(film(1))
        assert error.value.status == "backend_failed"
        check(handle, bundle, film(2))
