"""Networks of other people as bundles: exact class maps, the same boxes in every engine, refusals in one sentence."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from msloc_edge.backends import load_backend
from msloc_edge.bundle import Bundle
from msloc_edge.errors import ExportError, MslocError, OutputError
from msloc_edge.export.class_maps import Normalisation, wrap_graph
from msloc_edge.export.parity import check_parity
from msloc_edge.export.wrap import Original, read_onnx, trace_classifier, wrap_bundle, write_draft
from msloc_edge.train.phantom import generate

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSES = ("big heart", "water")
SIZE = 64
ZOO = Path(onnx.backend.test.__path__[0]) / "data" / "light"
"""Real structures of the ONNX model zoo, written by Caffe2's exporter for opset 9 and batches of one film."""


@pytest.fixture(scope="module", autouse=True)
def factories() -> Iterator[None]:
    """networks.py can be imported, as a user's module in the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield
    sys.modules.pop("networks", None)


@cache
def traced(name: str) -> Original:
    """A classifier of networks.py, traced once: that takes seconds."""
    return trace_classifier(f"networks:{name}", None, SIZE)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Drafts of the classifiers in networks.py, each made once."""
    made: dict[str, Bundle] = {}

    def make(name: str) -> Bundle:
        if name not in made:
            normalisation = Normalisation() if name == "plain" else IMAGENET
            folder = tmp_path_factory.mktemp(name) / "draft"
            made[name] = write_draft(traced(name), folder, CLASSES, normalisation, name=name)
        return made[name]

    return make


def calibrated(draft: Bundle, films: np.ndarray) -> dict[str, Any]:
    """An operating point whose map thresholds leave half of the films a region."""
    found = load_backend("onnxruntime", draft).run(films)
    classes = range(len(draft.classes))
    heights = np.array([found.fuse(image, classes).dense().max(axis=(1, 2)) for image in range(len(films))])
    profile = {"score": [0.4] * len(classes), "map": np.median(heights * 0.9, axis=0).astype(float).tolist()}
    return {
        "temperature": 1.5,
        "profiles": {"youden": profile},
        "default_profile": "youden",
        "calibration": {"scores": "6 films", "maps": dict.fromkeys(draft.classes, "half of the height")},
        "validation": {"auroc": dict.fromkeys(draft.classes, 0.7), "map_iou": {}},
    }


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.stack([generate(seed, SIZE).display() for seed in range(6)])[:, None]


@pytest.mark.parametrize("name", ["densenet", "resnet", "chexnet", "plain"])
def test_a_classifier_becomes_a_bundle(
    draft: Callable[[str], Bundle], films: np.ndarray, tmp_path: Path, name: str
) -> None:
    found = calibrated(draft(name), films)
    bundle, parity = wrap_bundle(draft(name), found, tmp_path / "bundle", list(films[:, 0]))  # torch and onnxruntime
    other = check_parity(bundle, list(films[:, 0]), "torch", "openvino")
    assert parity.boxes == other.boxes > 0
    assert min(parity.iou, other.iou) >= 0.99
    assert (bundle.name, bundle.classes, bundle.input_size) == (name, CLASSES, (SIZE, SIZE))
    assert set(bundle.manifest["files"]) == {"model.onnx", "model_card.md"}
    assert bundle.manifest["golden"]["findings"]
    assert f"networks:{name}" in (bundle.path / "model_card.md").read_text()


@pytest.mark.parametrize(("name", "relu"), [("densenet", True), ("resnet", False)])
def test_class_maps_are_the_linear_layer_on_the_features(
    draft: Callable[[str], Bundle], films: np.ndarray, name: str, relu: bool
) -> None:
    import networks

    net = getattr(networks, name)()
    mean, std = IMAGENET.of(3)
    images = torch.from_numpy((films - mean) / std)
    with torch.inference_mode():
        if relu:
            features, linear = F.relu(net.features(images)), net.classifier
        else:
            features = images
            for part in list(net.children())[:-2]:
                features = part(features)
            linear = net.fc
        maps = torch.einsum("kc,bchw->bkhw", linear.weight, features).numpy()
        logits = net(images).numpy()
    found = load_backend("onnxruntime", draft(name)).run(films)
    np.testing.assert_allclose(found.cams[0], maps, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + draft(name).bias, logits, rtol=1e-3, atol=1e-4)


def test_a_sigmoid_at_the_end_is_left_off(draft: Callable[[str], Bundle], films: np.ndarray) -> None:
    import networks

    mean, std = IMAGENET.of(3)
    with torch.inference_mode():
        scores = networks.chexnet()(torch.from_numpy((films - mean) / std)).numpy()
    logits = load_backend("onnxruntime", draft("chexnet")).run(films).logits
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-5)


