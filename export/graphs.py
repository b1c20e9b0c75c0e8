"""Graphs that end in the localization map: the bundle's network and M_k, by standard operators or as one node.

    image [B, 1, H, W] -> logits [B, K], cams_1..cams_S [B, K, h_s, w_s], heatmap [B, K, H, W]

The node is CamFuse of the domain "msloc", for engines that have the fused kernel as a plugin:

    inputs      cams_1..cams_S [B, K, h_s, w_s] float32, relevance [K, S] float32
    attributes  height, width: of the map; plugin_namespace "msloc", plugin_version "1": how TensorRT finds it
    output      heatmap [B, K, H, W] float32

`definition` writes the node in standard operators; with it in the model any ONNX engine runs it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from msloc_edge.bundle import Bundle
from msloc_edge.errors import ExportError

HEATMAP, CAMFUSE, DOMAIN = "heatmap", "CamFuse", "msloc"

_RESIZE = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
"""`up` of the method: bilinear, half-pixel centres, clamped at the edge."""


def network_outputs(stages: int) -> list[str]:
    """Names of the outputs of a network of so many stages: logits, then the class maps, shallow to deep."""
    return ["logits", *(f"cams_{stage}" for stage in range(1, stages + 1))]


def class_maps(bundle: Bundle) -> list[str]:
    """Names of the outputs that hold the class maps, shallow to deep."""
    return network_outputs(len(bundle.stages))[1:]


def outputs(bundle: Bundle) -> list[str]:
    """Names of all outputs of a graph with the heatmap, in order."""
    return [*network_outputs(len(bundle.stages)), HEATMAP]


def check_graph(model: onnx.ModelProto, outputs: list[str]) -> bytes:
    """Serialise a graph after the ONNX checker, strict shape inference, and the contract of its inputs and outputs.

    Raises ExportError (parity) when one finds a fault, or an operator is not a standard one.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("parity", f"the ONNX graph is not valid: {error}") from error
    found = [output.name for output in model.graph.output]
    if [i.name for i in model.graph.input] != ["image"] or found != outputs:
        raise ExportError("parity", f"expected the input image and the outputs {outputs}, got {found}")
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        raise ExportError("parity", f"expected standard operators only, got the domains {sorted(foreign)}")
    return model.SerializeToString()


def with_heatmap(network: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Append Mul and Resize for each stage, and their Sum: standard operators, for any engine.

    Maps are weighted before they are enlarged, where they are small; the sum is the same.
    """
    model = _copy(network, bundle)
    graph, (height, width) = model.graph, bundle.input_size
    enlarged = []
    for at, (maps, stage) in enumerate(zip(class_maps(bundle), bundle.stages, strict=True)):
        weight, scales, weighted, up = (f"{name}_{at + 1}" for name in ("relevance", "scales", "weighted", "enlarged"))
        factors = np.array([1, 1, height / stage.height, width / stage.width], np.float32)
        graph.initializer.append(numpy_helper.from_array(bundle.relevance[:, at, None, None], weight))
        graph.initializer.append(numpy_helper.from_array(factors, scales))
        graph.node.append(helper.make_node("Mul", [maps, weight], [weighted], f"heatmap_weight_{at + 1}"))
        graph.node.append(helper.make_node("Resize", [weighted, "", scales], [up], f"heatmap_up_{at + 1}", **_RESIZE))
        enlarged.append(up)
    graph.node.append(helper.make_node("Sum", enlarged, [HEATMAP], "heatmap_sum"))
    return model


def with_camfuse(network: onnx.ModelProto, bundle: Bundle, defined: bool = False) -> onnx.ModelProto:
    """Append one CamFuse node; `defined` adds its meaning, for an engine without the plugin."""
    model = _copy(network, bundle)
    model.graph.initializer.append(numpy_helper.from_array(bundle.relevance, "relevance"))
    height, width = bundle.input_size
    # A function of ONNX takes no attribute that it does not declare: how TensorRT finds the plugin is left out there.
    found_by = {} if defined else {"plugin_namespace": DOMAIN, "plugin_version": "1"}
    model.graph.node.append(
        helper.make_node(
            CAMFUSE,
            [*class_maps(bundle), "relevance"],
            [HEATMAP],
            "heatmap_fuse",
            domain=DOMAIN,
            height=height,
            width=width,
            **found_by,
        )
    )
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    if defined:
        model.functions.append(definition(len(bundle.stages), opset_of(network)))
    return model


def definition(stages: int, opset: int) -> onnx.FunctionProto:
    """Write CamFuse of so many stages in standard operators, as a function of ONNX."""
    maps = network_outputs(stages)[1:]
    body = [
        "height = Constant <value_int: int = @height> ()",
        "width = Constant <value_int: int = @width> ()",
        "first = Constant <value_ints = [0]> ()",
        "over_cells = Constant <value_ints = [1, 2]> ()",
        "rows = Unsqueeze (height, first)",
        "columns = Unsqueeze (width, first)",
        "size = Concat <axis = 0> (rows, columns)",
    ]
    attributes = ", ".join(f'{key} = "{value}"' for key, value in _RESIZE.items())
    for at, name in enumerate(maps):
        body += [
            f"stage_{at} = Constant <value_int = {at}> ()",
            f"column_{at} = Gather <axis = 1> (relevance, stage_{at})",
            f"weight_{at} = Unsqueeze (column_{at}, over_cells)",
            f"weighted_{at} = Mul ({name}, weight_{at})",
            f"up_{at} = Resize <axes = [2, 3], {attributes}> (weighted_{at}, , , size)",
        ]
    body.append(f"{HEATMAP} = Sum ({', '.join(f'up_{at}' for at in range(stages))})")
    return onnx.parser.parse_function(
        f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n'
        f"{CAMFUSE} <height, width> ({', '.join(maps)}, relevance) => ({HEATMAP}) {{\n" + "\n".join(body) + "\n}"
    )


def _copy(network: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Copy the network, with one more output, which nothing gives yet."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    batch = network.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    shape = [batch, len(bundle.classes), *bundle.input_size]
    model.graph.output.append(helper.make_tensor_value_info(HEATMAP, onnx.TensorProto.FLOAT, shape))
    return model


def opset_of(network: onnx.ModelProto) -> int:
    """Version of the standard operators that a graph is written in."""
    return next(entry.version for entry in network.opset_import if entry.domain in ("", "ai.onnx"))
