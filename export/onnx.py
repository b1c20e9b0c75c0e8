"""The network as ONNX: standard operators only, dynamic batch, normalisation inside the graph."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from msloc_edge.errors import ExportError
from msloc_edge.model import CamNet

OPSET = 18


def to_onnx(net: CamNet) -> bytes:
    """The graph image [B, 1, H, W] -> logits [B, K], cams_1 .. cams_S [B, K, h_s, w_s], checked.

    Raises ExportError when the checker or shape inference finds a fault, or an operator is not a standard one.
    """
    size = net.config.size
    names = ["logits", *(f"cams_{stage}" for stage in range(1, len(net.strides) + 1))]
    example = torch.zeros(2, 1, size, size)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            net.cpu().eval(),
            (example,),
            path,
            input_names=["image"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces name files of this machine
        node.doc_string = ""
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "msloc-edge", ""
    return check(model, names)


def check(model: onnx.ModelProto, outputs: list[str]) -> bytes:
    """Serialise a graph after the ONNX checker, strict shape inference, and the contract of its inputs and outputs."""
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("onnx_invalid", f"the ONNX graph is not valid: {error}") from error
    found = [output.name for output in model.graph.output]
    if [i.name for i in model.graph.input] != ["image"] or found != outputs:
        raise ExportError("onnx_invalid", f"expected the input image and the outputs {outputs}, got {found}")
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        raise ExportError("onnx_invalid", f"expected standard operators only, got the domains {sorted(foreign)}")
    return model.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports on its own progress and on packages it does not need; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
