"""Opening a bundle: what is whole opens, and every kind of damage is refused before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from msloc_edge import Bundle
from msloc_edge.bundle import bundle
from msloc_edge.errors import BundleError

MakeBundle = Callable[..., Path]


def refused(model: str | Path) -> tuple[str, str]:
    with pytest.raises(BundleError) as error:
        Bundle.open(model)
    assert "\n" not in error.value.message
    assert str(model) in error.value.message
    return error.value.reason, error.value.message


def manifest_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return record


def test_open_by_folder(tiny_bundle: Path) -> None:
    opened, manifest = Bundle.open(tiny_bundle), manifest_of(tiny_bundle)
    assert opened.path == tiny_bundle
    assert (opened.name, opened.version) == (manifest["name"], manifest["version"])
    assert list(opened.classes) == manifest["classes"]
    assert opened.input_size == (manifest["input"]["height"], manifest["input"]["width"])
    assert [(stage.height, stage.width, stage.stride) for stage in opened.stages] == [
        (entry["height"], entry["width"], entry["stride"]) for entry in manifest["stages"]
    ]
    assert opened.relevance.dtype == np.float32
    assert opened.relevance == pytest.approx(np.array(manifest["relevance"]), abs=1e-7)
    assert opened.bias == pytest.approx(np.array(manifest["bias"]), abs=1e-6)
    assert opened.profile() == opened.profile(manifest["default_profile"])
    assert list(opened.profile("youden").score) == manifest["profiles"]["youden"]["score"]
    assert (opened.onnx, opened.weights) == (tiny_bundle / "model.onnx", tiny_bundle / "weights.safetensors")
    assert Bundle.open(str(tiny_bundle)).sha256 == opened.sha256


def test_the_hash_is_that_of_the_manifest(tiny_bundle: Path) -> None:
    digest = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    assert Bundle.open(tiny_bundle).id.sha256 == digest


def test_open_a_shipped_model_by_name(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "some-model")
    (tmp_path / "no-bundle").mkdir()
    assert bundle.shipped_models() == ("some-model",)
    assert Bundle.open("some-model").path == tmp_path / "some-model"
    assert "(some-model)" in refused("other-model")[1]


def test_open_an_installed_model_by_name(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSLOC_MODELS", str(tmp_path))
    shutil.copytree(tiny_bundle, tmp_path / "my-model")
    shutil.copytree(tiny_bundle, tmp_path / ".msloc-half.tmp")
    assert bundle.installed_models() == ("my-model",)
    assert Bundle.open("my-model").path == tmp_path / "my-model"
    for name in ("other-model", ".msloc-half.tmp", "../my-model"):
        assert "installed ones (my-model)" in refused(name)[1]


def test_a_shipped_model_goes_before_an_installed_one(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSLOC_MODELS", str(tmp_path))
    shutil.copytree(tiny_bundle, tmp_path / "cxr-edge")
    assert Bundle.open("cxr-edge").path == bundle.SHIPPED / "cxr-edge"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"MSLOC_MODELS": "/models", "XDG_DATA_HOME": "/data", "HOME": "/me"}, "/models"),
        ({"XDG_DATA_HOME": "/data", "HOME": "/me"}, "/data/msloc-edge/models"),
        ({"MSLOC_MODELS": "", "XDG_DATA_HOME": "", "HOME": "/me"}, "/me/.local/share/msloc-edge/models"),
        ({"HOME": "/me"}, "/me/.local/share/msloc-edge/models"),
    ],
)
def test_where_models_are(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    for name in ("MSLOC_MODELS", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bundle.store_folder() == Path(folder)


def test_a_folder_goes_before_a_name(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "SHIPPED", tiny_bundle.parent)
    shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name)
    monkeypatch.chdir(tmp_path)
    assert Bundle.open(tiny_bundle.name).path == Path(tiny_bundle.name)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none")[0] == "bundle_missing"


def test_a_file_instead_of_a_folder(tiny_bundle: Path) -> None:
    assert refused(tiny_bundle / "model.onnx")[0] == "bundle_missing"


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    assert refused(tmp_path)[0] == "bundle_file_missing"


@pytest.mark.parametrize("text", ["", "not JSON", "[" * 9999, '{"schema": ', "[]", "null", "{}", "\xff"])
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    assert refused(tmp_path)[0] == "bundle_damaged"


@pytest.mark.parametrize("schema", ["msloc-edge/bundle/2", "other", 1, None, ["msloc-edge/bundle/1"]])
def test_another_schema(tiny_bundle: Path, tmp_path: Path, schema: Any) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest_of(tiny_bundle) | {"schema": schema}))
    reason, message = refused(tmp_path)
    assert reason == "bundle_schema"
    assert repr(schema) in message


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "model_card.md"])
def test_a_missing_file(bundle_with: MakeBundle, name: str) -> None:
    folder = bundle_with()
    (folder / name).unlink()
    reason, message = refused(folder)
    assert reason == "bundle_file_missing"
    assert name in message


def test_a_file_that_cannot_be_read(bundle_with: MakeBundle) -> None:
    folder = bundle_with()
    (folder / "model_card.md").unlink()
    (folder / "model_card.md").symlink_to("/proc/self/mem")  # opens, and its first byte is an I/O error: as a bad disk
    reason, message = refused(folder)
    assert reason == "bundle_file_missing"
    assert "cannot be read" in message


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "model_card.md"])
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_one_changed_byte(bundle_with: MakeBundle, name: str, where: float) -> None:
    folder = bundle_with()
    data = bytearray((folder / name).read_bytes())
    at = where if where == -1 else int(where * len(data))
    data[int(at)] ^= 1
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    reason, message = refused(folder)
    assert reason == "bundle_hash"
    assert name in message


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_the_manifest_does_not_list(bundle_with: MakeBundle, kind: str) -> None:
    folder = bundle_with()
    (folder / ".DS_Store").write_bytes(b"of a desktop")
    Bundle.open(folder)
    extra = folder / "w.bin"
    if kind == "file":
        extra.write_bytes(b"weights")
    elif kind == "folder":
        extra.mkdir()
    else:
        extra.symlink_to("nowhere")
    reason, message = refused(folder)
    assert reason == "bundle_hash"
    assert "w.bin: is not listed in manifest.json" in message


def test_a_file_that_changes_later_is_not_read(bundle_with: MakeBundle) -> None:
    folder = bundle_with()
    opened = Bundle.open(folder)
    assert opened.read("model_card.md") == (folder / "model_card.md").read_bytes()
    (folder / "model_card.md").unlink()
    with pytest.raises(BundleError) as gone:
        opened.read("model_card.md")
    (folder / "model_card.md").write_bytes(b"another")
    with pytest.raises(BundleError) as swapped:
        opened.read("model_card.md")
    assert (gone.value.reason, swapped.value.reason) == ("bundle_file_missing", "bundle_hash")


def test_a_graph_that_needs_more_than_its_file(bundle_with: MakeBundle, tiny_bundle: Path) -> None:
    network = onnx.load(tiny_bundle / "model.onnx")
    tensor = network.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.safetensors")  # a file that is listed
    model = network.SerializeToString()
    digest = hashlib.sha256(model).hexdigest()
    folder = bundle_with(files=manifest_of(tiny_bundle)["files"] | {"model.onnx": digest}, thresholds_for=digest)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").write_bytes(model)
    reason, message = refused(folder)
    assert reason == "bundle_damaged"
    assert "got weights in another file; export it again" in message


def test_thresholds_of_another_model(bundle_with: MakeBundle) -> None:
    reason, message = refused(bundle_with(thresholds_for="0" * 64))
    assert reason == "bundle_hash"
    assert "thresholds" in message


ENTRIES = ("name", "version", "classes", "input", "stages", "relevance", "bias", "temperature", "profiles")


@pytest.mark.parametrize("entry", [*ENTRIES, "default_profile", "files", "thresholds_for"])
def test_a_missing_entry_is_named(bundle_with: MakeBundle, entry: str) -> None:
    reason, message = refused(bundle_with(**{entry: None}))
    assert reason == "bundle_damaged"
    assert f"'{entry}'" in message


@pytest.mark.parametrize("entry", ENTRIES[2:])
@pytest.mark.parametrize("value", [{}, [], "text", 0, False, [[]], {"a": {}}])
def test_an_entry_of_another_kind(bundle_with: MakeBundle, entry: str, value: Any) -> None:
    assert refused(bundle_with(**{entry: value}))[0] == "bundle_damaged"


def change(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The top-level entry of "a.b.0" with the value set inside it."""
    top, *inner = path.split(".")
    place: Any = {top: manifest[top]}
    keys: list[Any] = [int(key) if key.isdigit() else key for key in (top, *inner)]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return {top: value if not inner else manifest[top]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.5),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("bias.0", float("nan")),
        ("bias.0", float("inf")),
        ("bias.0", "one"),
        ("bias", [0.0]),
        ("relevance.0.0", float("nan")),
        ("relevance.0.0", 7.0),
        ("relevance.0", [1.0]),
        ("relevance.0", [-0.5, 0.5, 0.5, 0.5]),
        ("relevance", [[0.25] * 4]),
        ("profiles.youden.score.0", float("inf")),
        ("profiles.youden.map.0", float("nan")),
        ("profiles.youden.map", [0.5]),
        ("profiles.youden", {"score": []}),
        ("profiles.youden.film", -0.1),
        ("profiles.youden.film", 1.1),
        ("profiles.youden.film", float("nan")),
        ("profiles.youden.film", "high"),
        ("profiles.youden.rates", [0.1]),
        ("abnormal", {"weights": [1.0] * 8}),
        ("abnormal", {"weights": [1.0] * 7, "bias": 0}),
        ("abnormal", {"weights": [*[1.0] * 7, -0.1], "bias": 0}),
        ("abnormal", {"weights": [1.0] * 8, "bias": float("inf")}),
        ("abnormal", [1.0]),
        ("regions", {"min_area": 0}),
        ("regions", {"min_area": float("inf")}),
        ("regions", {"min_share": 1.5}),
        ("regions", {"min_share": -0.5}),
        ("regions", {"largest": 1}),
        ("regions", [16]),
        ("default_profile", "none of them"),
        ("classes", []),
        ("classes.1", "Atelectasis"),
        ("classes.8", "one more"),
        ("input.height", 0),
        ("input.height", -64),
        ("input.width", "wide"),
        ("input.width", float("inf")),
        ("stages", []),
        ("stages.0.height", None),
        ("files", {}),
        ("files.model.onnx", 5),
        ("thresholds_for", 5),
    ],
)
def test_a_value_that_cannot_be(bundle_with: MakeBundle, tiny_bundle: Path, path: str, value: Any) -> None:
    manifest = manifest_of(tiny_bundle)
    assert manifest["classes"][0] == "Atelectasis"
    assert (len(manifest["classes"]), len(manifest["stages"])) == (8, 4)
    if path == "classes.8":
        manifest["classes"].append("")
    if path in ("abnormal", "regions"):
        entries = {path: value}
    elif path == "files.model.onnx":
        entries = {"files": manifest["files"] | {"model.onnx": value}}
    else:
        manifest["profiles"]["youden"].setdefault("film", None)
        entries = {"abnormal": {"weights": [1.0] * 8, "bias": 0}} | change(manifest, path, value)
    assert refused(bundle_with(**entries))[0] == "bundle_damaged"


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "./model.onnx"])
def test_files_outside_the_folder(bundle_with: MakeBundle, tiny_bundle: Path, name: str) -> None:
    files = manifest_of(tiny_bundle)["files"]
    outside = tiny_bundle / name
    digest = hashlib.sha256(outside.read_bytes()).hexdigest() if outside.is_file() else "0" * 64
    assert refused(bundle_with(files=files | {name: digest}))[0] == "bundle_damaged"


