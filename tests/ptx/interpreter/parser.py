"""PTX text to instructions: the part of the syntax that compilers write (PTX ISA, "Syntax" and "Directives")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from .errors import KernelError


@dataclass(frozen=True, slots=True)
class Register:
    name: str


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant as bits: of a float in hexadecimal, those of the float; of a negative number, two's complement."""

    bits: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A label, a parameter, a variable, or a special register such as %tid.x."""

    name: str


@dataclass(frozen=True, slots=True)
class Address:
    base: Register | Symbol
    offset: int


@dataclass(frozen=True, slots=True)
class Vector:
    """Several registers as one operand; None is the sink `_`."""

    items: tuple[Register | Immediate | None, ...]


Operand = Register | Immediate | Symbol | Address | Vector


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a body.

    guard   the predicate without which a thread skips it, and whether that has to be false
    opcode  with its modifiers and types: "ld.global.b32"
    line    in the text, counted from 1
    """

    guard: tuple[Register, bool] | None
    opcode: str
    operands: tuple[Operand, ...]
    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.text}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One entry of a module.

    parameters  name -> bits, in order
    registers   prefix -> (bits, how many); predicates have 1 bit
    labels      name -> number of the instruction that follows
    shared      variable -> its bytes; None where the launch says how many
    threads     of a block, as `.reqntid` asks; None: any
    """

    name: str
    parameters: Mapping[str, int]
    registers: Mapping[str, tuple[int, int]]
    body: tuple[Instruction, ...]
    labels: Mapping[str, int]
    shared: Mapping[str, int | None]
    threads: int | None


COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
ENTRY = re.compile(r"\.visible\s+\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{;]*)\{(.*?)^\}", re.DOTALL | re.MULTILINE)
PARAMETER = re.compile(r"\s*\.param\s+\.[a-z](\d+)\b.*?([\w$]+)\s*", re.DOTALL)
SHARED = re.compile(r"\.shared\s+\.align\s+\d+\s+\.[a-z](\d+)\s+([\w$]+)\[(\d*)\]\s*;")
THREADS = re.compile(r"\.reqntid\s+(\d+)\s*")
MAX_REGISTERS = re.compile(r"\.maxnreg\s+\d+\s*")
REGISTERS = re.compile(r"\.reg\s+\.([a-z]+)(\d*)\s+(%[a-z]+)<(\d+)>")
LABEL = re.compile(r"\s*(\$[\w$]+)\s*:")
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
SEPARATOR = re.compile(r",(?![^\[{]*[\]}])")
FLOAT = re.compile(r"0[fFdD]([0-9A-Fa-f]+)")
NUMBER = re.compile(r"-?(?:0x[0-9A-Fa-f]+|\d+)")


@lru_cache(maxsize=8)
def parse(text: str) -> Mapping[str, Kernel]:
    """The kernels of a module by their names. Raises KernelError "syntax" for what is not understood."""
    text = COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    shared = {name: int(bits) // 8 * int(count) if count else None for bits, name, count in SHARED.findall(text)}
    kernels = {}
    for found in ENTRY.finditer(text):
        name, parameters, directives, _ = found.groups()
        if MAX_REGISTERS.sub("", THREADS.sub("", directives)).strip():
            raise KernelError("syntax", f"{name}: expected .reqntid and .maxnreg alone, got {directives.strip()}")
        threads = THREADS.search(directives)
        registers, body, labels = _body(found[4], 1 + text.count("\n", 0, found.start(4)))
        kernels[name] = Kernel(
            name, _parameters(parameters), registers, body, labels, shared, int(threads[1]) if threads else None
        )
    return kernels


def _parameters(text: str) -> dict[str, int]:
    parameters = {}
    for declared in filter(str.strip, text.split(",")):
        found = PARAMETER.fullmatch(declared)
        if found is None:
            raise KernelError("syntax", f"expected a number or a pointer as parameter, got {declared.strip()}")
        parameters[found[2]] = int(found[1])
    return parameters


def _body(text: str, line: int) -> tuple[dict[str, tuple[int, int]], tuple[Instruction, ...], dict[str, int]]:
    """Registers, instructions and labels of what stands between the braces of a kernel, which begins at `line`."""
    registers: dict[str, tuple[int, int]] = {}
    body: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in text.split(";"):
        rest = statement
        while found := LABEL.match(rest):
            labels[found[1]] = len(body)
            rest = rest[found.end() :]
        begins = line + statement[: len(statement) - len(rest.lstrip())].count("\n")
        line += statement.count("\n")
        rest = rest.strip()
        if declared := REGISTERS.fullmatch(rest):
            kind, bits, prefix, count = declared.groups()
            registers[prefix] = (1 if kind == "pred" else int(bits), int(count))
        elif rest:
            body.append(_instruction(rest, begins))
    return registers, tuple(body), labels


def _instruction(text: str, line: int) -> Instruction:
    found = STATEMENT.fullmatch(text)
    if found is None:
        raise KernelError("syntax", f"line {line}: expected an instruction, got {text}")
    negated, predicate, opcode, operands = found.groups()
    guard = (Register(predicate), bool(negated)) if predicate else None
    listed = tuple(_operand(part.strip(), line) for part in SEPARATOR.split(operands) if part.strip())
    return Instruction(guard, opcode, listed, line, " ".join(text.split()))


def _operand(text: str, line: int) -> Operand:
    if text[0] == "{" and text[-1] == "}":
        items = [_item(item.strip(), line) for item in text[1:-1].split(",")]
        return items[0] if len(items) == 1 and items[0] else Vector(tuple(items))
    if text[0] == "[" and text[-1] == "]":
        base, _, offset = text[1:-1].partition("+")
        of = _operand(base.strip(), line)
        if isinstance(of, Register | Symbol) and NUMBER.fullmatch(offset.strip() or "0"):
            return Address(of, int(offset.strip() or "0", 0))
    elif number := FLOAT.fullmatch(text):
        return Immediate(int(number[1], 16))
    elif NUMBER.fullmatch(text):
        return Immediate(int(text, 0))
    elif re.fullmatch(r"%[a-z]+\d+", text):
        return Register(text)
    elif re.fullmatch(r"[%$\w.]+", text):
        return Symbol(text)
    raise KernelError("syntax", f"line {line}: expected an operand, got {text}")


def _item(text: str, line: int) -> Register | Immediate | None:
    item = None if text == "_" else _operand(text, line)
    if item is None or isinstance(item, Register | Immediate):
        return item
    raise KernelError("syntax", f"line {line}: expected a register in a vector, got {text}")