def test_a_checkpoint_of_another_wrapping_fills_the_network(tmp_path: Path, films: np.ndarray) -> None:
    import networks

    net = networks.DenseNet()
    state = {f"module.{name}".replace("norm1", "norm.1"): value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "old.pth.tar")
    original = trace_classifier("networks:densenet", tmp_path / "old.pth.tar", SIZE)
    with torch.inference_mode():
        expected = net.eval()(torch.from_numpy(films[:1]).expand(-1, 3, -1, -1)).numpy()
    np.testing.assert_allclose(original.run(np.repeat(films[:1], 3, axis=1), None), expected, atol=1e-6)
    assert original.name == "networks:densenet with old.pth.tar"
    torch.save({name: value for name, value in state.items() if "classifier" not in name}, tmp_path / "less.pt")
    with pytest.raises(MslocError, match=r"expected the tensor classifier\.weight"):
        trace_classifier("networks:densenet", tmp_path / "less.pt", SIZE)


def test_an_onnx_file_with_class_maps_of_its_own(tiny_bundle: Path, films: np.ndarray, tmp_path: Path) -> None:
    """Ours, as if it were somebody else's: the outputs by name, deep stages first."""
    own = Bundle.open(tiny_bundle)
    cams = ("cams_4", "cams_1", "cams_2", "cams_3")
    original, folder = read_onnx(own.onnx), tmp_path / "draft"
    relevance = own.relevance.astype(float)
    drafted = write_draft(
        original, folder, own.classes, Normalisation(), name="ours", logits="logits", cams=cams, relevance=relevance
    )
    assert [stage.height for stage in drafted.stages] == [16, 8, 4, 2]
    theirs, ours = (load_backend("onnxruntime", bundle).run(films) for bundle in (drafted, own))
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-5)
    classes = range(len(own.classes))
    np.testing.assert_allclose(theirs.fuse(0, classes).dense(), ours.fuse(0, classes).dense(), atol=1e-4)
    bundle, _ = wrap_bundle(drafted, calibrated(drafted, films), tmp_path / "bundle", list(films[:2, 0]))
    assert check_parity(bundle, list(films[:2, 0]), "torch", "openvino").boxes > 0


def with_random_weights(file: Path) -> onnx.ModelProto:
    """A network of the zoo, whose files hold the shapes of the weights alone."""
    model, rng = onnx.load(file), np.random.default_rng(0)
    graph = model.graph
    shapes = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in made:
        shape = shapes[node.input[0]].tolist()
        spread = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
        value = rng.normal(0, spread, shape) if len(shape) > 1 else 1 + rng.uniform(0, spread, shape)
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    return model


def test_an_onnx_file_of_another_exporter(tmp_path: Path) -> None:
    """ShuffleNet: grouped convolutions, shuffles by Reshape of a fixed batch, a softmax at the end."""
    onnx.save(with_random_weights(ZOO / "light_shufflenet.onnx"), tmp_path / "shufflenet.onnx")
    original = read_onnx(tmp_path / "shufflenet.onnx")
    bundle = write_draft(original, tmp_path / "draft", [str(k) for k in range(1000)], IMAGENET, name="shufflenet")
    assert [(stage.height, stage.stride) for stage in bundle.stages] == [(7, 32)]
    films = np.stack([generate(seed, 224).display() for seed in (1, 2)])[:, None]
    ours, *others = (load_backend(name, bundle).run(films) for name in ("onnxruntime", "openvino", "torch"))
    limit = 1e-4 * np.abs(ours.logits).max()
    for other in others:
        np.testing.assert_allclose(other.logits, ours.logits, atol=limit)
        np.testing.assert_allclose(other.cams[0], ours.cams[0], atol=1e-3 * np.abs(ours.cams[0]).max())


PUBLISHED = {
    "efficientnet_lite_pytorch": "EfficientNet.from_name('efficientnet-lite0', num_classes=2)",
    "torchvision.models": "densenet121(num_classes=2)",
    "timm": "create_model('resnet18', num_classes=2)",
    "torchxrayvision.models": "DenseNet(num_classes=2, in_channels=1)",
}
"""Packages of networks, and how each makes one."""


