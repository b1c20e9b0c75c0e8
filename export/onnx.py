"""The network as ONNX: standard operators only, dynamic batch, normalisation inside the graph."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from msloc_edge.export.graphs import check_graph, network_outputs
from msloc_edge.model import CamNet

OPSET = 18


def to_onnx(net: CamNet) -> bytes:
    """Export a network as the graph image [B, 1, H, W] -> logits [B, K], cams_1 .. cams_S [B, K, h_s, w_s], checked.

    Raises ExportError as `graphs.check_graph` does.
    """
    size = net.config.size
    names = network_outputs(len(net.strides))
    return check_graph(export_module(net.cpu().eval(), torch.zeros(2, 1, size, size), names), names)


def export_module(network: nn.Module, example: Tensor, names: Sequence[str]) -> onnx.ModelProto:
    """Export a network, in evaluation mode, with the input `image` and outputs of these names, for any batch.

    example  [B, C, H, W] of the input, of at least two films
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=["image"],
            output_names=list(names),
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
    return model


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
