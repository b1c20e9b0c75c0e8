"""Which way the heatmap takes into an engine, and what the accelerator can.

What is built is tested in test_rtx.py and tests/backends/tensorrt.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from msloc_edge.backends.tensorrt.builder import Settings
from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX
from msloc_edge.errors import ExportError
from msloc_edge.export.tensorrt import LIBRARY, STAGES, require_dla, route


@pytest.fixture
def library(tmp_path: Path) -> Path:
    file = tmp_path / "libmsloc_camfuse.so"
    file.write_bytes(b"\x7fELF")
    return file


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """tensorrt.plugin and what brings the kernel are there."""
    for module in ("tensorrt", "tensorrt.plugin", "triton", "msloc_edge.export.camfuse_plugin"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("version", "has_library", "name", "reason"),
    [
        ("10.3.0", False, "plain", "tensorrt.plugin came with 10.9, this is 10.3.0; neither --plugin-library "),
        ("10.3.0", True, "library", "TensorRT 10.3.0 can"),
        ("10.8.0", True, "library", "TensorRT 10.8.0 can"),
        ("10.9.0", True, "aot", "TensorRT 10.9.0 can"),
        ("10.16.1.11", False, "aot", "TensorRT 10.16.1.11 can"),
        ("11.4.1", False, "aot", "TensorRT 11.4.1 can"),
    ],
)
def test_the_way_goes_by_version(library: Path, version: str, has_library: bool, name: str, reason: str) -> None:
    found = route(TENSORRT, version, STAGES, library=library if has_library else None)
    assert (found.name, found.library) == (name, library if name == "library" else None)
    assert found.reason.startswith(reason)


@pytest.mark.usefixtures("plugin")
def test_the_library_may_be_named_by_the_environment(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY, str(library))
    assert route(TENSORRT, "10.3.0", STAGES).library == library
    monkeypatch.setenv(LIBRARY, "/nowhere.so")
    assert "/nowhere.so is no file" in route(TENSORRT, "10.3.0", STAGES).reason


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("wanted", ["aot", "library", "plain"])
def test_as_asked(library: Path, wanted: str) -> None:
    found = route(TENSORRT, "10.9.0", STAGES, wanted, library)
    assert (found.name, found.reason) == (wanted, "as asked")


@pytest.mark.parametrize("missing", ["tensorrt.plugin", "triton", "msloc_edge.export.camfuse_plugin"])
@pytest.mark.usefixtures("plugin")
def test_without_what_the_kernel_needs(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert f"{missing} cannot be imported" in route(TENSORRT, "10.9.0", STAGES).reason


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("version", "wanted", "says"),
    [
        ("10.3.0", "aot", "--plugin aot is not possible: tensorrt.plugin came with 10.9, this is 10.3.0"),
        ("10.3.0", "library", f"neither --plugin-library nor {LIBRARY} names libmsloc_camfuse.so; use --plugin plain"),
    ],
)
def test_a_way_that_is_not_open(version: str, wanted: str, says: str) -> None:
    with pytest.raises(ExportError) as caught:
        route(TENSORRT, version, STAGES, wanted)
    assert caught.value.reason == "option_invalid"
    assert says in str(caught.value)


def test_the_plugins_fuse_four_stages(library: Path) -> None:
    variants = pytest.importorskip("msloc_edge.kernels.aot.variants", reason="triton is not installed")
    assert variants.STAGES == STAGES
    found = route(TENSORRT, "10.16.1.11", 3, library=library)
    assert (found.name, found.reason) == ("plain", "the plugin fuses 4 stages, this model has 3")
    with pytest.raises(ExportError, match=r"--plugin library is not possible: the plugin fuses 4 stages"):
        route(TENSORRT, "10.3.0", 5, "library", library)


@pytest.mark.parametrize(
    ("version", "precision", "batch", "graph", "says"),
    [
        ("10.8.0.43", "fp16", Batch(1, 1, 1), "network", "TensorRT 10.8.0.43 has none: it was in 10.3 to 10.7"),
        ("11.4.0.106", "fp16", Batch(1, 1, 1), "network", "TensorRT 11.4.0.106 has none"),
        ("11.0.0b1", "fp16", Batch(1, 1, 1), "network", "TensorRT 11.0.0b1 has none"),
        ("10.3.0.30", "fp32", Batch(1, 1, 1), "network", "it computes in fp16 and int8: add --precision fp16"),
        ("10.7.0.23", "int8", Batch(1, 1, 1), "network", "does not take quantized graphs there: use --precision fp16"),
        ("10.3.0.30", "fp16", Batch(1, 1, 8), "network", "it takes one batch size: --batch 8:8:8"),
        ("11.4.1.3", "int8", Batch(2, 2, 2), "heatmap", "heatmaps are for the GPU: leave out --graph heatmap"),
    ],
)
def test_what_the_accelerator_cannot(version: str, precision: str, batch: Batch, graph: str, says: str) -> None:
    with pytest.raises(ExportError, match=f"^--dla 1 is not possible: .*{re.escape(says)}") as caught:
        require_dla(Settings(batch, dla=1), version, precision, graph)
    assert caught.value.reason == "option_invalid"
    require_dla(Settings(batch), version, precision, graph)


@pytest.mark.parametrize(("version", "precision"), [("10.3.0.30", "fp16"), ("11.4.1.3", "fp16"), ("11.5.0.1", "int8")])
def test_what_the_accelerator_can(version: str, precision: str) -> None:
    require_dla(Settings(Batch(2, 2, 2), dla=0), version, precision, "network")


def test_tensorrt_rtx_has_one_way() -> None:
    assert route(TENSORRT_RTX, "1.7.1", STAGES).name == "plain"
    for wanted in ("aot", "library"):
        with pytest.raises(ExportError, match="TensorRT-RTX has no plugins"):
            route(TENSORRT_RTX, "1.7.1", STAGES, wanted)