@pytest.mark.parametrize("package", PUBLISHED)
def test_published_networks(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # torchvision's, where it is of another torch
        pytest.skip(f"{package} does not import: {error}")
    call = PUBLISHED[package]
    (tmp_path / "published.py").write_text(f"import {package} as p\n\ndef make():\n    return p.{call}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    original = trace_classifier("published:make", None, 224)
    sys.modules.pop("published")
    normalisation = Normalisation((0.5,), (0.5,))
    bundle = write_draft(original, tmp_path / "draft", CLASSES, normalisation, name="published")
    films = generate(3, 224).display()[None, None]
    ours, *others = (load_backend(name, bundle).run(films) for name in ("onnxruntime", "openvino", "torch"))
    for other in others:
        np.testing.assert_allclose(other.cams[0], ours.cams[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two_linear_layers", "one linear layer before the logits, got Relu"),
        ("maximum", "expected global average pooling and one linear layer before the logits, got ReduceMax"),
        ("no_network", r"expected a torch.nn.Module, got int"),
        ("broken", "networks:broken failed: RuntimeError: no weights here"),
        ("nobody", "networks:nobody cannot be imported"),
    ],
)
def test_what_cannot_be_wrapped_is_told(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(MslocError, match=words):
        write_draft(traced(name), tmp_path, CLASSES, Normalisation(), name="x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 3}, r"expected 3 classes, got logits of shape \[2, 2\]"),
        ({"logits": "scores"}, "expected outputs among logits, got scores"),
        ({"cams": ["maps"]}, "expected outputs among logits, got maps"),
        ({"size": 96}, "a square input whose side the graph or --size tells, got 64 x 64, and --size 96"),
        ({"normalisation": Normalisation((0.5, 0.5), (1.0,))}, "for each of 1 channels, got 0.5,0.5/1"),
    ],
)
def test_options_that_do_not_fit_a_graph(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        wrap_graph(traced("plain").model, **{"normalisation": Normalisation(), "classes": 2, **options})
    assert caught.value.reason == "wrap_unsupported"


def test_operators_of_its_own_and_odd_inputs() -> None:
    def graph(shape: list[Any], operator: str = "Relu", kind: int = 1, **options: Any) -> onnx.ModelProto:
        node = helper.make_node(operator, ["x"], ["y"], **options)
        ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
        return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))

    for model, words in (
        (graph([1, 1, 64, 64], kind=10), "expected an input of float32"),
        (graph([1, 64, 64, 3]), r"expected an input of float32 \[batch, 1 or 3 channels, height, width\]"),
        (graph([1, 1, 64, 32]), "expected a square input"),
        (graph([1, 1, 64, 64], "Fancy", domain="mine"), "the graph cannot be simplified"),
    ):
        with pytest.raises(ExportError, match=words):
            wrap_graph(model, Normalisation(), 2)


def test_a_graph_that_mixes_films_is_refused() -> None:
    """Batch statistics at run time: a film's result would depend on the films beside it."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(*of) for of in (("x", 1, ["b", 1, 64, 64]), ("y", 1, ["b", 1]))]
    axes = numpy_helper.from_array(np.array([0]), "axes")
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [axes]))
    with pytest.raises(ExportError, match="two films together give another logits than each by itself"):
        wrap_graph(model, Normalisation(), 1)


def test_a_network_that_is_not_the_one_in_the_graph(tmp_path: Path) -> None:
    own = traced("plain")
    other = Original(own.name, own.model, own.sha256, lambda film, output: own.run(film, output) + np.float32(0.01))
    with pytest.raises(ExportError, match="the bundle differs from the network itself") as caught:
        write_draft(other, tmp_path, CLASSES, Normalisation(), name="x")
    assert caught.value.reason == "parity"


def test_a_folder_with_other_files_is_not_replaced(
    draft: Callable[[str], Bundle], films: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError):
        wrap_bundle(draft("plain"), calibrated(draft("plain"), films), tmp_path, [])


def test_relevance_is_a_convex_combination(tiny_bundle: Path, tmp_path: Path) -> None:
    own = Bundle.open(tiny_bundle)
    cams = [f"cams_{stage}" for stage in range(1, 5)]
    for weights, expected in (([1, 1, 2, 4], [0.125, 0.125, 0.25, 0.5]), (None, [0.25] * 4)):
        given = None if weights is None else np.array(weights, float)
        found = write_draft(
            read_onnx(own.onnx), tmp_path, own.classes, Normalisation(), name="x", cams=cams, relevance=given
        )
        assert found.relevance[0].tolist() == expected
    with pytest.raises(ExportError, match="expected relevance weights of 4 stages"):
        write_draft(
            read_onnx(own.onnx), tmp_path, own.classes, Normalisation(), name="x", cams=cams, relevance=np.ones(3)
        )


def test_what_is_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("hello")
    with pytest.raises(ExportError, match=r"notes\.onnx: expected an ONNX file"):
        read_onnx(tmp_path / "notes.onnx")
    with pytest.raises(ExportError, match=r"none\.onnx: expected an ONNX file"):
        read_onnx(tmp_path / "none.onnx")


def test_a_manifest_tells_the_normalisation(draft: Callable[[str], Bundle]) -> None:
    manifest = json.loads((draft("densenet").path / "manifest.json").read_text())
    assert manifest["architecture"]["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert manifest["pool"] == "avg"
