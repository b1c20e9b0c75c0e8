"""INT8 as Q/DQ nodes around convolutions: symmetric, weights per channel, ranges of activations from real films.

onnxruntime.quantization places the nodes. Only a convolution's inputs and weights are quantized: its bias and output
stay in 32 bits, as TensorRT advises for Q/DQ graphs, and class maps keep their scale.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from msloc_edge.export.runtimes import Array

PERCENTILE = 99.999
_AT_ONCE = 4  # films whose activations are in memory together

Ranges = Any
"""onnxruntime's TensorsData: the range of every tensor."""


class _Films(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    def __init__(self, films: Sequence[Array]) -> None:
        self._films = iter(films)

    def get_next(self) -> dict[str, Array] | None:
        film = next(self._films, None)
        return None if film is None else {"image": film[None, None]}


def calibrate(network: onnx.ModelProto, films: Sequence[Array]) -> Ranges:
    """Measure the range of each convolution's input over model inputs [H, W]: a percentile of its absolute values."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # stdout is for data
        plain = Path(folder) / "plain.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(network), plain)
        calibrator = create_calibrator(
            plain,
            ["Conv"],
            str(Path(folder) / "augmented.onnx"),
            CalibrationMethod.Percentile,
            providers=["CPUExecutionProvider"],
            extra_options={"percentile": PERCENTILE, "symmetric": True},
        )
        for first in range(0, len(films), _AT_ONCE):
            calibrator.collect_data(_Films(films[first : first + _AT_ONCE]))
        return calibrator.compute_data()


def to_int8(network: onnx.ModelProto, ranges: Ranges, keep: Collection[str]) -> onnx.ModelProto:
    """Convert a network's convolutions to 8 bits, but for the nodes named in `keep`."""
    model = onnx.shape_inference.infer_shapes(network)
    quantizer = QDQQuantizer(
        model,
        True,
        False,
        QuantType.QInt8,
        QuantType.QInt8,
        ranges,
        [],
        list(keep),
        ["Conv"],
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model