@pytest.mark.parametrize("name", ["..", "", "a\0b"])
def test_files_that_are_none(bundle_with: MakeBundle, tiny_bundle: Path, name: str) -> None:
    files = manifest_of(tiny_bundle)["files"]
    assert refused(bundle_with(files=files | {name: "0" * 64}))[0] == "bundle_file_missing"


def test_an_unknown_profile(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError) as error:
        Bundle.open(tiny_bundle).profile("strict")
    assert error.value.reason == "profile_unknown"
    assert error.value.message == ("tiny: expected a profile of youden, sensitivity-90, specificity-95, got 'strict'")


def test_probabilities_by_hand(bundle_with: MakeBundle) -> None:
    opened = Bundle.open(bundle_with(temperature=2.0))
    logits = np.array([[0, 2, -2], [2 * np.log(3), -2 * np.log(3), 1000]], np.float32)
    odds = np.e / (1 + np.e)
    assert opened.probabilities(logits) == pytest.approx(np.array([[0.5, odds, 1 - odds], [0.75, 0.25, 1]]), abs=1e-7)


def test_a_bundle_of_before_has_no_gate(bundle_with: MakeBundle) -> None:
    plain = {"score": [0.5] * 8, "map": [0.0] * 8}
    opened = Bundle.open(bundle_with(profiles={"youden": plain}, default_profile="youden", abnormal=None, regions=None))
    assert opened.abnormal is None
    assert opened.abnormal_probability(np.zeros((2, 8), np.float32)) is None
    assert opened.profile().film is None
    assert opened.profile().rates == {}
    assert (opened.regions.min_area, opened.regions.min_share) == (16, 0)


