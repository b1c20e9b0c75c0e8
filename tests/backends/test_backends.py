"""The engines: all give the same from one bundle, and every way to fail has its name."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND, Backend, Outputs, Search, load_backend
from msloc_edge.bundle import MANIFEST, ONNX, WEIGHTS, Bundle
from msloc_edge.errors import BackendError, BundleError, DependencyError, MslocError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.maps.boxes import find_boxes
from msloc_edge.maps.regions import locate
from msloc_edge.types import Box

LOGIT_LIMIT, MAP_LIMIT, IOU_LIMIT = 1e-4, 1e-3, 0.99
VERSIONS = {
    "onnxruntime": onnxruntime.__version__,
    "openvino": openvino.__version__,
    "torch": torch.__version__,
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> Iterator[dict[str, Backend]]:
    loaded = {name: load_backend(name, bundle) for name in VERSIONS}
    yield loaded
    for engine in loaded.values():
        engine.close()


def overlap(a: Box, b: Box) -> float:
    """IoU from the four corners."""
    left, right = max(a.x, b.x), min(a.x + a.w, b.x + b.w)
    top, bottom = max(a.y, b.y), min(a.y + a.h, b.y + b.h)
    if right <= left or bottom <= top:
        return 0.0
    common = (right - left) * (bottom - top)
    return common / (a.w * a.h + b.w * b.h - common)


def test_every_engine_is_tested() -> None:
    assert set(BACKENDS) == {*VERSIONS, "tensorrt", "tensorrt_rtx"}  # of these two: tests/backends/tensorrt
    assert DEFAULT_BACKEND == "onnxruntime"


@pytest.mark.parametrize("other", [name for name in VERSIONS if name != "torch"])
def test_engines_agree(engines: dict[str, Backend], bundle: Bundle, phantom_films: list, other: str) -> None:
    boxes, positive = 0, 0
    profile, every = bundle.profile(), range(len(bundle.classes))
    for film in phantom_films:
        geometry = Geometry.fit(film.shape, bundle.input_size)
        batch = geometry.letterbox(film)[None, None]
        a, b = (engines[name].run(batch) for name in ("torch", other))
        assert a.logits.shape == b.logits.shape == (1, 8)
        assert np.abs(a.logits - b.logits).max() <= LOGIT_LIMIT
        for first, second in zip(a.cams, b.cams, strict=True):
            assert first.dtype == second.dtype == np.float32
            assert np.abs(first - second).max() <= MAP_LIMIT
        maps = [outputs.fuse(0, every).dense() for outputs in (a, b)]
        assert maps[0].shape == (8, *bundle.input_size)
        assert np.abs(maps[0] - maps[1]).max() <= MAP_LIMIT
        positive += int((bundle.probabilities(b.logits[0]) >= profile.score).sum())
        for k in every:
            ours, theirs = (find_boxes(m[k][geometry.content], profile.map[k], 1.0, geometry) for m in maps)
            assert len(ours) == len(theirs)
            boxes += len(ours)
            for one in ours:
                assert max(overlap(one, two) for two in theirs) >= IOU_LIMIT
    assert boxes > len(phantom_films)  # there was something to agree on
    assert 0 < positive < 8 * len(phantom_films)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_batch_is_its_films(engines: dict[str, Backend], name: str) -> None:
    batch = np.random.default_rng(0).random((3, 1, 64, 64), np.float32)
    before = batch.copy()
    together = engines[name].run(batch)
    assert together.logits.shape == (3, 8)
    assert np.array_equal(batch, before)
    for at in range(3):
        alone = engines[name].run(batch[at : at + 1])
        np.testing.assert_allclose(together.logits[at], alone.logits[0], atol=LOGIT_LIMIT)
        some = together.fuse(at, [5, 2]).dense()
        np.testing.assert_allclose(some, alone.fuse(0, [5, 2]).dense(), atol=MAP_LIMIT)


@pytest.mark.parametrize("name", VERSIONS)
def test_outputs_outlive_the_next_run(engines: dict[str, Backend], name: str) -> None:
    batches = np.random.default_rng(1).random((2, 1, 1, 64, 64), np.float32)
    first = engines[name].run(batches[0])
    logits, cams = first.logits.copy(), [cam.copy() for cam in first.cams]
    engines[name].run(batches[1])
    assert np.array_equal(first.logits, logits)
    assert all(np.array_equal(a, b) for a, b in zip(first.cams, cams, strict=True))


@pytest.mark.parametrize("name", VERSIONS)
def test_no_map_asked_for(engines: dict[str, Backend], name: str) -> None:
    """A film without a positive finding asks for no map."""
    outputs = engines[name].run(np.zeros((1, 1, 64, 64), np.float32))
    assert outputs.fuse(0, []).dense().shape == (0, 64, 64)
    assert outputs.regions(0, []) == []


@pytest.mark.parametrize("name", VERSIONS)
def test_describe(engines: dict[str, Backend], name: str) -> None:
    assert engines[name].name == name
    facts = {"engine": name, "version": VERSIONS[name], "device": "cpu"}
    assert dict(engines[name].describe()) == facts | ({"precision": "fp32"} if name == "torch" else {})


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.15), ("fp16", 0.02)])
def test_torch_in_16_bits(bundle: Bundle, phantom_films: list, precision: str, limit: float) -> None:
    exact, engine = load_backend("torch", bundle), load_backend("torch", bundle, precision=precision)
    assert engine.describe()["precision"] == precision
    for film in phantom_films[:4]:
        batch = Geometry.fit(film.shape, bundle.input_size).letterbox(film)[None, None]
        a, b = exact.run(batch), engine.run(batch)
        differences = [np.abs(x - y).max() / np.abs(x).max() for x, y in zip(a.cams, b.cams, strict=True)]
        assert all(cam.dtype == np.float32 for cam in b.cams)
        assert 0 < max(differences) < limit


@pytest.mark.parametrize(
    ("name", "precision", "known"),
    [("torch", "int8", "fp32, bf16, fp16"), ("tensorrt", "bf16", "fp32, fp16, int8"), ("onnxruntime", "fp16", "fp32")],
)
def test_a_precision_that_a_backend_lacks(bundle: Bundle, name: str, precision: str, known: str) -> None:
    with pytest.raises(BackendError, match=f"{name}: expected a precision of {known}, got '{precision}'") as caught:
        load_backend(name, bundle, precision=precision)
    assert caught.value.reason == "backend_device"


@pytest.mark.parametrize("name", VERSIONS)
def test_films_as_they_are_prepared(
    engines: dict[str, Backend], bundle: Bundle, phantom_films: list, name: str
) -> None:
    """A list of films as `preprocess` gives them, and an array of another library, are the batch that they make."""
    films = [Geometry.fit(film.shape, bundle.input_size).letterbox(film) for film in phantom_films[:3]]
    batch = np.stack(films)[:, None]
    expected = engines[name].run(batch).logits
    assert np.array_equal(engines[name].run(films).logits, expected)
    assert np.array_equal(engines[name].run(torch.from_numpy(batch)).logits, expected)


@pytest.mark.parametrize("name", VERSIONS)
def test_regions_are_those_of_the_search(
    engines: dict[str, Backend], bundle: Bundle, phantom_films: list, name: str
) -> None:
    """Within each film's content above the thresholds given; else in the whole input, above the default profile's."""
    film = phantom_films[3]
    geometry = Geometry.fit(film.shape, bundle.input_size)
    content, count = geometry.content, len(bundle.classes)
    films = [geometry.letterbox(film)] * 2
    outputs = engines[name].run(films, Search([content, content], [-1e6] * count))
    for located in outputs.regions(1, [3, 0]):
        (region,) = located.regions
        rows, columns = content
        assert region.box == (columns.start, rows.start, geometry.width, geometry.height)
    plain, every = engines[name].run(films), range(count)
    whole = (slice(0, 64), slice(0, 64))
    assert plain.regions(0, every) == locate(plain.fuse(0, every), bundle.profile().map, whole)
    assert any(located.regions for located in plain.regions(0, every))


@pytest.mark.parametrize("name", VERSIONS)
def test_a_map_is_one_of_those_that_are_fused(engines: dict[str, Backend], name: str) -> None:
    batch = np.random.default_rng(2).random((2, 1, 64, 64), np.float32)
    outputs = engines[name].run(batch)
    alone = [outputs.map(1, k) for k in (4, 1)]
    assert np.array_equal(np.stack(alone), outputs.fuse(1, [4, 1]).dense())
    outputs.regions(1, [1, 4])
    assert np.array_equal(outputs.map(1, 4), alone[0])
    assert [cam.shape for cam in outputs.stage_maps(1, 4)] == [(16, 16), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("name", VERSIONS)
def test_device_is_named(bundle: Bundle, name: str) -> None:
    assert load_backend(name, bundle, "cpu").describe()["device"] == "cpu"
    with pytest.raises(BackendError, match=r"(?i)expected a device of cpu.*got 'abacus'") as caught:
        load_backend(name, bundle, "abacus")
    assert caught.value.reason == "backend_device"


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_cuda_that_is_not_there(bundle: Bundle, name: str) -> None:
    if torch.cuda.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match=r"expected a device of cpu.*got 'cuda'") as caught:
        load_backend(name, bundle, "cuda")
    assert caught.value.reason == "backend_device"


def test_unknown_backend(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"expected a backend of onnxruntime.*torch.*got 'tensorflow'") as caught:
        load_backend("tensorflow", bundle)
    assert caught.value.reason == "backend_unknown"


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("onnxruntime", "pip install onnxruntime"),
        ("openvino", "pip install 'msloc-edge[openvino]'"),
        ("torch", "pip install 'msloc-edge[train]'"),
    ],
)
def test_missing_package(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, install: str) -> None:
    monkeypatch.delitem(sys.modules, BACKENDS[name].module, raising=False)
    monkeypatch.setitem(sys.modules, name, None)  # `import name` now raises ImportError
    with pytest.raises(DependencyError) as caught:
        load_backend(name, bundle)
    assert caught.value.reason == "backend_missing"
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).endswith(f"install it with: {install}")


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize("shape", [(1, 1, 64, 63), (1, 3, 64, 64), (64, 64)])
def test_wrong_batch(engines: dict[str, Backend], name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError) as caught:
        engines[name].run(np.zeros(shape, np.float32))
    assert caught.value.reason == "backend_failed"
    assert f"failed on a batch of shape {shape}" in str(caught.value)


INTERRUPTED = """
import signal, sys
from msloc_edge.backends import load_backend
from msloc_edge.bundle import Bundle
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
engines = [load_backend("openvino", Bundle.open(sys.argv[1])) for _ in range(3)]
del engines[1], engines[1]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_signals_survive_openvino_engines_that_come_and_go(tiny_bundle: Path) -> None:
    """In a process of its own: OpenVINO's Cores, freed out of order, leave a signal stack that is unmapped."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, tiny_bundle], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def changed(tiny_bundle: Path, out: Path, file: str, content: bytes | None) -> Bundle:
    """A copy of the bundle with other content in a file, or without the file, and hashes that fit."""
    shutil.copytree(tiny_bundle, out)
    manifest = json.loads((out / MANIFEST).read_text())
    if content is None:
        (out / file).unlink()
        del manifest["files"][file]
    else:
        (out / file).write_bytes(content)
        manifest["files"][file] = hashlib.sha256(content).hexdigest()
        manifest["thresholds_for"] = manifest["files"][ONNX]
    (out / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(out)


@pytest.mark.parametrize("name", VERSIONS)
def test_what_was_verified_is_what_runs(
    tiny_bundle: Path, tmp_path: Path, engines: dict[str, Backend], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Files that are swapped once they are read change nothing; swapped before, they are refused."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    bundle, batch = Bundle.open(tmp_path / "bundle"), np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
    read = Bundle.read

    def swapping(bundle: Bundle, file: str) -> bytes:
        data = read(bundle, file)
        (bundle.path / file).write_bytes(b"another network")
        return data

    monkeypatch.setattr(Bundle, "read", swapping)
    engine = load_backend(name, bundle)
    assert np.array_equal(engine.run(batch).logits, engines[name].run(batch).logits)
    engine.close()
    with pytest.raises(BundleError) as caught:
        load_backend(name, bundle)
    assert caught.value.reason == "bundle_hash"


def network(bundle: Bundle, image: str = "image", side: int = 64, **outputs: Any) -> bytes:
    """A network whose outputs are the film's mean plus constants: those of the bundle, but for `outputs`."""
    shapes = {"logits": (1, 8)} | {f"cams_{s}": (1, 8, at.height, at.width) for s, at in enumerate(bundle.stages, 1)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | outputs
    wanted = {name: array for name, array in arrays.items() if array is not None}
    nodes = [helper.make_node("ReduceMean", [image], ["mean"], axes=[1, 2, 3])]
    for name, array in wanted.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        nodes += [
            helper.make_node("Cast", ["mean"], [f"{name}_cast"], to=kind),
            helper.make_node("Reshape", [f"{name}_cast", "flat" if array.ndim == 2 else "whole"], [f"{name}_mean"]),
            helper.make_node("Add", [f"{name}_mean", f"{name}_constant"], [name]),
        ]
    constants = [numpy_helper.from_array(array, f"{name}_constant") for name, array in wanted.items()]
    flat, whole = (numpy_helper.from_array(np.array([-1, *[1] * n]), name) for n, name in ((1, "flat"), (3, "whole")))
    given = helper.make_tensor_value_info(image, TensorProto.FLOAT, ["B", 1, side, side])
    gives = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in wanted.items()
    ]
    graph = helper.make_graph(nodes, "g", [given], gives, [flat, whole, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


NAN = np.full((1, 8, 4, 4), np.nan, np.float32)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        (
            {"logits": None},
            "bundle_damaged",
            "expected a network with the outputs logits, cams_1, cams_2, cams_3, cams_4",
        ),
        ({"cams_4": None, "l2": NAN}, "bundle_damaged", "got logits, cams_1, cams_2, cams_3, l2"),
        ({"more": NAN}, "bundle_damaged", "the outputs logits"),
        ({"image": "film"}, "bundle_damaged", r"one input image \[B, 1, 64, 64\], got film"),
        ({"side": 32}, "bundle_damaged", r"one input image \[B, 1, 64, 64\], got image"),
        ({"logits": np.zeros((1, 9), np.float32)}, "bundle_damaged", r"logits \[1, 8\] float32, got \[1, 9\] float32"),
        (
            {"cams_3": np.zeros((1, 8, 4, 5), np.float32)},
            "bundle_damaged",
            r"cams_3 \[1, 8, 4, 4\] float32, got \[1, 8, 4, 5\]",
        ),
        ({"cams_3": np.zeros((1, 8, 4, 4), np.float64)}, "bundle_damaged", r"cams_3 .* float64"),
        ({"logits": np.full((1, 8), np.inf, np.float32)}, "backend_failed", "expected finite logits"),
        ({"cams_3": NAN}, "backend_failed", "expected finite cams_3"),
    ],
)
def test_a_network_that_is_not_the_manifests(
    tiny_bundle: Path, tmp_path: Path, name: str, change: dict[str, Any], reason: str, says: str
) -> None:
    bundle = changed(tiny_bundle, tmp_path / "bundle", ONNX, network(Bundle.open(tiny_bundle), **change))
    with pytest.raises(MslocError, match=says) as caught:
        load_backend(name, bundle)
    assert caught.value.reason == reason


