"""The builder: what TensorRT is asked for, on a stand-in; that TensorRT-RTX really builds is in test_rtx.py."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
import pytest

from msloc_edge.backends.tensorrt.builder import Settings, build, logger
from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, TensorRTLibrary, release
from msloc_edge.backends.tensorrt.progress import Lines
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError, DependencyError


class Phases:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def start(self, phase: str, steps: int) -> None:
        self.told.append(("start", phase, steps))

    def step(self, phase: str, done: int) -> None:
        self.told.append(("step", phase, done))

    def finish(self, phase: str) -> None:
        self.told.append(("finish", phase))


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> bytes:
    return Bundle.open(tiny_bundle).onnx.read_bytes()


def test_what_is_asked_for(trt: ModuleType, model: bytes) -> None:
    phases = Phases()
    built = build(TENSORRT, model, (64, 64), Settings(Batch(1, 2, 4)), phases)
    (config,) = trt.SETTINGS.configs
    assert config.flags == set(), "no TF32, no refit, nothing compatible"
    assert config.hardware_compatibility_level is trt.HardwareCompatibilityLevel.NONE
    assert config.pools == {}
    assert config.profile.shapes == {"image": ((1, 1, 64, 64), (2, 1, 64, 64), (4, 1, 64, 64))}
    assert config.cache is None
    assert built.data.endswith(model)
    assert built.data[24:28] == bytes([10, 16, 1, 11])
    assert phases.told == [
        ("start", "Building engine", 3),
        *(("step", "Building engine", step) for step in (1, 2, 3)),
        ("finish", "Building engine"),
    ]


def test_options(trt: ModuleType, model: bytes) -> None:
    build(TENSORRT, model, (64, 64), Settings(Batch(), 256, True, True), Phases())
    (config,) = trt.SETTINGS.configs
    assert config.flags == {trt.BuilderFlag.VERSION_COMPATIBLE}
    assert config.hardware_compatibility_level is trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.pools == {trt.MemoryPoolType.WORKSPACE: 256 << 20}


def test_the_accelerator_takes_what_it_can(trt: ModuleType, model: bytes) -> None:
    build(TENSORRT, model, (64, 64), Settings(Batch(1, 1, 1), dla=1), Phases())
    (config,) = trt.SETTINGS.configs
    assert (config.default_device_type, config.DLA_core) == (trt.DeviceType.DLA, 1)
    assert config.flags == {trt.BuilderFlag.GPU_FALLBACK}
    with pytest.raises(BackendError, match="expected a DLA core of this device, which has 2, got core 2") as caught:
        build(TENSORRT, model, (64, 64), Settings(Batch(1, 1, 1), dla=2), Phases())
    assert caught.value.reason == "build_failed"


def test_times_of_builds_come_together(trt: ModuleType, model: bytes, tmp_path: Path) -> None:
    timing = tmp_path / "engines" / "tensorrt.timing"
    build(TENSORRT, model, (64, 64), Settings(), Phases(), timing)
    (first,) = timing.read_bytes().split()
    trt.SETTINGS.steps.append(lambda: timing.write_bytes(b"another:2us"))  # another process, meanwhile
    build(TENSORRT, model, (64, 64), Settings(), Phases(), timing)
    assert set(timing.read_bytes().split()) == {first, b"another:2us"}
    assert [file.name for file in timing.parent.iterdir()] == [timing.name]


@pytest.mark.parametrize("content", [b"damaged", b"foreign device"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_times_that_are_of_no_use_are_replaced(
    trt: ModuleType, model: bytes, tmp_path: Path, content: bytes, when: str
) -> None:
    """TensorRT gives no cache for damaged bytes, and does not take that of another device."""
    timing = tmp_path / "tensorrt.timing"
    if when == "before":
        timing.write_bytes(content)
    else:
        trt.SETTINGS.steps.append(lambda: timing.write_bytes(content))
    build(TENSORRT, model, (64, 64), Settings(), Phases(), timing)
    assert timing.read_bytes().endswith(b"1.5us")


def test_times_that_cannot_be_kept_are_no_error(trt: ModuleType, model: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert build(TENSORRT, model, (64, 64), Settings(), Phases(), tmp_path / "file" / "timing").data


@pytest.mark.parametrize("installed", ["stand-in", "tensorrt_rtx"])
def test_it_can_be_stopped(request: pytest.FixtureRequest, model: bytes, installed: str) -> None:
    library: TensorRTLibrary = TENSORRT
    if installed == "stand-in":
        request.getfixturevalue("trt")
    else:
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
        library = TENSORRT_RTX
    cancelled, phases = threading.Event(), Phases()
    cancelled.set()
    with pytest.raises(BackendError, match=r"cannot build the engine: .*BuildCancell?ed") as caught:
        build(library, model, (64, 64), Settings(), phases, cancelled=cancelled)
    assert caught.value.reason == "build_failed"
    assert phases.told[-1] == ("finish", "Building engine")


def test_no_graph(trt: ModuleType) -> None:
    with pytest.raises(BackendError, match=r"TensorRT 10.16.1.11 refuses the graph: ModelProto cannot be parsed"):
        build(TENSORRT, b"no graph", (64, 64), Settings(), Phases())


def test_a_refusal_without_a_reason(trt: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt.OnnxParser, "num_errors", 0)
    with pytest.raises(BackendError, match=r"TensorRT 10.16.1.11 refuses the graph: it gives no reason"):
        build(TENSORRT, b"no graph", (64, 64), Settings(), Phases())


def test_a_logger_may_forget(trt: ModuleType) -> None:
    log = logger(trt, max_lines=2)
    for at in range(5):
        log.log(trt.Severity.ERROR, str(at))
    assert list(log.lines) == ["[ERROR] 3", "[ERROR] 4"]


def test_no_device(trt: ModuleType, model: bytes) -> None:
    trt.SETTINGS.no_device = True
    with pytest.raises(
        BackendError, match=r"cannot start on this device: .*failure.*; nvidia-smi shows .*x86: "
    ) as caught:
        build(TENSORRT, model, (64, 64), Settings(), Phases())
    assert caught.value.reason == "backend_failed"


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        DependencyError, match=r"tensorrt: its libraries .* JetPack 6: .* JetPack 7: .* x86: pip"
    ) as caught:
        TENSORRT.load()
    assert caught.value.reason == "backend_missing"
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.2.0"))
    with pytest.raises(DependencyError, match=r"expected version 10\.3 or newer, got 10\.2\.0"):
        TENSORRT.load()


@pytest.mark.parametrize(("text", "expected"), [("10.16.1.11", (10, 16)), ("10.3.0", (10, 3)), ("11.0.0rc1", (11, 0))])
def test_releases(text: str, expected: tuple[int, int]) -> None:
    assert release(text) == expected


def test_lines_tell_of_the_outermost_phase(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("TensorRT")
    lines.start("Building engine", 6)
    lines.start("Tactics", 400)
    lines.step("Tactics", 17)
    lines.finish("Tactics")
    lines.step("Building engine", 1)
    lines.finish("Building engine")
    assert [record.getMessage() for record in caplog.records] == ["TensorRT: building engine, step 1 of 6"]


def test_the_stand_in_takes_real_graphs(model: bytes) -> None:
    assert onnx.load_from_string(model).graph.input[0].name == "image"
