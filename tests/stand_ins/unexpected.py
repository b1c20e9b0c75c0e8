"""The abstract classes of TensorRT's headers with every method written: one that nobody expects ends the process.

    python unexpected.py INCLUDE > unexpected.h

A stand-in overrides what it is asked for, and suits every version of the headers.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLASSES = {
    "apiv::VRuntime": "NvInferImpl.h",
    "apiv::VCudaEngine": "NvInferImpl.h",
    "apiv::VExecutionContext": "NvInferImpl.h",
    "IPluginRegistry": "NvInferRuntime*.h",
}


def methods(name: str, text: str) -> list[str]:
    """Declarations of the pure virtual methods of a class, destructors left out."""
    body = re.search(rf"^class {name}\b[^;{{]*\{{(.*?)^\}};", text, re.DOTALL | re.MULTILINE)
    assert body, f"no class {name}"
    found: list[str] = re.findall(r"virtual ([^;~]*?) = 0;", body.group(1), re.DOTALL)
    return [" ".join(declaration.split()) for declaration in found]


def written(name: str, include: Path) -> str:
    plain = name.rpartition("::")[2]
    headers = "\n".join(file.read_text() for file in sorted(include.glob(CLASSES[name])))
    lines = [
        f"class Unexpected{plain} : public {name} {{",
        " public:",
        f"  ~Unexpected{plain}() noexcept override {{}}",
    ]
    for declaration in methods(plain, re.sub(r"//.*", "", headers)):
        called = re.search(r"(\w+)\(", declaration)
        assert called
        lines.append(f'  {declaration} override {{ unexpected("{plain}::{called.group(1)}"); }}')
    return "\n".join([*lines, "};", ""])


HEAD = r"""#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>

namespace nvinfer1 {

[[noreturn]] inline void unexpected(const char* method) {
  std::fprintf(stderr, "unexpected: %s\n", method);
  std::abort();
}
"""


def main(include: Path) -> None:
    print(HEAD)
    for name in CLASSES:
        print(written(name, include))
    print("}  // namespace nvinfer1")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
