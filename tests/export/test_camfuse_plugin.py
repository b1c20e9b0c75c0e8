"""The CamFuse plugin for TensorRT 10.9 and later, without TensorRT's libraries: NVIDIA's bindings on stand-ins."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from msloc_edge.cuda.compiled import grid_size
from msloc_edge.errors import DependencyError
from msloc_edge.export import camfuse_plugin
from msloc_edge.export.graphs import HEATMAP, definition

pytest.importorskip("triton", reason="triton is not installed")

from msloc_edge.kernels.aot.assemble import assemble
from msloc_edge.kernels.aot.build import DEVICES
from msloc_edge.kernels.aot.ptx import entry
from msloc_edge.kernels.aot.spec import Variant
from msloc_edge.kernels.aot.variants import STRIDES, variants
from msloc_edge.kernels.fuse_cams.launch import strided_tile

FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
"""What the bindings take from the libraries of TensorRT."""

BATCHES = (1, 2, 3, 8, 64, 200)


def question(dtype: str, classes: int, size: tuple[int, int], **changes: Any) -> dict[str, Any]:
    stages = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    return {"dtype": dtype, "classes": classes, "size": size, "stages": stages, "batches": BATCHES, **changes}


QUESTIONS = [
    question("fp16", 14, (512, 512)),
    question("fp32", 14, (256, 256)),
    question("fp32", 3, (96, 160)),
    question("fp16", 1, (1024, 288)),
]

REFUSED = {
    "25 x 41 of 4 for a map of 97 x 161": question("fp16", 3, (97, 161), stages=[(25, 41), (13, 21), (7, 11), (4, 6)]),
    "8 x 16 of 8 for a map of 96 x 128": question("fp32", 3, (96, 128), stages=[(24, 32), (8, 16), (6, 8), (3, 4)]),
    "64 x 64 of 16 for a map of 512 x 512": question(
        "fp32", 3, (512, 512), stages=[(128, 128), (64, 64), (64, 64), (16, 16)]
    ),
    "8 x 1 of 32 for a map of 256 x 32": question("fp16", 3, (256, 32)),
}
"""What the kernel cannot compute, by the words that say so."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of QUESTIONS and REFUSED."""
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("NVIDIA's bindings are not installed: pip install tensorrt-cu13-bindings")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler for the stand-in libraries")
    folder = tmp_path_factory.mktemp("stand_in")
    source = folder / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        for version in (10, 11):
            subprocess.run([compiler, "-shared", "-o", folder / f"lib{name}.so.{version}", source], check=True)
    (folder / "questions.json").write_text(json.dumps([*QUESTIONS, *REFUSED.values()]))
    program = Path(__file__).with_name("camfuse_on_stand_in.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run(
        [sys.executable, program, folder / "questions.json", folder / "answers.json"],
        env={**environment, "LD_LIBRARY_PATH": str(folder)},
        check=True,
        timeout=300,
    )
    return list(json.loads((folder / "answers.json").read_text()))


