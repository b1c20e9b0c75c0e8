"""An ONNX graph as a PyTorch module: how this backend runs a bundle whose network is somebody else's.

Shapes and indices stay on the host, as PyTorch has them; everything else is where the weights are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from msloc_edge.errors import BackendError
from msloc_edge.model.network import Prediction

Attributes = dict[str, Any]
Operator = Callable[..., Any]


class OnnxNetwork(nn.Module):
    """A bundle's graph: [B, 1, H, W] float in [0, 1] -> Prediction.

    Raises BackendError (backend_failed) for a graph with an operator that it does not know.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        unknown = sorted({node.op_type for node in graph.node if node.op_type not in (*OPERATORS, "Constant")})
        if unknown:
            raise BackendError(
                "backend_failed",
                f"torch: expected a graph of operators that this backend knows, got {', '.join(unknown)}; use another "
                "backend",
            )
        self._host: dict[str, Tensor] = {}  # shapes, axes, indices
        self._weights: dict[str, str] = {}  # tensor of the graph -> buffer
        for number, value in enumerate(graph.initializer):
            self._keep(value.name, numpy_helper.to_array(value), f"weight_{number}")
        self._steps: list[tuple[Operator, Attributes, list[str], list[str]]] = []
        for number, node in enumerate(graph.node):
            told = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], np.asarray(next(iter(told.values()))), f"constant_{number}")
            else:
                told["outputs"] = len(node.output)
                self._steps.append((OPERATORS[node.op_type], told, list(node.input), list(node.output)))
        self._outputs = [output.name for output in graph.output]
        self._last_use = {name: at for at, (_, _, inputs, _) in enumerate(self._steps) for name in inputs}

    def forward(self, image: Tensor) -> Prediction:
        values: dict[str, Any] = {**self._host, "image": image, "": None}
        values |= {name: getattr(self, buffer) for name, buffer in self._weights.items()}
        for at, (operator, told, inputs, outputs) in enumerate(self._steps):
            found = operator(told, *(values[name] for name in inputs))
            values.update(zip(outputs, found if isinstance(found, tuple) else (found,), strict=False))
            for name in inputs:
                if self._last_use[name] == at and name not in self._outputs:
                    values.pop(name, None)
        logits, *cams = (values[name] for name in self._outputs)
        return Prediction(logits, tuple(cams))

    def _keep(self, name: str, value: Any, buffer: str) -> None:
        tensor = torch.from_numpy(np.array(value))
        if tensor.is_floating_point():
            self.register_buffer(buffer, tensor)
            self._weights[name] = buffer
        else:
            self._host[name] = tensor


