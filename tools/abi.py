"""Writes msloc_edge/capi/abi.txt, the record of the C ABI that tests hold the header against, and compares two records.

    python tools/abi.py msloc_edge/capi/abi.txt           after a change that keeps the ABI: new names, longer structs
    python tools/abi.py --since OLD.txt                   exit status 1, and what broke, where OLD's callers would fail

Functions, callbacks, constants and struct layouts of msloc_edge.h, as clang has them for x86-64 and for 64-bit Arm.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

ROOT = Path(__file__).parents[1]
HEADER = ROOT / "msloc_edge" / "capi" / "include" / "msloc_edge.h"
TARGETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")
BOX = "msloc_box"
"""The one struct that may not grow: callers have arrays of it."""


def record(header: Path = HEADER) -> str:
    """The record of a header. Raises ValueError where the targets differ."""
    nodes = json.loads(clang(header, TARGETS[0], "-ast-dump=json"))["inner"]
    structs = [node["name"] for node in nodes if node["kind"] == "RecordDecl" and node.get("inner")]
    layouts = {target: list(layout_lines(header, target, structs)) for target in TARGETS}
    if layouts[TARGETS[0]] != layouts[TARGETS[1]]:
        raise ValueError(f"expected one layout on {' and '.join(TARGETS)}, got two")
    return "\n".join([*name_lines(nodes), *layouts[TARGETS[0]]]) + "\n"


def clang(header: Path, target: str, dump: str, *more: str) -> str:
    """What clang says of a header, as C99, with no other headers than its own."""
    command = ["clang", f"--target={target}", "-ffreestanding", "-std=c99", "-fsyntax-only", "-Xclang", dump, "-x", "c"]
    done = subprocess.run([*command, *more, str(header)], capture_output=True, text=True, check=True)
    return done.stdout


def name_lines(nodes: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Functions, callbacks and constants, in the header's order."""
    for node in nodes:
        name = node.get("name", "")
        if node["kind"] == "FunctionDecl":
            yield f"function {name}: {node['type']['qualType']}"
        elif node["kind"] == "TypedefDecl" and name.startswith("msloc_") and "struct" not in node["type"]["qualType"]:
            yield f"type {name}: {node['type']['qualType']}"
        elif node["kind"] == "EnumDecl":
            yield from (f"constant {value['name']}: {value['inner'][0]['value']}" for value in node["inner"])


def layout_lines(header: Path, target: str, structs: Sequence[str]) -> Iterator[str]:
    """Each struct with its size, then its members with their offsets, in bytes."""
    with NamedTemporaryFile("w", suffix=".c") as uses:  # clang lays out what is used
        uses.write("".join(f"int use_{name}[sizeof(struct {name})];\n" for name in structs))
        uses.flush()
        text = clang(Path(uses.name), target, "-fdump-record-layouts", "-include", str(header))
    for block in text.split("*** Dumping AST Record Layout")[1:]:
        first, *members = re.findall(r"^ *(\d+) \| +(.*)$", block, re.MULTILINE)
        name = first[1].removeprefix("struct ")
        (size,) = re.findall(r"sizeof=(\d+)", block)
        yield f"struct {name}: {size} bytes"
        yield from (f"member {name} at {offset}: {text}" for offset, text in members)


def broken(old: str, new: str) -> list[str]:
    """List what a new record no longer keeps of an old one: lines that are gone, but for structs that have grown."""
    kept = set(new.splitlines())
    sizes = {line.split()[1]: int(line.split()[2]) for line in kept if line.startswith("struct ")}

    def grown(line: str) -> bool:
        kind, name, *rest = line.split()
        return kind == "struct" and name != f"{BOX}:" and sizes.get(name, 0) > int(rest[0])

    return [line for line in old.splitlines() if line not in kept and not grown(line)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write or compare the record of the C ABI.")
    parser.add_argument("record", type=Path, nargs="?", help="file to write")
    parser.add_argument("--since", type=Path, help="record of an earlier release to compare the header with")
    options = parser.parse_args(arguments)
    now = record()
    if options.record:
        options.record.write_text(now)
    if options.since and (gone := broken(options.since.read_text(), now)):
        sys.exit("\n".join(["callers of the earlier release would fail: a new SONAME is due, or put back", *gone]))


if __name__ == "__main__":
    main()
