"""One form of a kernel as it ships: its PTX, and how it is launched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from interpreter import Executed, Memory, launch
from numpy.typing import DTypeLike, NDArray

from msloc_edge.cuda.compiled import ALIGNMENT, Compiled, grid_size
from msloc_edge.kernels.aot.build import to_ptx
from msloc_edge.kernels.aot.ptx import entry
from msloc_edge.kernels.aot.spec import Variant
from msloc_edge.kernels.aot.variants import variants

DTYPES = {"fp16": np.float16, "fp32": np.float32}
LIMITS = {"fp16": 5e-4, "fp32": 1e-6}
"""Of an RMS error relative to the RMS of what is right, by the type that is stored."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A kernel; two devices whose PTX differs in its header alone have equal ones.

    operation, variant, dtype  as in kernels.json
    text                       PTX without .version and .target
    arguments                  names, in the order of the launch
    aligned                    those whose address is a multiple of ALIGNMENT, by the caller's promise
    grid, block, shared        as in kernels.json
    """

    operation: str
    variant: str
    dtype: str
    text: str
    entry: str
    arguments: tuple[str, ...]
    aligned: tuple[str, ...]
    grid: tuple[str, str, str]
    block: int
    shared: int

    @property
    def numpy_type(self) -> type[np.floating]:
        return DTYPES[self.dtype]

    def skew(self, name: str, dtype: DTypeLike) -> int:
        """Bytes from a well aligned address to the worst one that the argument may have."""
        return ALIGNMENT if name in self.aligned else np.dtype(dtype).itemsize

    def put(self, memory: Memory, name: str, array: NDArray[np.generic]) -> int:
        """Place an input where the argument may lie at worst."""
        return memory.put(array, self.skew(name, array.dtype))

    def empty(self, memory: Memory, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> int:
        """Place an output, poisoned, where the argument may lie at worst."""
        return memory.empty(shape, dtype, self.skew(name, dtype))

    def launch(self, memory: Memory, values: Mapping[str, int], ulps: int = 0) -> Executed:
        """Run it. `values` has every argument by name, and B and J where the grid needs them."""
        params = [values[name] for name in self.arguments]
        grid = grid_size(self.grid, values)
        return launch(self.text, self.entry, grid, self.block, params, memory, shared=self.shared, ulps=ulps)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a launch ended.

    error     of floats, RMS relative to the RMS of what is right; infinite where a whole number is wrong, or something
              was not written
    limit     to the error
    pixels    of the result, or of the maps that were read
    executed  by the launch
    """

    error: float
    limit: float
    pixels: int
    executed: Executed

    @property
    def right(self) -> bool:
        return self.error <= self.limit and not self.executed.races

    def __str__(self) -> str:
        races = "; ".join(f"line {race.line}, {race.text}" for race in self.executed.races.values())
        return f"error {self.error:.2e} (limit {self.limit:.0e}), races: {races or 'none'}"


def rms_error(found: NDArray[np.generic], right: NDArray[np.float64]) -> float:
    """Error relative to the RMS of what is right; infinite unless NaN is exactly where it has to be."""
    found = found.reshape(right.shape).astype(np.float64)
    if (np.isnan(found) != np.isnan(right)).any():
        return float("inf")
    known = ~np.isnan(right)
    if not known.any():
        return 0.0
    scale = float(np.sqrt(np.mean(right[known] ** 2))) or 1.0
    return float(np.sqrt(np.mean((found[known] - right[known]) ** 2))) / scale


def exact(found: NDArray[np.generic], right: NDArray[np.generic]) -> float:
    """Error of whole numbers: none, or infinite."""
    return 0.0 if np.array_equal(found.reshape(right.shape), right) else float("inf")


def written(memory: Memory, *addresses: int) -> float:
    """Error of what was to be written: none, or infinite."""
    return float("inf") if any(memory.unwritten(address) for address in addresses) else 0.0


@cache
def of_variant(name: str, sm: int) -> Shipped:
    """Compile the form of this name, operation.variant.dtype, for a device.

    Triton keeps on disk what it has compiled, by the hash of its source.
    """
    variant = next(variant for variant in variants() if variant.name == name)
    text, shared = to_ptx(variant, sm)
    return _shipped(variant, text, 32 * variant.num_warps, shared)


def of_compiled(folder: Path, kernel: Compiled) -> Shipped:
    """Read a kernel of a folder that `python -m msloc_edge.kernels.aot` made."""
    return _shipped(kernel, (folder / kernel.files["ptx"]).read_text(), kernel.block, kernel.shared)


def _shipped(declared: Variant | Compiled, text: str, block: int, shared: int) -> Shipped:
    return Shipped(
        operation=declared.operation,
        variant=declared.variant,
        dtype=declared.dtype,
        text=re.sub(r"^\.(version|target) .*$", "", text, flags=re.MULTILINE),
        entry=entry(text)[0],
        arguments=tuple(argument.name for argument in declared.arguments),
        aligned=tuple(declared.aligned),
        grid=declared.grid,
        block=block,
        shared=shared,
    )
