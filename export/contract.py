"""What every graph must keep to: valid ONNX, the input image, named outputs, standard operators."""

from __future__ import annotations

import onnx

from msloc_edge.errors import ExportError


def check(model: onnx.ModelProto, outputs: list[str]) -> bytes:
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