@pytest.fixture(scope="module")
def answers(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return told[: len(QUESTIONS)]


def kernel(dtype: str) -> Variant:
    return next(v for v in variants() if (v.operation, v.variant, v.dtype) == ("fuse_cams", "maps", dtype))


def test_the_output_has_the_size_of_the_attributes(answers: list[dict[str, Any]]) -> None:
    for asked, found in zip(QUESTIONS, answers, strict=True):
        assert found["output"] == [[batch, asked["classes"], *asked["size"]] for batch in BATCHES]
        assert found["output_type"] == {"fp16": "HALF", "fp32": "FLOAT"}[asked["dtype"]]


def test_maps_are_of_one_type_and_relevance_is_fp32(answers: list[dict[str, Any]]) -> None:
    for found in answers:
        assert {layout for _, layout in found["combinations"]} == {"LINEAR"}
        types = [kind for kind, _ in found["combinations"]]
        assert [types[:6], types[6:]] == [["FLOAT"] * 6, ["HALF"] * 4 + ["FLOAT", "HALF"]]


def test_scalars_come_as_the_kernel_takes_them(answers: list[dict[str, Any]]) -> None:
    for asked, found in zip(QUESTIONS, answers, strict=True):
        arguments = kernel(asked["dtype"]).arguments
        node = definition(len(asked["stages"]), 18)
        names = [argument.name for argument in arguments]
        first, last = len(node.input), len(arguments) - len(node.output)
        assert names[:first] == list(node.input)
        assert (names[last:], list(node.output)) == (["maps"], [HEATMAP])
        assert [argument.type.startswith("*") for argument in arguments] == [
            not first <= at < last for at in range(len(arguments))
        ]
        assert found["scalar_types"] == ["SymInt32"]
        for batch, scalars in zip(BATCHES, found["scalars"], strict=True):
            height, width = asked["size"]
            tile = strided_tile(batch * asked["classes"], (height, width))
            assert tile.columns == kernel(asked["dtype"]).constants["BLOCK_W"]
            expected = [asked["classes"], asked["classes"], height, width, tile.rows]
            assert dict(zip(names[first:last], scalars, strict=True)) == dict(
                zip(names[first:last], expected, strict=True)
            )
    assert {rows for found in answers for *_, rows in found["scalars"]} == {16, 32, 128}, "every rule was met"


def test_the_grid_is_that_of_the_kernel(answers: list[dict[str, Any]]) -> None:
    for asked, found in zip(QUESTIONS, answers, strict=True):
        variant = kernel(asked["dtype"])
        numbers = [argument.name for argument in variant.arguments if not argument.type.startswith("*")]
        for batch, scalars, launch in zip(BATCHES, found["scalars"], found["launch"], strict=True):
            x, y, z = grid_size(variant.grid, {"B": batch, **dict(zip(numbers, scalars, strict=True))})
            block = {"block_x": 32 * variant.num_warps, "block_y": 1, "block_z": 1}
            assert launch == {"grid_x": x, "grid_y": y, "grid_z": z, **block, "shared_mem": 0}


def test_the_ptx_is_that_of_the_kernel(answers: list[dict[str, Any]]) -> None:
    for asked, found in zip(QUESTIONS, answers, strict=True):
        name, parameters = entry(found["ptx"])
        assert found["name"] == name
        assert [p.size for p in parameters] == [argument.size for argument in kernel(asked["dtype"]).arguments]
        pair = {"fp16": "st.global.b32", "fp32": "st.global.v2.b32"}[asked["dtype"]]
        assert set(re.findall(r"st\.global\S*", found["ptx"])) == {pair}, "two pixels in their type at once"


def test_other_grids_are_refused_while_building(told: list[dict[str, Any]]) -> None:
    for words, found in zip(REFUSED, told[len(QUESTIONS) :], strict=True):
        cells = "at least two columns, with cells of 4, 8, 16 and 32 pixels"
        sentence = f"CamFuse: expected class maps of {cells}, got {words}; export with --plugin plain"
        assert found == {"reason": "option_invalid", "refused": sentence}


@pytest.mark.parametrize("sm", DEVICES)
def test_the_ptx_fits_every_device(sm: int, answers: list[dict[str, Any]]) -> None:
    for found in answers[:2]:
        assert assemble(found["ptx"], sm).spills == 0


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DependencyError, match=r"expected TensorRT 10\.9 or later.*pip install tensorrt") as caught:
        camfuse_plugin.register()
    assert caught.value.reason == "backend_missing"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A tensorrt.plugin with nothing in it, as far as an early return needs one."""
    package, module = ModuleType("tensorrt"), ModuleType("tensorrt.plugin")
    package.plugin = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", module)
    return module


def test_a_tensorrt_without_such_plugins(plugins: ModuleType) -> None:
    with pytest.raises(DependencyError, match=r"got an older one; use libmsloc_camfuse\.so") as caught:
        camfuse_plugin.register()
    assert caught.value.reason == "backend_missing"


def test_no_triton(plugins: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.aot_impl = None  # type: ignore[attr-defined]
    for module in [name for name in sys.modules if name.startswith("msloc_edge.kernels.aot.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(
        DependencyError, match=r"needs triton; install it with: pip install 'msloc-edge\[gpu\]'"
    ) as error:
        camfuse_plugin.register()
    assert error.value.reason == "backend_missing"
