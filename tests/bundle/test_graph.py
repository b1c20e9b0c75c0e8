"""What model.onnx may be: graphs made with the onnx package, and files that no package would write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from msloc_edge.bundle import ONNX, SHIPPED
from msloc_edge.bundle.graph import check_graph

WEIGHT = numpy_helper.from_array(np.ones((2, 3), np.float32), "weight")


def outside() -> TensorProto:
    """A tensor whose values lie in a file beside the graph's."""
    tensor = TensorProto(name="weight", dims=[2, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    return tensor


def graph(*nodes: onnx.NodeProto, initializer: TensorProto = WEIGHT) -> GraphProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    return helper.make_graph(nodes or [helper.make_node("Identity", ["weight"], ["y"])], "g", [], [y], [initializer])


def model(*nodes: onnx.NodeProto, initializer: TensorProto = WEIGHT) -> ModelProto:
    return helper.make_model(graph(*nodes, initializer=initializer))


def sparse() -> ModelProto:
    made = model()
    made.graph.sparse_initializer.append(SparseTensorProto(values=outside(), dims=[2, 3]))
    return made


def with_function() -> ModelProto:
    made = model()
    node = helper.make_node("Identity", ["a"], ["b"])
    made.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], [node], made.opset_import))
    return made


def several_graphs() -> ModelProto:
    node = helper.make_node("Identity", ["weight"], ["y"])
    node.attribute.append(AttributeProto(name="bodies", type=AttributeProto.GRAPHS, graphs=[graph()]))
    return model(node)


def test_what_ships() -> None:
    check_graph((SHIPPED / "cxr-edge" / ONNX).read_bytes())


def test_one_that_says_what_goes_without_saying() -> None:
    said = TensorProto.FromString(WEIGHT.SerializeToString())
    said.data_location = TensorProto.DEFAULT
    assert said.SerializeToString() != WEIGHT.SerializeToString()
    check_graph(model(initializer=said).SerializeToString())


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (model(initializer=outside()), "weights in another file"),
        (model(helper.make_node("Constant", [], ["y"], value=outside())), "weights in another file"),
        (sparse(), "weights in another file"),
        (model(helper.make_node("Loop", ["n"], ["y"], body=graph())), "a graph inside a node"),
        (
            model(helper.make_node("If", ["c"], ["y"], then_branch=graph(), else_branch=graph())),
            "a graph inside a node",
        ),
        (several_graphs(), "graphs inside a node"),
        (with_function(), "functions"),
        (model(helper.make_node("EPContext", [], ["y"], domain="com.microsoft")), "operators that are not standard"),
    ],
)
def test_what_is_not_exported_is_refused(made: ModelProto, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}$"):
        check_graph(made.SerializeToString())


def test_numbers_of_more_bytes_than_needed_hide_nothing() -> None:
    """protobuf also takes a tag or a length whose last byte adds nothing."""
    hidden = graph(initializer=outside()).SerializeToString()
    length = bytes([len(hidden) & 127 | 128, len(hidden) >> 7 | 128, 0])
    data = (
        model().SerializeToString() + bytes([7 << 3 | 2 | 128, 0]) + length + hidden
    )  # a second graph: they are merged
    assert ModelProto.FromString(data).graph.initializer[-1].external_data
    with pytest.raises(ValueError, match="weights in another file"):
        check_graph(data)


@pytest.mark.parametrize(
    "data",
    [
        b"not a graph",
        b"\x3a\x05\x0a",  # longer than the file
        b"\x3a" + b"\xff" * 9 + b"\x01",
        b"\xff" * 11,
        b"\x3b\x3c",  # a group
        b"\xba\x80\x80\x80\x80\x01\x00",  # a tag of more than 32 bits
    ],
)
def test_what_is_no_onnx(data: bytes) -> None:
    with pytest.raises(ValueError, match="something that is no ONNX"):
        check_graph(data)


def test_damage_is_refused_or_harmless() -> None:
    """Every byte of a small graph changed, and every cut: nothing but ValueError, and where onnx still reads weights in
    another file, they are found."""
    whole = model(initializer=outside()).SerializeToString()
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :]):
            try:
                check_graph(data)
            except ValueError:
                continue
            try:
                read = ModelProto.FromString(data)
            except Exception:  # protobuf's own
                continue
            assert not any(tensor.external_data or tensor.data_location for tensor in read.graph.initializer)


@pytest.mark.parametrize("name", ["ext_unlisted", "loop"])
def test_hostile_graphs(name: str) -> None:
    file = Path(__file__).parents[3] / "shared" / "cases" / "hostile" / "bundles" / name / ONNX
    if not file.exists():
        pytest.skip(f"the cases are not here: {file}")
    with pytest.raises(ValueError, match=r"weights in another file|a graph inside a node"):
        check_graph(file.read_bytes())
