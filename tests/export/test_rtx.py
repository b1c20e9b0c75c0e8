"""TensorRT-RTX for real: engines are built here, without a GPU, of every precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from rich.progress import Progress

from msloc_edge.backends.tensorrt.builder import Built, Settings, build
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.library import TENSORRT_RTX
from msloc_edge.backends.tensorrt.progress import Bars
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError
from msloc_edge.export.graphs import with_camfuse, with_heatmap
from msloc_edge.export.onnx import to_onnx
from msloc_edge.export.precision.convert import Films, after_the_maps
from msloc_edge.export.precision.fp16 import to_fp16
from msloc_edge.export.precision.int8 import calibrate, to_int8
from msloc_edge.model import ModelConfig
from msloc_edge.model import build as build_network

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed", exc_type=ImportError)

SETTINGS = Settings(Batch(1, 2, 4))


def build_rtx(model: bytes, bundle: Bundle, progress: Progress) -> Built:
    return build(TENSORRT_RTX, model, bundle.input_size, SETTINGS, Bars(progress))


class Phases(Progress):
    """Remembers what was shown."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self.seen: list[str] = []

    def add_task(self, description: str, **options: object) -> object:
        self.seen.append(description)
        return super().add_task(description, **options)


@pytest.fixture(scope="module")
def networks(opened: Bundle, network: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """That of the small bundle, and a DenseNet-121 with the same classes and stages."""
    config = ModelConfig(opened.classes, "densenet121", opened.input_size[0])
    return {"edge": network, "densenet121": onnx.load_from_string(to_onnx(build_network(config)))}


@pytest.mark.parametrize("backbone", ["edge", "densenet121"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_builds(
    opened: Bundle, networks: dict[str, onnx.ModelProto], small_films: Films, backbone: str, precision: str
) -> None:
    network = networks[backbone]
    if precision == "fp16":
        network = to_fp16(network, after_the_maps(network, opened))
    if precision == "int8":
        network = to_int8(network, calibrate(network, small_films.calibration[:4]), [])
    progress = Phases()
    model = with_heatmap(network, opened).SerializeToString()
    built = build_rtx(model, opened, progress)
    assert len(built.data) > 1_000_000
    assert "(-1, 1, 64, 64)" in built.log
    assert "[ERROR]" not in built.log
    assert progress.seen[0] == "building engine"
    assert progress.finished, "no bar is left"


def test_a_node_without_its_plugin_is_refused(opened: Bundle, network: onnx.ModelProto) -> None:
    model = with_camfuse(network, opened).SerializeToString()
    with pytest.raises(BackendError, match="refuses node heatmap_fuse \\(CamFuse\\): ") as caught:
        build_rtx(model, opened, Phases())
    assert caught.value.reason == "build_failed"


def test_what_is_no_graph_is_refused(opened: Bundle) -> None:
    with pytest.raises(BackendError, match="refuses the graph: "):
        build_rtx(b"no graph", opened, Phases())


def test_a_batch_that_the_graph_does_not_take_is_refused(opened: Bundle, network: onnx.ModelProto) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(BackendError, match="cannot build the engine: ") as caught:
        build_rtx(fixed.SerializeToString(), opened, Phases())
    assert caught.value.reason == "build_failed"


def test_a_real_engine_passes_the_cache(opened: Bundle, tmp_path: Path) -> None:
    """Its header is what the cache expects of this library and version."""
    built = build_rtx(opened.onnx.read_bytes(), opened, Phases())
    key = Key(opened.sha256, "tensorrt_rtx", tensorrt_rtx.__version__, 0, "fp32", "network", SETTINGS.batch)
    cache = Cache(tmp_path)
    cache.put(built.plan(key))
    found = cache.find(key)
    assert found is not None
    assert found.data == built.data
    older = replace(key, version="1.6.0.1")
    cache.put(built.plan(older))
    assert cache.find(older) is None
    assert (tmp_path / f"{older.file}.refused-version").is_file()


USED = {
    "Builder": "create_network create_builder_config create_optimization_profile build_serialized_network "
    "num_DLA_cores",
    "BuilderFlag": "TF32 GPU_FALLBACK",
    "DeviceType": "DLA",
    "OnnxParser": "parse get_error",
    "IOptimizationProfile": "set_shape",
    "IBuilderConfig": "clear_flag set_flag set_memory_pool_limit add_optimization_profile progress_monitor "
    "default_device_type DLA_core",
    "Runtime": "deserialize_cuda_engine engine_host_code_allowed get_plugin_registry DLA_core",
    "ICudaEngine": "num_io_tensors get_tensor_name get_tensor_dtype get_tensor_profile_shape create_execution_context",
    "IExecutionContext": "set_input_shape get_tensor_shape set_tensor_address execute_async_v3",
    "DataType": "FLOAT",
}


@pytest.mark.parametrize("kind", USED)
def test_the_library_has_what_the_backend_calls(kind: str) -> None:
    """Deserialising needs a GPU; that these names exist does not."""
    assert [name for name in USED[kind].split() if not hasattr(getattr(tensorrt_rtx, kind), name)] == []
