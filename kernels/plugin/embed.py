"""The kernels that the plugin carries: from the aot compiler's folder to one assembler file and one table in C++.

    python embed.py KERNELS OUT   writes OUT/camfuse_images.S and OUT/camfuse_images.cpp

Needs Python alone, so that a device builds the plugin from a folder that was compiled elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

STAGES = range(1, 5)


def main(kernels: Path, out: Path) -> None:
    """Write both files.

    Ends with a sentence where a file is damaged, or a kernel is not the one that camfuse_launch.cpp calls.
    """
    index = kernels / "kernels.json"
    if not index.is_file():
        sys.exit(f"{index}: not found; make it: python -m msloc_edge.kernels.aot --out {kernels} --operation fuse_cams")
    entries = [k for k in json.loads(index.read_text())["kernels"] if (k["operation"], k["variant"]) == FORM]
    if {k["dtype"] for k in entries if k["portable"]} != {"fp16", "fp32"}:
        sys.exit(f"{index}: expected fuse_cams in the form maps for fp16 and fp32; compile again")
    assembly, table, declared = [], [], []
    for number, entry in enumerate(entries):
        if _call(entry) != _expected(entry["dtype"]):
            sys.exit(f"{index}: another call of {entry['entry']} than camfuse_launch.cpp makes; change both together")
        symbol = f"msloc_camfuse_image_{number}"
        assembly.append(
            f"    .balign 64\n    .globl {symbol}\n    .hidden {symbol}\n{symbol}:\n"
            f'    .incbin "{_image(kernels, entry)}"\n    .byte 0\n'
        )
        declared.append(f'extern "C" const unsigned char {symbol}[];')
        portable = str(entry["portable"]).lower()
        kind = f"Type::{entry['dtype']}, {entry['sm']}, {portable}"
        rule = f"{{{', '.join(map(str, entry['tile']['heights']))}}}, {entry['tile']['min_programs']}"
        table.append(f'    {{{kind}, "{entry["entry"]}", {entry["block"]}, {rule}, {symbol}}},')
    out.mkdir(parents=True, exist_ok=True)
    (out / "camfuse_images.S").write_text(
        "    .section .rodata\n" + "".join(assembly) + '    .section .note.GNU-stack,"",%progbits\n'
    )
    (out / "camfuse_images.cpp").write_text(
        '#include "camfuse_images.h"\n\n' + "\n".join(declared) + "\n\nnamespace msloc {\nnamespace {\n\n"
        "const Image table[] = {\n" + "\n".join(table) + "\n};\n\n}  // namespace\n\n"
        f"const Images images{{table, table + {len(table)}}};\n\n}}  // namespace msloc\n"
    )


FORM = ("fuse_cams", "maps")


def _call(entry: dict[str, Any]) -> tuple[Any, ...]:
    arguments = [(argument["name"], argument["type"]) for argument in entry["arguments"]]
    heights = len((entry.get("tile") or {}).get("heights", ()))
    return arguments, entry.get("aligned"), entry["grid"], entry["block"], entry["shared"], heights


def _expected(dtype: str) -> tuple[Any, ...]:
    """Arguments that camfuse_launch.cpp passes, in its order, and how it launches."""
    numbers = ("K", "J", "H", "W", "tile_h")
    arguments = [(f"cams_{stage}", f"*{dtype}") for stage in STAGES] + [("relevance", "*fp32")]
    arguments += [(name, "i32") for name in numbers] + [("maps", f"*{dtype}")]
    return arguments, ["maps"], ["B * J * cdiv(H, tile_h) * cdiv(W, 256)", "1", "1"], 128, 0, 3


def _image(kernels: Path, entry: dict[str, Any]) -> Path:
    kind = "ptx" if entry["portable"] else "cubin"
    file = (kernels / entry["files"][kind]).resolve()
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"][kind]:
        sys.exit(f"{file}: not the file that kernels.json names; compile or copy it again")
    return file


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
