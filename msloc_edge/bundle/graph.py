"""What model.onnx may be: one flat graph of standard operators, with all its weights inside.

Tensors may lie in files beside it, whose bytes no hash covers. A graph inside a node, as Loop has it, may run for ever,
and functions that call each other nearly so. Nothing of this is exported, so that a file with it is refused before an
engine sees it. The file is read by the field numbers of onnx.proto (https://onnx.ai/onnx/repo-docs/IR.html), without
the package; src/graph.cpp of the C library does the same.
"""

from __future__ import annotations

from collections.abc import Iterator

_PARTS = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Message -> field -> the message in it, where it can hold what is refused."""

_REFUSED = {
    ("model", 25): "functions",
    ("attribute", 6): "a graph inside a node",
    ("attribute", 11): "graphs inside a node",
    ("tensor", 13): "weights in another file",
    ("tensor", 14): "weights in another file",
}
"""Message and field, where it is not 0."""

_DOMAIN, _STANDARD = ("node", 7), (b"", b"ai.onnx")
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}
_MAX_TAG = 1 << 32


def check_graph(model: bytes) -> None:
    """Look through an ONNX file. Raises ValueError, with what was found, for one that must not run."""
    todo = [("model", memoryview(model))]
    while todo:
        kind, message = todo.pop()
        for number, value in _fields(message):
            if isinstance(value, memoryview) and number in _PARTS[kind]:
                todo.append((_PARTS[kind][number], value))
            elif (kind, number) == _DOMAIN and (isinstance(value, int) or bytes(value) not in _STANDARD):
                raise ValueError("operators that are not standard")
            elif value != 0 and (kind, number) in _REFUSED:
                raise ValueError(_REFUSED[kind, number])


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message, number and value (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _varint(message, at) if wire == _LENGTH else (_FIXED.get(wire, 0), at)
        if (not size and wire != _LENGTH) or size > len(message) - at or tag >= _MAX_TAG:
            raise ValueError("something that is no ONNX")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it."""
    value = 0
    for shift, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, at + shift + 1
    raise ValueError("something that is no ONNX")
