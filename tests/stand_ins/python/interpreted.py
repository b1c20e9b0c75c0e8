"""Kernels behind the stand-in driver's cuLaunchKernel: their PTX is interpreted, on the driver's own memory."""

from __future__ import annotations

import ctypes
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interpreter import Memory, launch

from msloc_edge.cuda.compiled import INDEX, SCHEMA, Compiled, read_index
from msloc_edge.cuda.providers import CTYPES
from msloc_edge.kernels.aot.build import PORTABLE, to_ptx
from msloc_edge.kernels.aot.ptx import entry
from msloc_edge.kernels.aot.variants import variants

NOTE = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_void_p)
)
RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


WHOLE = ["window_resize.u16-shrink", "fuse_cams.located", "fuse_cams.peaks", "regions.runs", "regions.regions"]
"""Kernels of a film of 16 bits, in the order in which they run."""


def write_kernels(folder: Path) -> None:
    """Write the portable form of each kernel of a film as `python -m msloc_edge.kernels.aot` does, without ptxas."""
    entries = []
    chosen = [v for v in variants() if v.operation != "fuse_cams" or v.variant in ("located", "peaks")]
    for variant in (v for v in chosen if v.dtype == "fp32"):
        text, shared = to_ptx(variant, PORTABLE)
        file = folder / f"{variant.name}.ptx"
        file.write_text(text)
        same = ("operation", "variant", "dtype", "arguments", "aligned", "grid", "tile")
        facts = {name: getattr(variant, name) for name in same}
        facts |= {"entry": entry(text)[0], "block": 32 * variant.num_warps, "shared": shared}
        facts |= {"sm": PORTABLE, "portable": True, "registers": 1, "spills": 0, "triton": "", "ptxas": ""}
        facts |= {"files": {"ptx": file.name}, "sha256": {"ptx": hashlib.sha256(file.read_bytes()).hexdigest()}}
        entries.append(Compiled(**facts).to_dict())
    (folder / INDEX).write_text(json.dumps({"schema": SCHEMA, "kernels": entries}))


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch with the parameters that it had when it was put on its stream."""

    kernel: Compiled
    text: str
    grid: tuple[int, int, int]
    block: int
    shared: int
    values: tuple[int, ...]


class Interpreter:
    """Runs the kernels of a folder. `ran` has the names of what ran, `faults` what a device would not survive."""

    def __init__(self, driver: ctypes.CDLL, folder: Path) -> None:
        self._driver = driver
        driver.stand_in_find.restype = ctypes.c_size_t
        self._kernels = {kernel.sha256["ptx"]: kernel for kernel in read_index(folder)}
        self._launches: list[Launch] = []
        self.ran: list[str] = []
        self.faults: list[str] = []
        self._kept = NOTE(self._note), RUN(self._run)
        driver.stand_in_interpret(*self._kept)

    def close(self) -> None:
        """Let kernels be printed again."""
        self._driver.stand_in_interpret(None, None)

    def _note(self, image: bytes, entry: bytes, sizes: Any, parameters: Any) -> int:
        kernel = self._kernels[hashlib.sha256(image).hexdigest()]
        types = [CTYPES.get(argument.type, ctypes.c_uint64) for argument in kernel.arguments]
        values = tuple(kind.from_address(parameters[at]).value for at, kind in enumerate(types))
        x, y, z, block, shared = sizes[:5]
        self._launches.append(Launch(kernel, image.decode(), (x, y, z), block, shared, values))
        return len(self._launches)

    def _run(self, number: int) -> None:
        called = self._launches[number - 1]
        try:
            memory = self._memory(called)
            done = launch(
                called.text, called.kernel.entry, called.grid, called.block, called.values, memory, shared=called.shared
            )
            self.faults += [str(race) for race in done.races.values()]
        except Exception as error:  # nobody hears of it in a driver
            self.faults.append(f"{called.kernel.entry}: {error}")
        self.ran.append(f"{called.kernel.operation}.{called.kernel.variant}")

    def _memory(self, called: Launch) -> Memory:
        """The allocations that a launch has addresses of, and no other."""
        memory, known = Memory(), set()
        for argument, value in zip(called.kernel.arguments, called.values, strict=True):
            if not argument.type.startswith("*"):
                continue
            begin = ctypes.c_void_p()
            size = self._driver.stand_in_find(ctypes.c_void_p(value), ctypes.byref(begin))
            if size and begin.value and begin.value not in known:
                known.add(begin.value)
                unit = BYTES["".join(filter(str.isdigit, argument.type))]
                content = (ctypes.c_uint8 * (size // unit * unit)).from_address(begin.value)
                memory.map(begin.value, np.frombuffer(content, f"u{unit}"), written=True)
        return memory
