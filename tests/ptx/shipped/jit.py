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
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import CompiledKernel
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

SCRATCH = (0, 0)
"""Pointers that Triton adds to the arguments; no kernel here reads them."""


@dataclass(frozen=True, slots=True)
class Launched:
    """One launch: what Triton compiled for it (launches that share a form share its hash), and what it did."""

    compiled: CompiledKernel
    executed: Executed


@dataclass(frozen=True, slots=True)
class NoDevice:
    """What Triton asks its driver before it compiles."""

    sm: int

    def get_current_device(self) -> str:
        return f"interpreted sm_{self.sm}"

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.sm, 32)


@contextmanager
def interpreted(sm: int = 90) -> Iterator[list[Launched]]:
    """Let kernels of Triton be launched on tensors of the host; the launches are listed in order."""
    launches: list[Launched] = []
    run, active = JITFunction.run, driver._active

    def interpret(
        kernel: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, **kwargs: Any
    ) -> CompiledKernel:
        compiled = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        named = {name: value for name, value in kwargs.items() if name in kernel.arg_names}
        values = kernel.signature.bind(*args, **named).arguments
        launches.append(Launched(compiled, _execute(compiled, (*grid, 1, 1)[:3], values)))
        return compiled

    JITFunction.run = interpret
    driver.set_active(NoDevice(sm))
    try:
        with knobs.compilation.scope():
            knobs.compilation.disable_line_info = True
            yield launches
    finally:
        JITFunction.run, driver._active = run, active


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
