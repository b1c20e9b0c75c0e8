"""What an export can be asked for: targets, precisions, batch sizes. Importing it loads nothing else."""

from __future__ import annotations

from msloc_edge.backends.tensorrt.key import Batch

__all__ = ["PLUGINS", "PRECISIONS", "TARGETS", "Batch"]

TARGETS = ("onnx", "tensorrt", "tensorrt-rtx", "triton-server")
PRECISIONS = ("fp32", "fp16", "int8")
PLUGINS = ("auto", "aot", "library", "plain")
"""How M_k comes into a TensorRT engine: see `tensorrt.route`."""
