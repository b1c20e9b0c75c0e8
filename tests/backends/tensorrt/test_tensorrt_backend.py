"""The tensorrt backend: on stand-ins in a process of its own, by pycuda's interface, and where nothing is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.progress import Progress

from msloc_edge.backends import load_backend
from msloc_edge.backends.tensorrt import memory
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError, DependencyError
from msloc_edge.export.tensorrt import EngineChoices, engine_files

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.mark.parametrize("file", ["on_stand_in.py", "device_on_stand_in.py"])
def test_on_stand_ins(tiny_bundle: Path, stand_ins: Path, libcuda: Callable[[str], Path], file: str) -> None:
    """All of a file."""
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    if file == "device_on_stand_in.py":
        pytest.importorskip("triton", reason="triton is not installed: it compiles the kernels")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(libcuda("libcuda.c")),
        "PYTHONPATH": os.pathsep.join(map(str, (stand_ins / "python", stand_ins.parent / "ptx"))),
        "STAND_IN_BUNDLE": str(tiny_bundle),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("graph", ["network", "heatmap"])
def test_by_pycuda(
    bundle: Bundle,
    trt: ModuleType,
    pycuda: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    integrated: bool,
    graph: str,
) -> None:
    """The same, by the calls of pycuda; without a graph, which it does not have."""
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path))
    pycuda.integrated = integrated
    monkeypatch.setattr(memory, "measure_ms", lambda make, mapped, bundle: float(not mapped))
    if graph == "heatmap":
        choices = EngineChoices(graph=graph)
        engine_files(bundle, "tensorrt", onnx.load(bundle.onnx), "fp32", choices, Progress(disable=True))
    backend = load_backend("tensorrt", bundle)
    backend.wait()
    reference = load_backend("onnxruntime", bundle)
    for count in (2, 3, 2):
        batch = np.random.default_rng(count).random((count, 1, 64, 64), np.float32)
        before = pycuda.copies
        found, expected = backend.run(batch), reference.run(batch)
        # the image, logits and four stages; the heatmaps to memory of their own; and at first a run to warm up
        assert pycuda.copies - before == (0 if integrated else 6) + (graph == "heatmap")
        np.testing.assert_array_equal(found.logits, expected.logits)
        for ours, theirs in zip(found.cams, expected.cams, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        maps = [outputs.fuse(1, [3, 0]).dense() for outputs in (found, expected)]
        np.testing.assert_allclose(*maps, atol=1e-5)
    facts = backend.describe()
    assert (facts["driver"], facts["graph"]) == ("pycuda", graph)
    assert facts["eager_because"] == "pycuda has no CUDA graphs"
    backend.close()
    assert pycuda.live == 0


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_what_is_missing_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    words = f"^{name}: its libraries are not on this machine .*pip install"
    with pytest.raises(DependencyError, match=words) as caught:
        load_backend(name, bundle)
    assert caught.value.reason == "backend_missing"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_tensorrt_rtx_without_a_driver(bundle: Bundle) -> None:
    """Its engines are built here, and run only where there is a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    with pytest.raises(BackendError, match="no NVIDIA driver on this machine") as caught:
        load_backend("tensorrt_rtx", bundle)
    assert caught.value.reason == "backend_device"
