"""Triton's own launches in the interpreter: what it compiles for a device that is not there runs on host tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from interpreter import Executed, Memory, launch
from triton import knobs
from triton.compiler.compiler import CompiledKernel

from msloc_edge.kernels.ahead import compiled_for

SCRATCH = (0, 0)
"""Pointers that Triton adds to the arguments; no kernel here reads them."""


@dataclass(frozen=True, slots=True)
class Launched:
    """One launch: what Triton compiled for it (launches that share a form share its hash), and what it did."""

    compiled: CompiledKernel
    executed: Executed


@contextmanager
def interpreted(sm: int = 90) -> Iterator[list[Launched]]:
    """Let kernels of Triton be launched on tensors of the host; the launches are listed in order."""
    launches: list[Launched] = []

    def execute(compiled: CompiledKernel, grid: tuple[int, ...], values: Mapping[str, Any]) -> None:
        launches.append(Launched(compiled, _execute(compiled, (*grid, 1, 1)[:3], values)))

    with compiled_for(sm, execute), knobs.compilation.scope():
        knobs.compilation.disable_line_info = True
        yield launches


def _execute(compiled: CompiledKernel, grid: tuple[int, ...], values: Mapping[str, Any]) -> Executed:
    memory = Memory()
    mapped: dict[int, int] = {}
    params: list[int] = []
    for kind, value in _arguments(compiled.src.signature, values):
        params.append(_mapped(memory, mapped, value) if kind.startswith("*") else int(value))
    x, y, z = grid
    block, shared = 32 * compiled.metadata.num_warps, compiled.metadata.shared
    return launch(compiled.asm["ptx"], compiled.name, (x, y, z), block, [*params, *SCRATCH], memory, shared=shared)


def _arguments(signature: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Types and values of what is left to the launch: not constants, nor numbers that were compiled in."""
    for name, kind in signature.items():
        if isinstance(kind, tuple):
            yield from _arguments(dict(enumerate(kind)), dict(enumerate(values[name])))  # type: ignore[arg-type]
        elif kind != "constexpr":
            yield kind, values[name]


def _mapped(memory: Memory, mapped: dict[int, int], tensor: torch.Tensor) -> int:
    """The tensor's own address, as memory that a kernel may read and write."""
    address = tensor.data_ptr()
    if address not in mapped:
        raw = (ctypes.c_uint8 * (tensor.numel() * tensor.itemsize)).from_address(address)
        memory.map(address, np.frombuffer(raw, f"u{tensor.itemsize}"), written=True)
        mapped[address] = address
    return address
