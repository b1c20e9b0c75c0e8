"""The bare classifier gives, on every engine, the averaged deepest features times the seeded weights."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from msloc_edge.bench.classifier import bare_classifier, classifier_onnx, linear_weights
from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.errors import BackendError, DependencyError
from msloc_edge.export.bundle import load_network
from msloc_edge.export.onnx import to_onnx
from msloc_edge.model import CamNet, ModelConfig, build

SIZE = 64


def network(backbone: str, pool: str, stages: str, neck: str) -> CamNet:
    """Fresh weights, with batch statistics of a few random films."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = build(ModelConfig(("a", "b", "c"), backbone, SIZE, pool, stages, neck))
        net.train()(torch.rand(4, 1, SIZE, SIZE))
    return net.eval()


def expected(net: CamNet, films: np.ndarray) -> np.ndarray:
    """Logits from the whole network's own features, read by a hook on its backbone."""
    features: list[torch.Tensor] = []
    with net.backbone.register_forward_hook(lambda _, args, out: features.append(out[-1])), torch.inference_mode():
        net(torch.from_numpy(films))
    pooled = features[0].mean(dim=(2, 3)).numpy()
    return np.asarray(pooled @ linear_weights(len(net.config.classes), pooled.shape[1]).T)


@pytest.fixture
def films() -> np.ndarray:
    return np.random.default_rng(1).random((3, 1, SIZE, SIZE), np.float32)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def bundle_of(bundle: Bundle, tmp_path: Path) -> Callable[[CamNet | bytes], Bundle]:
    """A bundle with another network's, or any, model.onnx."""

    def make(net: CamNet | bytes) -> Bundle:
        graph = net if isinstance(net, bytes) else to_onnx(net)
        (tmp_path / ONNX).write_bytes(graph)
        manifest = {**bundle.manifest, "files": {ONNX: hashlib.sha256(graph).hexdigest()}}
        return replace(bundle, path=tmp_path, classes=("a", "b", "c"), manifest=manifest)

    return make


@pytest.mark.parametrize(
    ("backbone", "pool", "stages", "neck"),
    [
        ("edge", "avg", "all", "none"),
        ("edge", "lse", "all", "topdown"),
        ("edge", "pcam", "last", "none"),
        ("edge", "avg", "last", "topdown"),
        ("densenet121", "pcam", "all", "topdown"),
        ("densenet121", "lse", "last", "none"),
    ],
)
def test_the_cut_is_the_backbone(
    backbone: str,
    pool: str,
    stages: str,
    neck: str,
    films: np.ndarray,
    bundle_of: Callable[[CamNet], Bundle],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    net = network(backbone, pool, stages, neck)
    engine = bare_classifier(bundle_of(net), "onnxruntime", None, tmp_path_factory.mktemp("cut"))
    outputs = engine.run(films)
    assert outputs.cams == ()
    np.testing.assert_allclose(outputs.logits, expected(net, films), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino", "torch"])
def test_every_engine_agrees(engine_name: str, tiny_state: dict[str, Any], bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip(engine_name)
    films = np.random.default_rng(1).random((3, 1, *bundle.input_size), np.float32)
    net = load_network(tiny_state)
    engine = bare_classifier(bundle, engine_name, None, tmp_path, threads=1)
    outputs = engine.run(films)
    assert outputs.cams == ()
    np.testing.assert_allclose(outputs.logits, expected(net, films), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(engine.run(films[:1]).logits, outputs.logits[:1], rtol=1e-4, atol=1e-4)


def test_torch_without_the_weights_runs_the_graph(
    films: np.ndarray, bundle_of: Callable[[CamNet], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = network("edge", "avg", "all", "none")
    engine = bare_classifier(bundle_of(net), "torch", None, tmp_path_factory.mktemp("cut"))
    assert engine.run(films).cams == ()


def test_the_graph_is_plain_and_small(bundle: Bundle) -> None:
    model = onnx.load_from_string(classifier_onnx(bundle))
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not [t.name for t in model.graph.initializer if t.name.startswith(("head.", "neck."))]
    assert classifier_onnx(bundle) == classifier_onnx(bundle)


def test_the_shipped_bundle() -> None:
    assert classifier_onnx(Bundle.open())


def test_a_graph_without_the_names(bundle_of: Callable[[bytes], Bundle], bundle: Bundle) -> None:
    model = onnx.load(bundle.onnx)
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = name.replace("head.classifiers", "heads")
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("head.classifiers", "heads")
    with pytest.raises(BackendError, match=r"head\.classifiers") as caught:
        classifier_onnx(bundle_of(model.SerializeToString()))
    assert caught.value.reason == "backend_failed"


def test_without_onnx(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match="pip install onnx") as caught:
        classifier_onnx(bundle)
    assert caught.value.reason == "backend_missing"