def test_a_made_network_is_taken(tiny_bundle: Path, tmp_path: Path) -> None:
    """So that those above are refused for what they change."""
    bundle = changed(tiny_bundle, tmp_path / "bundle", ONNX, network(Bundle.open(tiny_bundle)))
    for name in ("onnxruntime", "openvino"):
        batch = np.full((2, 1, 64, 64), 0.5, np.float32)
        outputs = load_backend(name, bundle).run(batch)
        assert outputs.logits.shape == (2, 8)
        np.testing.assert_allclose(outputs.logits, 0.5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "densenet121"},
        {"size": 128},
        {"stages": "last"},
        {"pool": "none"},
        {"classes": ["Mass"]},
    ],
)
def test_an_architecture_that_is_not_the_manifests(tiny_bundle: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / MANIFEST).read_text())
    manifest["architecture"] |= change
    (tmp_path / "bundle" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as caught:
        load_backend("torch", Bundle.open(tmp_path / "bundle"))
    assert caught.value.reason == "bundle_damaged"
    assert "\n" not in caught.value.message


def test_maps_that_are_not_finite_are_no_normal_film(bundle: Bundle) -> None:
    cams = [np.zeros((1, 8, stage.height, stage.width), np.float32) for stage in bundle.stages]
    cams[2][0, 5, 1, 1] = np.nan
    outputs = Outputs(bundle, np.zeros((1, 8), np.float32), tuple(cams))
    assert len(outputs.regions(0, [4])) == 1
    with pytest.raises(BackendError, match="expected finite maps") as caught:
        outputs.regions(0, [4, 5])
    assert caught.value.reason == "backend_failed"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("content", [b"", b"\x08\x08"])
def test_a_graph_that_cannot_be_loaded(tiny_bundle: Path, tmp_path: Path, name: str, content: bytes) -> None:
    bundle = changed(tiny_bundle, tmp_path / "bundle", ONNX, content)
    with pytest.raises(BackendError, match=f"{name} cannot load") as caught:
        load_backend(name, bundle)
    assert caught.value.reason == "backend_failed"


def test_weights_are_optional_on_a_device(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = changed(tiny_bundle, tmp_path / "bundle", WEIGHTS, None)
    batch = np.zeros((1, 1, 64, 64), np.float32)
    assert load_backend("onnxruntime", bundle).run(batch).logits.shape == (1, 8)
    assert load_backend("torch", bundle).run(batch).logits.shape == (1, 8)  # by its graph: test_torch_graph.py
