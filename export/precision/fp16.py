"""FP16 as tensors of the graph: strongly typed engines (TensorRT 10 and later) know no other way.

Plain onnx, because the converter that was tried (onnxruntime.transformers.float16, from onnxconverter-common) casts to
16 bits and back around every node that is to stay in 32: an fp32 head would be rounded at each of its steps.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_FP32_INPUTS = {"Resize": (1, 2)}
"""Inputs that the standard has in 32 bits whatever the others are: region of interest, scales."""


def to_fp16(network: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """Convert a network to 16 bits, but for the nodes named in `keep`; its inputs and outputs stay in 32."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    constants = {value.name: value for value in graph.initializer if value.data_type == TensorProto.FLOAT}
    floats = _tensors(model, TensorProto.FLOAT) | set(constants)
    halves: set[str] = set()  # tensors that are computed in 16 bits
    casts: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def cast(name: str, kind: int, suffix: str) -> str:
        if name + suffix not in casts:
            casts[name + suffix] = name + suffix
            nodes.append(helper.make_node("Cast", [name], [name + suffix], f"cast_{name}{suffix}", to=kind))
        return name + suffix

    def half(name: str) -> str:
        if name in halves:
            return name
        if name not in constants:
            return cast(name, TensorProto.FLOAT16, "_fp16")
        if f"{name}_fp16" not in casts:
            casts[f"{name}_fp16"] = name
            value = numpy_helper.to_array(constants[name]).astype(np.float16)
            graph.initializer.append(numpy_helper.from_array(value, f"{name}_fp16"))
        return f"{name}_fp16"

    for node in graph.node:
        apart = _FP32_INPUTS.get(node.op_type, ())
        for at, name in enumerate(node.input):
            if node.name in keep:
                node.input[at] = cast(name, TensorProto.FLOAT, "_fp32") if name in halves else name
            elif name in floats and at not in apart:
                node.input[at] = half(name)
        if node.name not in keep:
            halves |= floats & set(node.output)
        nodes.append(node)
    _replace(graph, nodes)
    for output in graph.output:
        if output.name in halves:
            _rename(graph, output.name, f"{output.name}_half")
            nodes = [helper.make_node("Cast", [f"{output.name}_half"], [output.name], to=TensorProto.FLOAT)]
            graph.node.extend(nodes)
    return model


def with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the same arithmetic for a runtime without 16 bits: in 32, each 16-bit tensor rounded where it is made.

    onnxruntime on x86 computes 16-bit nodes in 32 bits and leaves out the rounding between them, so that it would show
    a third of the true error (docs/export.md).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    halves = _tensors(copy, TensorProto.FLOAT16)
    for value in graph.initializer:
        if value.data_type == TensorProto.FLOAT16:
            single = numpy_helper.to_array(value).astype(np.float32)
            value.CopyFrom(numpy_helper.from_array(single, value.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        outputs = [name for name in node.output if name in halves]
        if node.op_type == "Cast" and not outputs:
            node = helper.make_node("Identity", node.input, node.output, node.name)
        if node.op_type == "Cast":
            nodes += _rounding(node.input[0], node.output[0])
            continue
        node.output[:] = [f"{name}_exact" if name in outputs else name for name in node.output]
        nodes.append(node)
        for name in outputs:
            nodes += _rounding(f"{name}_exact", name)
    _replace(graph, nodes)
    return copy


def _rounding(name: str, out: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [name], [f"{out}_rounded"], f"round_{out}", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{out}_rounded"], [out], f"widen_{out}", to=TensorProto.FLOAT),
    ]


def _tensors(model: onnx.ModelProto, kind: int) -> set[str]:
    """Collect the names of the tensors of a type that the nodes of a graph take and give."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name for value in values if value.type.tensor_type.elem_type == kind}


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put these nodes, and the constants that they use, in place of a graph's own."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    constants = [value for value in graph.initializer if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    del graph.value_info[:]
