"""msloc_edge.hpp: its own example, and all of it with and without exceptions, warnings as errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
INCLUDE = HERE.parents[1] / "msloc_edge" / "capi" / "include"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic")


def build(source: Path, program: Path, capi: Any, run: Any, *flags: str) -> None:
    built = capi.path.parent
    link = (f"-L{built}", "-lmsloc_edge", f"-Wl,-rpath,{built}")
    run("c++", "-std=c++17", *WARNINGS, *flags, f"-I{INCLUDE}", source, "-o", program, *link)


@pytest.mark.parametrize("flag", ["-fexceptions", "-fno-exceptions"])
def test_every_call(flag: str, capi: Any, bundle: Path, structs: dict[str, Any], tmp_path: Path) -> None:
    build(HERE / "cpp_header.cpp", tmp_path / "program", capi, structs["run"], flag)
    structs["run"](tmp_path / "program", bundle)


def test_the_example(capi: Any, bundle: Path, structs: dict[str, Any], tmp_path: Path) -> None:
    comment = (
        (INCLUDE / "msloc_edge.hpp").read_text("utf-8").partition("// -------\n")[2].partition("\n//\n// Errors")[0]
    )
    example = "\n".join(line.removeprefix("//") for line in comment.splitlines())
    assert example.count('"/opt/models/cxr-edge"') == 1
    (tmp_path / "example.cpp").write_text(
        "#include <cstdio>\n#include <msloc_edge.hpp>\nint main() {\n"
        "  std::vector<std::uint16_t> samples(2500 * 3000);\n"
        "  for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<std::uint16_t>(i % 4096);\n"
        + example.replace("/opt/models/cxr-edge", str(bundle))
        + "\n}\n"
    )
    build(tmp_path / "example.cpp", tmp_path / "example", capi, structs["run"])
    structs["run"](tmp_path / "example")
