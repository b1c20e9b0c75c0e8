"""TensorRT-RTX for real: engines are built here, without a GPU, of every precision."""

from __future__ import annotations

import onnx
import pytest
from rich.progress import Progress

from msloc_edge.bundle import Bundle
from msloc_edge.errors import ExportError
from msloc_edge.export.choices import Batch
from msloc_edge.export.fp16 import to_fp16
from msloc_edge.export.graphs import with_camfuse, with_heatmap
from msloc_edge.export.int8 import calibrate, to_int8
from msloc_edge.export.mixed import Films, after_the_maps

rtx = pytest.importorskip("msloc_edge.export.rtx", reason="tensorrt-rtx is not installed", exc_type=ImportError)

BATCH = Batch(1, 2, 4)


class Phases(Progress):
    """Remembers what was shown."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self.seen: list[str] = []

    def add_task(self, description: str, **options: object) -> object:
        self.seen.append(description)
        return super().add_task(description, **options)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_builds(opened: Bundle, network: onnx.ModelProto, small_films: Films, precision: str) -> None:
    if precision == "fp16":
        network = to_fp16(network, after_the_maps(network, opened))
    if precision == "int8":
        network = to_int8(network, calibrate(network, small_films.calibration[:4]), [])
    progress = Phases()
    model = with_heatmap(network, opened).SerializeToString()
    engine, log = rtx.build(model, BATCH, opened.input_size, progress)
    assert len(engine) > 1_000_000
    assert "(-1, 1, 64, 64)" in log
    assert "[ERROR]" not in log
    assert progress.seen[0] == "building engine"
    assert progress.finished, "no bar is left"


def test_a_node_without_its_plugin_is_refused(opened: Bundle, network: onnx.ModelProto) -> None:
    model = with_camfuse(network, opened).SerializeToString()
    with pytest.raises(ExportError, match="refuses node heatmap_fuse \\(CamFuse\\): ") as caught:
        rtx.build(model, BATCH, opened.input_size, Phases())
    assert caught.value.reason == "engine"


def test_what_is_no_graph_is_refused(opened: Bundle) -> None:
    with pytest.raises(ExportError, match="refuses the graph: "):
        rtx.build(b"no graph", BATCH, opened.input_size, Phases())


def test_a_batch_that_the_graph_does_not_take_is_refused(opened: Bundle, network: onnx.ModelProto) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ExportError, match="cannot build the engine: ") as caught:
        rtx.build(fixed.SerializeToString(), BATCH, opened.input_size, Phases())
    assert caught.value.reason == "engine"