def test_a_gate_by_hand(bundle_with: MakeBundle) -> None:
    profile = {"score": [0.5] * 8, "map": [0.0] * 8, "film": 0.75, "rates": {"films": 3}}
    opened = Bundle.open(
        bundle_with(
            temperature=2.0,
            profiles={"strict": profile},
            default_profile="strict",
            abnormal={"weights": [1, 2, 0, 0, 0, 0, 0, 0], "bias": -np.log(2)},
            regions={"min_area": 40, "min_share": 0.25},
        )
    )
    # softplus(0 / 2) = log 2 and softplus(2 log 3 / 2) = log 4: exp(-log 2 + log 2 + 2 log 4) = 16, and 16 / 17
    logits = np.array([[0, 2 * np.log(3), 9, 9, 9, 9, 9, 9], [-1000] * 8], np.float32)
    assert opened.abnormal_probability(logits) == pytest.approx(np.array([16 / 17, 1 / 3]), abs=1e-6)
    assert opened.profile().film == 0.75
    assert opened.profile().rates == {"films": 3}
    assert (opened.regions.min_area, opened.regions.min_share) == (40, 0.25)


def test_a_film_threshold_needs_the_numbers_of_abnormal(bundle_with: MakeBundle) -> None:
    profile = {"score": [0.5] * 8, "map": [0.0] * 8, "film": 0.75}
    reason, message = refused(bundle_with(profiles={"strict": profile}, default_profile="strict", abnormal=None))
    assert reason == "bundle_damaged"
    assert "'abnormal'" in message
