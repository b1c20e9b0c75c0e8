"""NVIDIA's assembler, which comes inside triton's wheel: PTX to cubin, and what the kernel uses."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import triton

from msloc_edge.errors import ExportError

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Assembled:
    """A cubin, and per thread its registers and the bytes that it spills; per block its static shared memory."""

    cubin: bytes
    registers: int
    spills: int
    shared: int
    ptxas: str


def assemble(text: str, sm: int) -> Assembled:
    """The cubin for one architecture. Raises ExportError build_failed with the assembler's own words."""
    tool = assembler(sm)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.ptx").write_text(text)
        command = [tool, "-v", f"-arch=sm_{sm}", "kernel.ptx", "-o", "kernel.cubin"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise ExportError("build_failed", f"ptxas refuses the kernel for sm_{sm}: {done.stderr.strip()}")
        cubin = Path(folder, "kernel.cubin").read_bytes()
    said = done.stdout + done.stderr
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    if len(registers) != 1:
        raise ExportError("build_failed", f"expected one kernel from ptxas for sm_{sm}, got: {said.strip()}")
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
    shared = sum(int(n) for n in re.findall(r"(\d+) bytes smem", said))
    return Assembled(cubin, registers[0], spills, shared, _version(tool))


def assembler(sm: int) -> str:
    """The oldest of triton's assemblers that knows the architecture.

    A driver loads the cubins of its own and of older major versions of CUDA: what CUDA 13 assembles would not load on
    JetPack 6, whose driver is of CUDA 12.6.
    """
    if tools := _that_know(sm):
        return tools[0]
    raise ExportError("build_failed", f"no assembler in {TOOLS} knows sm_{sm}")


def is_known(sm: int) -> bool:
    """True where one of triton's assemblers knows the architecture: those of Triton 3.6 do not know sm_110."""
    return bool(_that_know(sm))


def _that_know(sm: int) -> list[str]:
    tools = [TOOLS / name for name in ("ptxas", "ptxas-blackwell")]
    return [str(tool) for tool in tools if tool.exists() and f"sm_{sm}" in _known(str(tool))]


@cache
def _known(tool: str) -> frozenset[str]:
    return frozenset(re.findall(r"\bsm_\d+\b", _output(tool, "--help")))


@cache
def _version(tool: str) -> str:
    return re.findall(r"\bV(\d+(?:\.\d+)+)", _output(tool, "--version"))[0]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
