"""A program: NVIDIA's own tensorrt.plugin, with our plugin registered, on stand-ins for the library that is not there.

    python camfuse_on_stand_in.py QUESTIONS ANSWERS     JSON files; LD_LIBRARY_PATH has libraries that only return 0

What the library would give is stood in for: its registry, its expressions of dimensions, the descriptions of tensors
that it fills in, and what it takes back. All between is NVIDIA's code and ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt_bindings as trt

sys.modules["tensorrt"] = trt


class StandInExpression:
    """A dimension: a number, the name of one that the engine learns later, or an operation on two of them."""

    def __init__(self, op: str, *operands: Any) -> None:
        self.op, self.operands = op, operands

    def value(self, known: dict[str, int]) -> int:
        if self.op == "constant":
            return int(self.operands[0])
        if self.op == "name":
            return known[self.operands[0]]
        return OPERATIONS[self.op](*(operand.value(known) for operand in self.operands))


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "SUM": lambda a, b: a + b,
    "PROD": lambda a, b: a * b,
    "SUB": lambda a, b: a - b,
    "LESS": lambda a, b: int(a < b),
    "EQUAL": lambda a, b: int(a == b),
    "FLOOR_DIV": lambda a, b: a // b,
    "CEIL_DIV": lambda a, b: -(-a // b),
}
"""trt.DimensionOperation, as TensorRT's documentation says."""


class StandInExprBuilder:
    def constant(self, value: int) -> StandInExpression:
        assert value >= 0, f"a constant of {value}: TensorRT's documentation promises none below 0"
        return StandInExpression("constant", value)

    def operation(self, op: Any, first: StandInExpression, second: StandInExpression) -> StandInExpression:
        return StandInExpression(op.name, first, second)


class StandInRegistry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        self.creators[creator.name, creator.plugin_version, namespace] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, version, namespace]


class StandInDims(list[Any]):
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class StandInScalar:
    """trt.ISymExpr keeps a pointer into the library; this one keeps the expression."""

    def __init__(self, number: Any) -> None:
        self.type, self.expr = type(number).__name__, number._expr


class StandInScalars(dict[int, StandInScalar]):
    nbSymExprs = 0  # noqa: N815


registry = StandInRegistry()
trt.get_plugin_registry = lambda: registry
trt.IDimensionExpr, trt.DimsExprs = StandInExpression, StandInDims

from tensorrt.plugin import _tensor  # noqa: E402

from msloc_edge.errors import ExportError  # noqa: E402
from msloc_edge.export import camfuse_plugin  # noqa: E402

_tensor.SymExprImpl = StandInScalar


def described(kind: Any, dims: list[int]) -> Any:
    """What TensorRT says of a tensor while it builds; -1 is a dimension that it does not know yet."""
    desc = trt.PluginTensorDesc()
    desc.type, desc.format, desc.dims = kind, trt.TensorFormat.LINEAR, trt.Dims(dims)
    found = trt.DynamicPluginTensorDesc()
    found.desc = desc
    return found


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What TensorRT does with the node while it builds, in its order; then everything for each batch size."""
    kind = {"fp16": trt.float16, "fp32": trt.float32}[question["dtype"]]
    stages, classes, size = question["stages"], question["classes"], question["size"]
    creator = registry.get_creator("CamFuse", "1", "msloc")
    # As the parser of ONNX makes them of a node's ints.
    attributes = [np.array([side], np.int32) for side in size]
    pairs = zip(("height", "width"), attributes, strict=True)
    fields = [trt.PluginField(name, value, trt.PluginFieldType.INT32) for name, value in pairs]
    plugin = creator.create_plugin(
        "CamFuse",
        "msloc",
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    shapes = [[-1, classes, *stage] for stage in stages] + [[classes, len(stages)]]
    kinds = [kind] * len(stages) + [trt.float32]
    named = {-1: StandInExpression("name", "batch")}
    inputs = [[named.get(dim, StandInExpression("constant", dim)) for dim in shape] for shape in shapes]
    builder = StandInExprBuilder()
    (output_kind,) = plugin.get_output_data_types(kinds, [len(shape) for shape in shapes])
    (output,) = plugin.get_output_shapes(inputs, [], builder)
    tensors = [described(*tensor) for tensor in zip(kinds, shapes, strict=True)]
    tensors.append(described(output_kind, [-1, classes, *size]))
    combinations = plugin.get_supported_format_combinations(tensors, len(shapes))
    plugin.configure_plugin(tensors[:-1], tensors[-1:])
    plugin.set_tactic(0)
    launch, scalars = SimpleNamespace(), StandInScalars()
    try:
        plugin.get_launch_params(inputs, tensors, len(shapes), launch, scalars, builder)
    except ExportError as error:
        return {"reason": error.reason, "refused": error.message}
    name, ptx = plugin.get_kernel([t.desc for t in tensors[:-1]], [t.desc for t in tensors[-1:]])
    known = [{"batch": batch} for batch in question["batches"]]
    return {
        "output": [[dim.value(values) for dim in output] for values in known],
        "output_type": output_kind.name,
        "combinations": [[tensor.type.name, tensor.format.name] for tensor in combinations],
        "launch": [{key: value.expr.value(values) for key, value in vars(launch).items()} for values in known],
        "scalars": [[scalars[at].expr.value(values) for at in range(scalars.nbSymExprs)] for values in known],
        "scalar_types": sorted({scalar.type for scalar in scalars.values()}),
        "name": name,
        "ptx": ptx.decode(),
    }


camfuse_plugin.register()
camfuse_plugin.register()  # changes nothing
questions = json.loads(Path(sys.argv[1]).read_text())
Path(sys.argv[2]).write_text(json.dumps([answer(question) for question in questions]))
