"""Somebody's network as the graph of a bundle: image -> logits, class maps.

A classifier that ends in global average pooling and one linear layer has exact class maps (Zhou et al. 2016, arXiv
1512.04150): pooling and the linear layer change places.

    z_k = b_k + sum_c W_kc mean(F_c) = b_k + mean(A_k),   A_k = sum_c W_kc F_c

A_k [h, w] is a 1x1 convolution of the features F [C, h, w] with the weights of the linear layer.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from msloc_edge.backends.onnxruntime import ERRORS_ONLY, PROVIDERS, open_session
from msloc_edge.errors import ExportError
from msloc_edge.export.graphs import check_graph, network_outputs, opset_of
from msloc_edge.export.onnx import OPSET

IR_VERSION = 10

F32 = NDArray[np.float32]

CLASSIFIER = "head.classifiers.0.weight"
"""Name of the weights of class maps that are found, as in our own networks: `bench` knows the classifier by it."""

_PASSED = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
"""Operators between pool, linear layer and output that move no value to another class."""


def _sigmoid(z: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-z)), np.float32)


def _softmax(z: F32) -> F32:
    shares = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


ENDINGS: Mapping[str, Callable[[F32], F32]] = {"Sigmoid": _sigmoid, "Softmax": _softmax}
"""Operators behind the logits, which are left off: a bundle has its own calibrated sigmoid."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and deviation of each channel that a network's input was normalised with, of pixels in [0, 1]."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def of(self, channels: int) -> tuple[F32, F32]:
        """Give mean and deviation as [1, channels, 1, 1]. Raises ValueError for another number of channels."""
        if {len(self.mean), len(self.std)} - {1, channels} or not min(self.std) > 0:
            got = "/".join(",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
            raise ValueError(f"expected a mean and a deviation above 0 for each of {channels} channels, got {got}")
        mean, std = (
            np.resize(np.asarray(values, np.float32), channels).reshape(1, -1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std


@dataclass(frozen=True, slots=True, eq=False)
class Wrapped:
    """A graph as a bundle has it, and how it accounts for its logits. K classes, S stages.

    model   image [B, 1, size, size] in [0, 1] -> logits [B, K], cams_1..cams_S [B, K, h_s, w_s], shallow to deep
    grids   (h_s, w_s) of each stage
    bias    [K]: logit = bias + mean of the map; None where the graph's class maps came from its author
    ending  operator of ENDINGS that was behind the logits; none where ""
    """

    model: onnx.ModelProto
    size: int
    grids: tuple[tuple[int, int], ...]
    bias: F32 | None
    ending: str


def wrap_graph(
    model: onnx.ModelProto,
    normalisation: Normalisation,
    classes: int,
    size: int | None = None,
    logits: str | None = None,
    cams: Sequence[str] = (),
) -> Wrapped:
    """Make a bundle's graph of a network in ONNX.

    model   one input of pixels, [B, 1 or 3, H, W] float32
    size    side of the input in pixels; None: the graph's own
    logits  name of the output with K values for each film; None: the first
    cams    names of the outputs with class maps [B, K, h, w]; none: they are found as the module says

    The batch may be of any size, whatever the graph said. Raises ExportError (wrap_unsupported) with what stands in the
    way; the model is left as it was.
    """
    graph = _Graph(model)
    channels = graph.resize(size)
    logits = logits or graph.model.graph.output[0].name
    graph.require([logits, *cams])
    graph.simplify([logits, *cams])
    logits, ending = graph.logits(logits)
    bias: F32 | None = None
    if not cams:
        maps, bias = graph.class_maps(logits, classes)
        cams = [maps]
    graph.finish(logits, cams, normalisation, channels)
    grids = graph.check(classes, len(cams))
    return Wrapped(graph.model, graph.size, grids, bias, ending)


class _Graph:
    """A copy of somebody's graph, step by step on its way to a bundle's."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.size = 0
        graph = self.model.graph
        constants = {value.name for value in graph.initializer}
        inputs = [value for value in graph.input if value.name not in constants]  # old exporters list the weights, too
        if len(inputs) != 1:
            raise _unsupported(f"expected one input, got {[value.name for value in inputs]}")
        del graph.input[:]
        graph.input.append(inputs[0])
        self.model.ir_version = IR_VERSION

    def resize(self, size: int | None) -> int:
        """Let the batch be of any size, and set the side of the input; returns the number of channels."""
        graph = self.model.graph
        tensor = graph.input[0].type.tensor_type
        dims = tensor.shape.dim
        if len(dims) != 4 or tensor.elem_type != TensorProto.FLOAT or dims[1].dim_value not in (1, 3):
            got = [dim.dim_value or dim.dim_param or "?" for dim in dims]
            raise _unsupported(f"expected an input of float32 [batch, 1 or 3 channels, height, width], got {got}")
        own = {dim.dim_value for dim in dims[2:]} - {0}
        if len(own) > 1 or not (own or size) or (size and own - {size}):
            sides = " x ".join(str(dim.dim_value or "any") for dim in dims[2:])
            told = f", and --size {size}" if size else ""
            raise _unsupported(f"expected a square input whose side the graph or --size tells, got {sides}{told}")
        self.size = size or own.pop()
        batch = dims[0].dim_value
        dims[0].dim_param = "batch"
        for dim in dims[2:]:
            dim.dim_value = self.size
        if batch:
            self._free_batch(batch)
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        del graph.value_info[:]
        return int(dims[1].dim_value)

    def _free_batch(self, batch: int) -> None:
        """Let Reshape take the batch from what it gets, where a constant says how large it is."""
        targets = {node.input[1] for node in self.model.graph.node if node.op_type == "Reshape"}
        for value in self.model.graph.initializer:
            if value.name in targets:
                shape = numpy_helper.to_array(value).copy()
                if len(shape) > 1 and shape[0] == batch:
                    shape[0] = 0  # as it comes
                    value.CopyFrom(numpy_helper.from_array(shape, value.name))

    def require(self, names: Sequence[str]) -> None:
        """Refuse names that are not outputs."""
        own = [value.name for value in self.model.graph.output]
        missing = [name for name in names if name not in own]
        if missing:
            raise _unsupported(f"expected outputs among {', '.join(own)}, got {', '.join(missing)}")

    def simplify(self, outputs: Sequence[str]) -> None:
        """Keep what these outputs need; fold constants and normalisations, and convert to the bundle's operators."""
        graph = self.model.graph
        kept = [value for name in outputs for value in graph.output if value.name == name]
        del graph.output[:]
        graph.output.extend(kept)
        try:
            self.model = _optimized(self.model)
            if opset_of(self.model) != OPSET:
                self.model = onnx.version_converter.convert_version(self.model, OPSET)
        except Exception as error:  # onnxruntime's and the converter's exceptions share no base of their own
            raise _unsupported(f"the graph cannot be simplified: {str(error).splitlines()[0]}") from error

    def logits(self, output: str) -> tuple[str, str]:
        """Give the tensor with the logits behind which an output stands, and the ending that was between, or ""."""
        before = self._passed(output)
        node = self._maker(before)
        return (node.input[0], node.op_type) if node is not None and node.op_type in ENDINGS else (output, "")

    def _passed(self, name: str) -> str:
        """Give the tensor from which only operators that move no value lead to `name`."""
        while (node := self._maker(name)) is not None and node.op_type in _PASSED:
            name = node.input[0]
        return name

    def class_maps(self, logits: str, classes: int) -> tuple[str, F32]:
        """Add the class maps of a classifier: the name of a tensor [B, K, h, w], and the bias [K] of the logits."""
        weight, bias, pooled = self._linear(self._passed(logits))
        pool = self._maker(self._passed(pooled))
        if pool is None or not self._is_average(pool):
            got = "nothing" if pool is None else pool.op_type
            raise _unsupported(
                f"expected global average pooling and one linear layer before the logits, got {got}; name outputs with "
                "class maps, or train our own head on it (--backbone)"
            )
        features = pool.input[0]
        if weight is None:
            return features, np.zeros(classes, np.float32)
        self.model.graph.initializer.append(numpy_helper.from_array(weight[:, :, None, None], CLASSIFIER))
        self.model.graph.node.append(
            helper.make_node("Conv", [features, CLASSIFIER], ["msloc_cams"], "msloc_cams", kernel_shape=[1, 1])
        )
        return "msloc_cams", bias

    def _linear(self, name: str) -> tuple[F32 | None, F32, str]:
        """Read the linear layer that gives a tensor: weight [K, C], None where there is none; bias [K]; its input."""
        node = self._maker(name)
        bias: F32 | None = None
        if node is not None and node.op_type == "Add":
            values = [self._constant(part) for part in node.input]
            at = next((at for at, value in enumerate(values) if value is not None), None)
            if at is not None:
                bias, node = values[at].ravel(), self._maker(self._passed(node.input[1 - at]))  # type: ignore[union-attr]
        if node is None or node.op_type not in ("Gemm", "MatMul", "Conv"):
            return None, np.zeros(0, np.float32), name
        weight = self._constant(node.input[1])
        told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if weight is None or told.get("transA") or told.get("group", 1) != 1:
            raise _unsupported(f"expected a linear layer with constant weights, got {node.op_type} {node.name}")
        if node.op_type == "Conv":
            if weight.shape[2:] != (1, 1):
                return None, np.zeros(0, np.float32), name
            weight = weight[:, :, 0, 0]
        elif not told.get("transB"):
            weight = weight.T
        if len(node.input) > 2 and bias is None:
            constant = self._constant(node.input[2])
            bias = None if constant is None else np.float32(told.get("beta", 1.0)) * constant.ravel()
        weight = np.ascontiguousarray(weight * np.float32(told.get("alpha", 1.0)))
        return weight, np.resize(np.float32(0) if bias is None else bias, len(weight)), node.input[0]

    def _is_average(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node averages each channel over its whole grid."""
        if node.op_type == "GlobalAveragePool":
            return True
        told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "ReduceMean":
            axes = self._constant(node.input[1]) if len(node.input) > 1 else np.array(told.get("axes", []))
            return axes is not None and sorted(int(axis) % 4 for axis in axes.ravel()) == [2, 3]
        grid = self._shapes().get(node.input[0], ())[2:]
        return (
            node.op_type == "AveragePool"
            and tuple(told["kernel_shape"]) == tuple(grid)
            and not any(told.get("pads", ()))
        )

    def finish(self, logits: str, cams: Sequence[str], normalisation: Normalisation, channels: int) -> None:
        """Put the normalisation before the network, and name inputs and outputs as in a bundle."""
        graph = self.model.graph
        try:
            mean, std = normalisation.of(channels)
        except ValueError as error:
            raise _unsupported(str(error)) from error
        shapes = self._shapes()
        cams = sorted(cams, key=lambda name: -(shapes.get(name) or (0, 0, 0))[2])
        names = network_outputs(len(cams))
        own = {name: f"net_{name}" for name in ("image", *names)}
        self._rename(own)
        logits, *cams = (own.get(name, name) for name in (logits, *cams))
        # Renamed, not passed on by a node that does nothing: OpenVINO takes such nodes out, and their names with them.
        flat = len(shapes.get(logits, (0, 0))) == 2
        self._rename(dict(zip((logits, *cams), ("logits" if flat else logits, *names[1:]), strict=True)))
        old = graph.input[0].name
        for key, value in (("msloc_mean", mean), ("msloc_std", std)):
            graph.initializer.append(numpy_helper.from_array(value, key))
        front = [  # one grey channel becomes as many as the network reads, by broadcasting
            helper.make_node("Sub", ["image", "msloc_mean"], ["msloc_centred"], "msloc_centre"),
            helper.make_node("Div", ["msloc_centred", "msloc_std"], [old], "msloc_scale"),
        ]
        ends = [] if flat else [helper.make_node("Flatten", [logits], ["logits"], "msloc_logits", axis=1)]
        nodes = [*front, *graph.node, *ends]
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
        for number, node in enumerate(nodes):
            node.name = node.name or f"{node.op_type}_{number}"
        graph.node.extend(_needed(nodes, names))
        graph.input.append(_tensor("image", ["batch", 1, self.size, self.size]))
        used = {name for node in graph.node for name in node.input}
        kept = [value for value in graph.initializer if value.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def check(self, classes: int, stages: int) -> tuple[tuple[int, int], ...]:
        """Write the outputs' shapes into the graph, by running it; check them, and the graph as every bundle's.

        returns  the grid of each stage
        """
        names = network_outputs(stages)
        graph = self.model.graph
        graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        found = _run_twice(self.model, names, self.size)
        grids = []
        for name, value in zip(names, found, strict=True):
            expected = f"expected {classes} classes, got {name} of shape {list(value.shape)}"
            if value.ndim != (2 if name == "logits" else 4) or value.shape[1] != classes:
                raise _unsupported(f"{expected}; do --classes and the outputs fit?")
            if name != "logits":
                grids.append((value.shape[2], value.shape[3]))
        for (height, width), (rows, columns) in itertools.pairwise([(self.size, self.size), *grids]):
            if height % rows or width % columns:
                raise _unsupported(
                    f"expected grids that divide the one before, from {self.size} pixels on, got {grids}; choose "
                    "another --size"
                )
        del graph.output[:]
        shapes: list[list[str | int]] = [["batch", classes], *(["batch", classes, *grid] for grid in grids)]
        graph.output.extend(itertools.starmap(_tensor, zip(names, shapes, strict=True)))
        self.model.producer_name, self.model.producer_version = "msloc-edge", ""
        self.model.ParseFromString(check_graph(self.model, names))
        return tuple(grids)

    def _rename(self, names: Mapping[str, str]) -> None:
        """Rename tensors wherever they stand."""
        graph = self.model.graph
        for value in (*graph.input, *graph.initializer):
            value.name = names.get(value.name, value.name)
        for node in graph.node:
            for part in (node.input, node.output):
                part[:] = [names.get(name, name) for name in part]

    def _maker(self, name: str) -> onnx.NodeProto | None:
        return next((node for node in self.model.graph.node if name in node.output), None)

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        value = next((value for value in self.model.graph.initializer if value.name == name), None)
        return None if value is None else numpy_helper.to_array(value)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the graph's tensors, 0 where unknown."""
        inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        values = [*inferred.value_info, *inferred.output, *inferred.input]
        return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values}


def _optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let onnxruntime write the graph that it would run, of standard operators."""
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDERS["cpu"]])
        found = onnx.load(options.optimized_model_filepath)
    used = {node.domain for node in found.graph.node}
    kept = [entry for entry in found.opset_import if entry.domain in ("", "ai.onnx") or entry.domain in used]
    del found.opset_import[:], found.metadata_props[:]
    found.opset_import.extend(kept)
    found.ir_version = IR_VERSION
    return found


def _run_twice(model: onnx.ModelProto, names: Sequence[str], size: int) -> list[F32]:
    """Run two films together and one by one: the outputs must be the same. Returns those of the two."""
    films = np.random.default_rng(0).random((2, 1, size, size), np.float32)
    try:
        session = open_session(model.SerializeToString())
        together = [np.asarray(value) for value in session.run(names, {"image": films})]
        single = [[np.asarray(v) for v in session.run(names, {"image": film[None]})] for film in films]
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise _unsupported(f"it does not run on two films at a time: {str(error).splitlines()[0]}") from error
    for at, value in enumerate(together):
        alone = np.concatenate([each[at] for each in single])
        if alone.shape != value.shape or not np.allclose(alone, value, rtol=1e-3, atol=1e-3):
            raise _unsupported(f"two films together give another {names[at]} than each by itself")
    return together


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Keep the nodes that some outputs need, in their order."""
    wanted, kept = set(outputs), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _tensor(name: str, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _unsupported(why: str) -> ExportError:
    return ExportError("wrap_unsupported", why)
