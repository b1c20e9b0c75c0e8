"""Facts that an operation declares about a kernel, so that it can be compiled ahead of time and launched by others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msloc_edge.cuda.compiled import Argument, TileRule

Types = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One kernel with all its choices made.

    operation, variant  which kernel: "fuse_cams", and which of its forms; "" where it has only one
    dtype               of the maps that the kernel reads or writes: "fp16" or "fp32"
    kernel              the function under @triton.jit
    signature           run-time parameter -> Triton type, in the kernel's order; a tuple parameter has a tuple of types
    constants           compile-time parameter -> value
    grid                blocks along x, y, z: expressions over argument names, B and J,
                        with +, -, *, // and cdiv(a, b)
    tile                rule for the argument tile_h, where there is one
    aligned             pointers that the caller promises to be multiples of ALIGNMENT: Triton then stores neighbours at
                        once where it knows that they are
    """

    operation: str
    variant: str
    dtype: str
    kernel: Any
    signature: Mapping[str, Types]
    constants: Mapping[str, Any]
    grid: tuple[str, str, str]
    num_warps: int = 4
    tile: TileRule | None = None
    aligned: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its files, before that of the device."""
        return ".".join(filter(None, (self.operation, self.variant, self.dtype)))

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Arguments in the order of the launch: a tuple is spelled out, as cams_1, cams_2 and so on."""
        found = []
        for name, types in self.signature.items():
            if isinstance(types, str):
                found.append(Argument(name, types))
            else:
                found += [Argument(f"{name}_{place}", kind) for place, kind in enumerate(types, start=1)]
        return tuple(found)
