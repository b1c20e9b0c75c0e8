"""PTX text: the parameters of its entry, and those two that Triton adds taken away."""

from __future__ import annotations

import re
from dataclasses import dataclass

from msloc_edge.errors import ExportError

SCRATCH = 2
"""Pointers to global and profiling scratch memory, which Triton adds after a kernel's own parameters."""

ENTRY = re.compile(r"\.visible\s+\.entry\s+(\w+)\s*\(([^)]*)\)")
PARAMETER = re.compile(r"\.param\s+\.[a-z](\d+)\b.*?(\w+)\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Name and size in bytes."""

    name: str
    size: int


def entry(text: str) -> tuple[str, tuple[Parameter, ...]]:
    """The name and the parameters of the one kernel in a PTX text."""
    found = ENTRY.findall(text)
    if len(found) != 1:
        raise ExportError("build_failed", f"expected PTX with one kernel, got {len(found)}")
    name, listed = found[0]
    parameters = []
    for line in filter(str.strip, listed.split(",")):
        match = PARAMETER.search(line)
        if match is None:
            raise ExportError(
                "build_failed", f"{name}: expected a pointer or a number as parameter, got {line.strip()}"
            )
        parameters.append(Parameter(match[2], int(match[1]) // 8))
    return name, tuple(parameters)


def strip_scratch(text: str, sizes: tuple[int, ...]) -> str:
    """The kernel with its own parameters alone, whose sizes in bytes are `sizes`.

    Whoever launches it, TensorRT above all, passes what the operation declares and nothing else. A kernel that reads
    its scratch memory cannot do without it, and is refused: ExportError build_failed.
    """
    name, parameters = entry(text)
    own, scratch = parameters[: len(sizes)], parameters[len(sizes) :]
    if tuple(p.size for p in own) != sizes or [p.size for p in scratch] != [8] * SCRATCH:
        found = [p.size for p in parameters]
        raise ExportError(
            "build_failed", f"{name}: expected parameters of {[*sizes]} bytes and {SCRATCH} pointers, got {found}"
        )
    match = ENTRY.search(text)
    assert match is not None
    body = text[match.end() :]
    for parameter in scratch:
        if re.search(rf"\b{re.escape(parameter.name)}\b", body):
            raise ExportError("build_failed", f"{name}: reads {parameter.name}, scratch memory that no caller gives it")
    kept = ",".join(match[2].split(",")[: len(sizes)])
    return f"{text[: match.start(2)]}{kept.rstrip()}\n{text[match.end(2) :]}"


def retarget(text: str, sm: int) -> str:
    """The same text for the plain architecture: Triton writes sm_90a, which runs on no other device.

    Instructions that only the `a` form has do not pass the assembler afterwards.
    """
    retargeted, count = re.subn(rf"^\.target sm_{sm}a?$", f".target sm_{sm}", text, flags=re.MULTILINE)
    if count != 1:
        raise ExportError("build_failed", f"expected PTX for sm_{sm}, got: {re.findall(r'.target.*', text)}")
    return retargeted
