"""Export: what a bundle holds, the graph that devices run, the parity gate, and folders that are left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file, save_file

from msloc_edge.backends import load_backend
from msloc_edge.bundle import CARD, MANIFEST, ONNX, WEIGHTS, Bundle
from msloc_edge.errors import BundleError, ExportError, OutputError
from msloc_edge.export import bundle as export_module
from msloc_edge.export import check_parity, export_bundle
from msloc_edge.export.bundle import load_network
from msloc_edge.export.graphs import check_graph
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.train.phantom import FINDINGS
from msloc_edge.types import Box

MANIFEST_KEYS = {
    *("schema", "name", "version", "intended_use", "classes", "input", "stages", "relevance", "bias", "pool"),
    *("temperature", "profiles", "default_profile", "architecture", "training", "opset", "files", "thresholds_for"),
    *("calibration", "golden"),
}
LOGIT_LIMIT, MAP_LIMIT = 1e-4, 1e-3


def model_of(bundle: Path) -> onnx.ModelProto:
    return onnx.load(bundle / ONNX)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tampered(bundle: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Bundle:
    """A copy of a bundle whose PyTorch weights are changed and whose hashes fit again."""
    shutil.copytree(bundle, out)
    # In 32 bits: what is changed may be less than 16 bits can tell.
    weights = {name: tensor.float() for name, tensor in load_file(out / WEIGHTS).items()}
    change(weights)
    save_file(weights, out / WEIGHTS)
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["files"][WEIGHTS] = hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()
    (out / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(out)


def test_manifest(tiny_bundle: Path, tiny_state: dict[str, Any]) -> None:
    manifest = json.loads((tiny_bundle / MANIFEST).read_text())
    assert set(manifest) == MANIFEST_KEYS
    assert manifest["schema"] == "msloc-edge/bundle/1"
    assert (manifest["name"], manifest["version"]) == ("tiny", "0.1")
    assert manifest["classes"] == list(FINDINGS)
    assert manifest["input"] == {"height": 64, "width": 64, "channels": 1, "dtype": "float32", "range": [0, 1]}
    assert manifest["stages"] == [{"height": 64 // s, "width": 64 // s, "stride": s} for s in (4, 8, 16, 32)]
    relevance = torch.softmax(tiny_state["model"]["head.theta"].double(), dim=1)
    np.testing.assert_allclose(manifest["relevance"], relevance, atol=1e-6)
    np.testing.assert_allclose(manifest["bias"], tiny_state["model"]["head.bias"], atol=1e-7)
    for key in ("temperature", "profiles"):
        assert manifest[key] == tiny_state[key]
    assert manifest["training"]["config"] == tiny_state["config"]
    assert "not for diagnosis" in manifest["intended_use"]


def test_every_file_is_bound_by_its_hash(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / MANIFEST).read_text())
    files = contents(tiny_bundle)
    assert set(files) == {MANIFEST, ONNX, WEIGHTS, CARD}
    del files[MANIFEST]
    assert manifest["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert manifest["thresholds_for"] == manifest["files"][ONNX]


def test_card_says_what_the_manifest_says(tiny_bundle: Path) -> None:
    card = (tiny_bundle / CARD).read_text()
    assert card.startswith("# tiny 0.1\n")
    assert all(f"| {name} |" in card for name in FINDINGS)
    assert "**Training films**: 16 of phantom; simulated lesions in 0% of the normal real ones; no weights to" in card
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {1 + 5 + 4}


def test_graph_contract(tiny_bundle: Path) -> None:
    model = model_of(tiny_bundle)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version >= 18) for entry in model.opset_import] == [("", True)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    (image,) = model.graph.input
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    batch, *rest = shape_of(image)
    assert isinstance(batch, str)
    assert rest == [1, 64, 64]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert {value.name: shape_of(value) for value in inferred.graph.output} == {
        "logits": [batch, 8],
        **{f"cams_{stage}": [batch, 8, side, side] for stage, side in enumerate((16, 8, 4, 2), start=1)},
    }
    assert [value.name for value in model.graph.output] == ["logits", "cams_1", "cams_2", "cams_3", "cams_4"]


def test_graph_names_nothing_of_this_machine(tiny_bundle: Path) -> None:
    content = (tiny_bundle / ONNX).read_bytes()
    for trace in (str(Path.home()), str(Path(__file__).parents[2]), "site-packages", ".py"):
        assert trace.encode() not in content, trace


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_runs_and_normalises_itself(tiny_bundle: Path, tiny_state: dict[str, Any], batch: int) -> None:
    session = ort.InferenceSession(str(tiny_bundle / ONNX), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(batch).random((batch, 1, 64, 64), np.float32)
    logits, *cams = session.run(None, {"image": images})
    net = load_network(tiny_state)
    with torch.no_grad():  # the backbone alone, on an image that was normalised outside
        expected, expected_cams = net.head(net.backbone((torch.from_numpy(images) - 0.449) / 0.226))
    assert logits.shape == (batch, 8)
    assert np.abs(logits - expected.numpy()).max() < LOGIT_LIMIT
    assert [cam.shape for cam in cams] == [(batch, 8, side, side) for side in (16, 8, 4, 2)]
    for cam, other in zip(cams, expected_cams, strict=True):
        assert np.abs(cam - other.numpy()).max() < MAP_LIMIT


def test_logits_are_explained_by_the_bundle_alone(tiny_bundle: Path) -> None:
    """A device that has the ONNX file and the manifest can check mean(M_k) = z_k - b_k."""
    bundle = Bundle.open(tiny_bundle)
    session = ort.InferenceSession(str(bundle.onnx), providers=["CPUExecutionProvider"])
    logits, *cams = session.run(None, {"image": np.random.default_rng(0).random((2, 1, 64, 64), np.float32)})
    means = np.stack([cam.mean(axis=(2, 3)) for cam in cams], axis=2)
    np.testing.assert_allclose(bundle.bias + (bundle.relevance * means).sum(axis=2), logits, atol=1e-5)


def test_export_is_deterministic(
    tiny_bundle: Path, tiny_state: dict[str, Any], phantom_films: list, tmp_path: Path
) -> None:
    export_bundle(tiny_state, tmp_path / "again", phantom_films[:1], name="tiny")
    assert contents(tmp_path / "again") == contents(tiny_bundle)


def test_parity_over_phantoms(tiny_bundle: Path, phantom_films: list) -> None:
    parity = check_parity(Bundle.open(tiny_bundle), phantom_films)
    assert parity.films == len(phantom_films)
    assert parity.boxes >= len(phantom_films)
    assert 0 < parity.logit <= LOGIT_LIMIT
    assert 0 < parity.map <= MAP_LIMIT
    assert 0.99 <= parity.iou <= 1


@pytest.mark.parametrize(("backbone", "pool", "stages"), [("densenet121", "pcam", "all"), ("edge", "lse", "last")])
def test_other_networks(
    make_state: Callable[..., dict[str, Any]],
    phantom_films: list,
    tmp_path: Path,
    backbone: str,
    pool: str,
    stages: str,
) -> None:
    state = make_state(backbone=backbone, pool=pool, stages=stages)
    bundle, parity = export_bundle(state, tmp_path / "bundle", phantom_films, name=backbone)
    assert parity.boxes > 0
    strides = (4, 8, 16, 32) if stages == "all" else (32,)
    assert [stage.stride for stage in bundle.stages] == list(strides)
    assert bundle.relevance.shape == (8, len(strides))
    assert bundle.manifest["pool"] == pool
    names = [value.name for value in model_of(bundle.path).graph.output]
    assert names == ["logits", *(f"cams_{n}" for n in range(1, len(strides) + 1))]
    assert f"{backbone}, 64 x 64 px, {stages} stages, {pool} pooling" in (bundle.path / CARD).read_text()


def shift_bias(weights: dict[str, torch.Tensor]) -> None:
    weights["head.bias"][3] += 0.01


def shift_map(weights: dict[str, torch.Tensor]) -> None:
    """The finest map of class 3, one part in a hundred stronger."""
    weights["head.classifiers.0.weight"][3] *= 1.01


def not_a_number(weights: dict[str, torch.Tensor]) -> None:
    weights["head.classifiers.0.weight"][3] = float("nan")


@pytest.mark.parametrize("change", [shift_bias, shift_map, not_a_number])
def test_parity_says_where_it_fails(
    tiny_bundle: Path, phantom_films: list, tmp_path: Path, change: Callable[..., None]
) -> None:
    bundle = tampered(tiny_bundle, tmp_path / "tampered", change)
    with pytest.raises(ExportError) as caught:
        check_parity(bundle, phantom_films)
    assert caught.value.reason == "parity"
    assert f"torch and onnxruntime disagree on film 0, {FINDINGS[3]}: logit by" in str(caught.value)


def test_parity_names_the_film(tiny_bundle: Path, phantom_films: list, tmp_path: Path) -> None:
    """Class 3 is scaled by so little that the film with the faintest map of it still passes, and the strongest not."""
    bundle = Bundle.open(tiny_bundle)
    engine, strength = load_backend("torch", bundle), []
    for film in phantom_films:
        outputs = engine.run(Geometry.fit(film.shape, bundle.input_size).letterbox(film)[None, None])
        localization_map = outputs.fuse(0, [3]).dense()
        logit = abs(float(outputs.logits[0, 3] - bundle.bias[3]))
        strength.append(max(float(np.abs(localization_map).max()) / MAP_LIMIT, logit / LOGIT_LIMIT))
    faint, strong = int(np.argmin(strength)), int(np.argmax(strength))
    factor = 1 + 1 / np.sqrt(strength[faint] * strength[strong])

    def scale(weights: dict[str, torch.Tensor]) -> None:
        for stage in range(4):
            weights[f"head.classifiers.{stage}.weight"][3] *= factor

    changed = tampered(tiny_bundle, tmp_path / "tampered", scale)
    films = [phantom_films[faint], phantom_films[strong]]
    assert check_parity(changed, films[:1]).films == 1
    with pytest.raises(ExportError, match=f"on film 1, {FINDINGS[3]}: logit by"):
        check_parity(changed, films)


def test_a_tampered_bundle_without_new_hashes_is_refused_first(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    content = bytearray((copy / ONNX).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / ONNX).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert caught.value.reason == "bundle_hash"


def box(x: float, y: float, w: float, h: float) -> Box:
    return Box(x, y, w, h, 1.0)


def test_unfinished_runs_are_not_exported(tiny_state: dict[str, Any], tmp_path: Path) -> None:
    state = {key: value for key, value in tiny_state.items() if key != "temperature"}
    with pytest.raises(ExportError) as caught:
        export_bundle(state, tmp_path / "bundle", [], "tiny")
    assert caught.value.reason == "not_calibrated"
    assert list(tmp_path.iterdir()) == []


def occupy_with_a_file(out: Path) -> None:
    out.write_text("mine")


def occupy_with_files(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("mine")


def occupy_with_another_manifest(out: Path) -> None:
    """Web pages and container images have a manifest.json too."""
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    (out / "index.html").write_text("mine")


@pytest.mark.parametrize("occupy", [occupy_with_a_file, occupy_with_files, occupy_with_another_manifest])
def test_other_files_are_left_alone(tiny_state: dict[str, Any], tmp_path: Path, occupy: Callable[..., None]) -> None:
    out = tmp_path / "out"
    occupy(out)
    before = contents(out) if out.is_dir() else out.read_bytes()
    with pytest.raises(OutputError) as caught:
        export_bundle(tiny_state, out, [], "tiny")
    assert caught.value.reason == "out_occupied"
    assert str(out) in str(caught.value)
    assert (contents(out) if out.is_dir() else out.read_bytes()) == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ExportError("parity", "no")])
def test_an_export_that_fails_leaves_what_was_there(
    tiny_bundle: Path, tiny_state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def stop(*_: object) -> None:
        raise error

    earlier = shutil.copytree(tiny_bundle, tmp_path / "earlier")
    monkeypatch.setattr(export_module, "check_parity", stop)
    # What is written is of no matter here: the earlier graph instead of three seconds of exporting.
    monkeypatch.setattr(export_module, "to_onnx", lambda net: (tiny_bundle / ONNX).read_bytes())
    for out in (tmp_path / "new", earlier):
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            export_bundle(tiny_state, out, [], "tiny")
    assert list(tmp_path.iterdir()) == [earlier]
    assert contents(earlier) == contents(tiny_bundle)


def test_a_bundle_is_replaced(
    tiny_bundle: Path, tiny_state: dict[str, Any], phantom_films: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "to_onnx", lambda net: (tiny_bundle / ONNX).read_bytes())
    out = shutil.copytree(tiny_bundle, tmp_path / "deep" / "out")
    (out / "manifest.sig").write_text("of the earlier one")
    bundle, _ = export_bundle(tiny_state, out, phantom_films[:1], name="newer", version="2")
    assert (bundle.path, bundle.name, bundle.version) == (out, "newer", "2")
    assert set(contents(out)) == {MANIFEST, ONNX, WEIGHTS, CARD}
    assert list(out.parent.iterdir()) == [out]


def test_foreign_operators_are_refused(tiny_bundle: Path) -> None:
    outputs = ["logits", "cams_1", "cams_2", "cams_3", "cams_4"]
    model = model_of(tiny_bundle)
    assert check_graph(model, outputs) == (tiny_bundle / ONNX).read_bytes()
    with pytest.raises(ExportError, match="expected the input image and the outputs"):
        check_graph(model, outputs[:2])
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ExportError, match="standard operators only"):
        check_graph(model, outputs)
    broken = model_of(tiny_bundle)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="not valid") as caught:
        check_graph(broken, outputs)
    assert caught.value.reason == "parity"
