"""Kernels that were compiled ahead of time, launched through CUDA's driver: no Triton, no torch, no compiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msloc_edge.cuda.compiled import ALIGNMENT, Compiled, Picked, grid_size, pick
from msloc_edge.cuda.providers import Dimensions, Provider, open_provider
from msloc_edge.errors import BackendError

__all__ = ["Device", "Kernel", "grid_size", "pick"]


class Kernel:
    """A loaded kernel.

    facts  its entry of kernels.json
    """

    def __init__(self, provider: Provider, function: Any, facts: Compiled) -> None:
        self.facts = facts
        self._provider, self._function = provider, function

    def launch(self, grid: Dimensions, values: Sequence[float], stream: Any = 0) -> None:
        """Put one launch on a stream, and return at once.

        grid    blocks along x, y, z; `grid_size(facts.grid, ...)` computes them
        values  as `facts.arguments` has them: addresses on the device as int, numbers
        stream  a handle as int, 0 for the default one, or a stream of the package that provides the driver
        Raises BackendError backend_failed when the values cannot be those of this kernel, or the driver refuses.
        """
        arguments = self.facts.arguments
        if len(values) != len(arguments):
            names = ", ".join(argument.name for argument in arguments)
            raise BackendError(
                "backend_failed",
                f"{self.facts.operation}: expected {len(arguments)} values ({names}), got {len(values)}",
            )
        for argument, value in zip(arguments, values, strict=True):
            if argument.name in self.facts.aligned and value % ALIGNMENT:
                raise BackendError(
                    "backend_failed",
                    f"{self.facts.operation}: expected {argument.name} at a multiple of {ALIGNMENT} bytes, "
                    f"got {value:#x}; copy it to an address that is one",
                )
        if min(grid) > 0:  # nothing to compute is no error, but the driver says it is
            self._provider.launch(self._function, grid, self.facts.block, self.facts.shared, stream, arguments, values)


class Device:
    """One CUDA device, by cuda-bindings or pycuda.

    sm        compute capability as one number: 87 for an Orin
    provider  which package is in use
    Raises DependencyError (backend_missing) without either package, BackendError (backend_device) without a driver or
    such a device.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._provider = open_provider(ordinal)
        self.sm, self.provider = self._provider.sm, self._provider.name

    def load(self, picked: Picked) -> Kernel:
        """Hand a cubin, or PTX, to the driver. Raises BackendError backend_failed when it refuses."""
        return Kernel(self._provider, self._provider.load(picked.image, picked.kernel.entry), picked.kernel)

    def find(self, folder: str | Path, operation: str, dtype: str, variant: str = "") -> Kernel:
        """Pick a kernel for this device, and load it; see `pick`."""
        return self.load(pick(folder, operation, dtype, self.sm, variant))
