"""Kernels that were compiled ahead of time: kernels.json, and the files that it names."""

from __future__ import annotations

import ast
import hashlib
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from msloc_edge.errors import BackendError

SCHEMA = "msloc-edge/kernels/3"
INDEX = "kernels.json"
SIZES = {"i32": 4, "u32": 4, "fp32": 4, "i64": 8, "u64": 8, "fp64": 8}
"""Bytes of a scalar argument by its Triton type; a pointer, "*fp16", has 8."""

ALIGNMENT = 16
"""Bytes: the address of an `aligned` pointer is a multiple of it."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One kernel argument, with Triton's name of its type: "*fp16" is a pointer."""

    name: str
    type: str

    @property
    def size(self) -> int:
        """Bytes."""
        return 8 if self.type.startswith("*") else SIZES[self.type]


@dataclass(frozen=True, slots=True)
class TileRule:
    """Rule for the argument tile_h, rows of a map that one program computes.

    Many rows share what is computed once a column, few leave no multiprocessor without work: the first of `heights`
    that makes `min_programs` programs is taken, else the last.
    """

    heights: tuple[int, ...]
    min_programs: int

    def tile_h(self, maps: Any, size: tuple[int, int], columns: int) -> Any:
        """Choose tile_h for a number of maps of (H, W) = size, by programs of `columns` columns.

        maps is an int, or TensorRT's symbol for one: so nothing here branches on it, or asks more of it than + * < ==.

        >>> TileRule((128, 32, 16), 400).tile_h(140, (96, 288), 256)  # 280 programs of 128 rows, 840 of 32
        32
        """
        height, width = size
        tiles = maps * -(-width // columns)
        chosen: Any = self.heights[-1]
        for taller, lower in pairwise(self.heights):
            enough = (tiles * -(-height // taller) < self.min_programs) == 0
            chosen = enough * (taller - lower) + chosen  # a constant below 0 is nothing that TensorRT's dimensions have
        return chosen


@dataclass(frozen=True, slots=True)
class Compiled:
    """An entry of kernels.json.

    operation, variant  name of the kernel, such as "fuse_cams", and of one of its forms
    sm, portable        the device that it is for; the portable form is PTX alone, for every device from that one on
    dtype               of the maps that the kernel reads or writes: "fp16" or "fp32"
    entry               name of the function in the files
    arguments           in the order of the launch, tuples spelled out
    aligned             names of those whose address has to be a multiple of ALIGNMENT; others' suits their type
    grid                blocks along x, y, z: expressions over argument names, +, -, *, // and cdiv (see `grid_size`)
    block               threads of a block
    tile                rule for the argument tile_h; None where there is none
    registers, spills   per thread; bytes stored and loaded. Of the portable form the worst of all sm
    shared              bytes of dynamic shared memory to launch with
    triton, ptxas       the versions that made it
    files, sha256       by kind, "ptx" or "cubin": name beside kernels.json, and hash
    """

    operation: str
    variant: str
    sm: int
    portable: bool
    dtype: str
    entry: str
    arguments: tuple[Argument, ...]
    aligned: tuple[str, ...]
    grid: tuple[str, str, str]
    block: int
    tile: TileRule | None
    registers: int
    spills: int
    shared: int
    triton: str
    ptxas: str
    files: Mapping[str, str]
    sha256: Mapping[str, str]

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Compiled:
        """Read an entry. Raises KeyError or TypeError when it is not one."""
        arguments = tuple(Argument(**argument) for argument in entry["arguments"])
        x, y, z = entry["grid"]
        rule = entry["tile"]
        tile = rule and TileRule(tuple(rule["heights"]), rule["min_programs"])
        aligned = tuple(entry["aligned"])
        return cls(**{**entry, "arguments": arguments, "aligned": aligned, "grid": (x, y, z), "tile": tile})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Picked:
    """A kernel and the verified bytes of its best file for one device: a cubin, or PTX that the driver compiles."""

    kernel: Compiled
    image: bytes


def read_index(folder: Path) -> list[Compiled]:
    """Read the entries of a folder's kernels.json. Raises BackendError: kernel_unusable."""
    index = folder / INDEX
    try:
        content = json.loads(index.read_bytes())
        if content["schema"] != SCHEMA:
            raise BackendError(
                "kernel_unusable",
                f"{index}: expected schema {SCHEMA}, got {content['schema']!r}; compile with this msloc-edge",
            )
        return [Compiled.from_dict(entry) for entry in content["kernels"]]
    except OSError as error:
        raise BackendError(
            "kernel_unusable",
            f"{index}: cannot be read ({error.strerror}); make it: python -m msloc_edge.kernels.aot --out {folder}",
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError("kernel_unusable", f"{index}: not a list of kernels ({error!r}); compile again") from error


def pick(folder: str | Path, operation: str, dtype: str, sm: int, variant: str = "") -> Picked:
    """Pick the cubin of exactly this SM, else the portable PTX, as its hash says it was written.

    variant  one of the operation's forms; "" where it has only one
    Raises BackendError: kernel_unusable.
    """
    folder = Path(folder)
    known = [k for k in read_index(folder) if (k.operation, k.dtype) == (operation, dtype)]
    fitting = [k for k in known if k.variant == variant]
    usable = [k for k in fitting if (not k.portable and k.sm == sm) or (k.portable and k.sm <= sm)]
    if not usable:
        have = ", ".join(sorted({k.variant or "the only one" for k in known})) or "no variant"
        devices = ", ".join(sorted({f"sm_{k.sm}{' or newer' * k.portable}" for k in fitting})) or "no device"
        raise BackendError(
            "kernel_unusable",
            f"{folder}: expected {operation} ({variant or 'its only variant'}, {dtype}) for sm_{sm}, "
            f"found variants: {have}; of this one for: {devices}",
        )
    best = min(usable, key=lambda kernel: kernel.portable)
    kind = "ptx" if best.portable else "cubin"
    file = folder / best.files[kind]
    try:
        image = file.read_bytes()
    except OSError as error:
        raise BackendError("kernel_unusable", f"{file}: cannot be read ({error.strerror}); compile again") from error
    if hashlib.sha256(image).hexdigest() != best.sha256[kind]:
        raise BackendError("kernel_unusable", f"{file}: not the file that {INDEX} names; compile or copy it again")
    return Picked(best, image)


def grid_size(grid: tuple[str, str, str], values: Mapping[str, int]) -> tuple[int, int, int]:
    """Count the blocks of a launch by a kernel's grid rule, from the values of the names in it.

    >>> grid_size(("cdiv(width, 128)", "maps", "1"), {"width": 300, "maps": 14})
    (3, 14, 1)
    """
    x, y, z = (_evaluate(ast.parse(rule, mode="eval").body, values) for rule in grid)
    return x, y, z


_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _evaluate(node: ast.expr, values: Mapping[str, int]) -> int:
    """Evaluate whole numbers, names, four operators, and cdiv(a, b), which rounds up: a rule from a file is no code."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.left, values), _evaluate(node.right, values))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "cdiv" and len(node.args) == 2:
        dividend, divisor = (_evaluate(argument, values) for argument in node.args)
        return -(-dividend // divisor)
    raise BackendError(
        "kernel_unusable",
        f"a grid rule with {ast.unparse(node)}: expected names of {sorted(values)}, + - * // and cdiv",
    )