def _plain(value: Any) -> Any:
    """An attribute's value as Python or numpy has it."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def _numbers(value: Tensor | None) -> list[int]:
    return [] if value is None else [int(number) for number in value.flatten().tolist()]


def _around(told: Attributes, image: Tensor, kernel: Sequence[int], fill: float) -> tuple[Tensor, tuple[int, ...]]:
    """Pad the two axes of an image as `pads` or `auto_pad` say: the image, and what is left for the operator itself."""
    strides, dilations = told.get("strides", [1, 1]), told.get("dilations", [1, 1])
    pads = list(told.get("pads", [0, 0, 0, 0]))
    auto = told.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        totals = [
            max(0, (math.ceil(side / s) - 1) * s + (k - 1) * d + 1 - side)
            for side, s, k, d in zip(image.shape[2:], strides, kernel, dilations, strict=True)
        ]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = less + more if auto == "SAME_UPPER" else more + less
    if pads[:2] == pads[2:] and all(2 * pad <= k for pad, k in zip(pads[:2], kernel, strict=True)):
        return image, (pads[0], pads[1])
    return F.pad(image, (pads[1], pads[3], pads[0], pads[2]), value=fill), (0, 0)


def _conv(told: Attributes, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padded, padding = _around(told, image, weight.shape[2:], 0.0)
    strides, dilations = tuple(told.get("strides", (1, 1))), tuple(told.get("dilations", (1, 1)))
    return F.conv2d(padded, weight, bias, strides, padding, dilations, told.get("group", 1))


def _max_pool(told: Attributes, image: Tensor) -> Tensor:
    kernel = told["kernel_shape"]
    padded, padding = _around(told, image, kernel, -math.inf)
    return F.max_pool2d(
        padded,
        kernel,
        told.get("strides", [1, 1]),
        padding,
        told.get("dilations", [1, 1]),
        ceil_mode=bool(told.get("ceil_mode", 0)),
    )


def _average_pool(told: Attributes, image: Tensor) -> Tensor:
    kernel, counted = told["kernel_shape"], bool(told.get("count_include_pad", 0))
    strides, ceil = told.get("strides", [1, 1]), bool(told.get("ceil_mode", 0))
    padded, padding = _around(told, image, kernel, 0.0)
    pooled = F.avg_pool2d(padded, kernel, strides, padding, ceil, counted)
    if padded is image or counted:
        return pooled
    cells, _ = _around(told, torch.ones_like(image[:1, :1]), kernel, 0.0)  # what was padded here does not count
    return pooled / F.avg_pool2d(cells, kernel, strides, 0, ceil)


def _batch_norm(told: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, bias, eps=told.get("epsilon", 1e-5))


def _gemm(told: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    product = told.get("alpha", 1.0) * ((a.mT if told.get("transA") else a) @ (b.mT if told.get("transB") else b))
    return product if c is None else product + told.get("beta", 1.0) * c


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(told: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        over = _numbers(axes) or list(told.get("axes", ()))
        if not over and told.get("noop_with_empty_axes"):
            return x
        return function(x, dim=over or list(range(x.ndim)), keepdim=bool(told.get("keepdims", 1)))

    return reduce


def _reshape(told: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sides = _numbers(shape)
    if not told.get("allowzero"):
        sides = [side or x.shape[at] for at, side in enumerate(sides)]
    return x.reshape(sides)


def _flatten(told: Attributes, x: Tensor) -> Tensor:
    axis = told.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(told: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(_numbers(axes)))


def _unsqueeze(told: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in _numbers(axes)):
        x = x.unsqueeze(axis)
    return x


def _slice(
    told: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = _numbers(starts), _numbers(ends)
    for start, end, axis, step in zip(
        first, last, _numbers(axes) or range(len(first)), _numbers(steps) or [1] * len(first), strict=True
    ):
        picked = range(x.shape[axis])[start:end:step]
        x = x.narrow(axis, picked.start, len(picked)) if step == 1 else _pick(x, axis, list(picked))
    return x


def _pick(x: Tensor, axis: int, indices: list[int]) -> Tensor:
    return x.index_select(axis, torch.tensor(indices, device=x.device))


def _gather(told: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = told.get("axis", 0) % x.ndim
    chosen = [at % x.shape[axis] for at in _numbers(indices)]
    return _pick(x, axis, chosen).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _split(told: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = told.get("axis", 0)
    parts: int = told.get("num_outputs") or told["outputs"]
    return torch.split(x, _numbers(sizes) or math.ceil(x.shape[axis] / parts), dim=axis)


def _pad(told: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    ends = _numbers(pads)
    half = len(ends) // 2
    wide = dict(zip(_numbers(axes) or range(half), zip(ends[:half], ends[half:], strict=True), strict=True))
    flat = [side for axis in reversed(range(x.ndim)) for side in wide.get(axis, wide.get(axis - x.ndim, (0, 0)))]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[told.get("mode", "constant")]
    if mode == "constant":
        return F.pad(x, flat, value=0.0 if value is None else float(value))
    return F.pad(x, flat[: 2 * (x.ndim - 2)], mode=mode)


def _clip(told: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x.clamp(low, high) if low is not None or high is not None else x


def _cast(told: Attributes, x: Tensor) -> Tensor:
    return x.to(torch.from_numpy(np.zeros(1, helper.tensor_dtype_to_np_dtype(told["to"]))).dtype)


def _constant_of_shape(told: Attributes, shape: Tensor) -> Tensor:
    return torch.full(_numbers(shape), np.asarray(told.get("value", np.float32(0))).item())


def _layer_norm(told: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, x.shape[told.get("axis", -1) :], scale, bias, told.get("epsilon", 1e-5))


def _resize(
    told: Attributes, x: Tensor, region: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    mode, corners = told.get("mode", "nearest"), told.get("coordinate_transformation_mode", "half_pixel")
    if sizes is not None:
        size = _numbers(sizes)[-2:]
    else:
        assert scales is not None
        size = [math.floor(side * s) for side, s in zip(x.shape[2:], scales.flatten().tolist()[-2:], strict=True)]
    if mode == "linear":
        return F.interpolate(x, size=size, mode="bilinear", align_corners=corners == "align_corners")
    return F.interpolate(x, size=size, mode="nearest")


def _divide(told: Attributes, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _each(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda told, *inputs: function(*inputs)


def _of_all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator over any number of inputs, two by two."""

    def merge(told: Attributes, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return merge


OPERATORS: dict[str, Operator] = {
    "Abs": _each(torch.abs),
    "Add": _each(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda told, *parts: torch.cat(parts, told["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _divide,
    "Dropout": lambda told, x, *_: x,
    "Elu": lambda told, x: F.elu(x, told.get("alpha", 1.0)),
    "Erf": _each(torch.erf),
    "Exp": _each(torch.exp),
    "Expand": lambda told, x, shape: x * torch.ones(_numbers(shape), dtype=x.dtype, device=x.device),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda told, x: F.gelu(x, approximate=told.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda told, x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda told, x: x.amax(dim=tuple(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": lambda told, x: (told.get("alpha", 0.2) * x + told.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _each(F.hardswish),
    "Identity": _each(lambda x: x),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda told, x: F.leaky_relu(x, told.get("alpha", 0.01)),
    "Log": _each(torch.log),
    "MatMul": _each(torch.matmul),
    "Max": _of_all(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _of_all(torch.minimum),
    "Mul": _each(torch.mul),
    "Neg": _each(torch.neg),
    "PRelu": lambda told, x, slope: torch.where(x < 0, slope * x, x),
    "Pad": _pad,
    "Pow": _each(torch.pow),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _each(F.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda told, x: torch.tensor(list(x.shape)[told.get("start", 0) : told.get("end")]),
    "Sigmoid": _each(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda told, x: x.softmax(dim=told.get("axis", -1)),
    "Softplus": _each(F.softplus),
    "Split": _split,
    "Sqrt": _each(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _each(torch.sub),
    "Sum": _of_all(torch.add),
    "Tanh": _each(torch.tanh),
    "Transpose": lambda told, x: x.permute(told.get("perm", list(range(x.ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
}
"""Operators of opset 18 that convolutional networks have."""
