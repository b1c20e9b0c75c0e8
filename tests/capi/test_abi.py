"""The ABI guard: the header against the committed record, the record against what the library exports."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from msloc_edge import __version__

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "msloc_edge" / "capi" / "abi.txt"


@pytest.fixture(scope="module")
def abi(script: Callable[[str], ModuleType]) -> ModuleType:
    """tools/abi.py, which is in no package."""
    return script("tools/abi.py")


def test_the_header_is_as_recorded(abi: ModuleType) -> None:
    """After a change that keeps the ABI: python tools/abi.py msloc_edge/capi/abi.txt."""
    if not shutil.which("clang"):
        pytest.skip("no clang here")
    assert abi.record().splitlines() == RECORD.read_text().splitlines()


def test_the_library_exports_what_is_recorded(capi: Any) -> None:
    if not shutil.which("nm"):
        pytest.skip("no nm here: binutils is missing")
    listing = subprocess.run(["nm", "-D", "--defined-only", capi.path], capture_output=True, text=True, check=True)
    exported = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert exported == set(re.findall(r"^function (\w+):", RECORD.read_text(), re.MULTILINE))


OLD = """function msloc_f: void (int)
constant MSLOC_A: 1
struct msloc_s: 8 bytes
member msloc_s at 0: uint32_t struct_size
struct msloc_box: 40 bytes
"""


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (("", ""), []),
        (("void (int)", "void (long)"), ["function msloc_f: void (int)"]),
        (("MSLOC_A: 1", "MSLOC_A: 2"), ["constant MSLOC_A: 1"]),
        (("constant MSLOC_A: 1", "constant MSLOC_A: 1\nconstant MSLOC_B: 2"), []),
        (("msloc_s: 8", "msloc_s: 16"), []),
        (("msloc_s: 8", "msloc_s: 4"), ["struct msloc_s: 8 bytes"]),
        (("at 0:", "at 4:"), ["member msloc_s at 0: uint32_t struct_size"]),
        (("box: 40", "box: 48"), ["struct msloc_box: 40 bytes"]),
    ],
)
def test_what_breaks_callers(change: tuple[str, str], gone: list[str], abi: ModuleType) -> None:
    assert abi.broken(OLD, OLD.replace(*change)) == gone


def test_the_version_is_one() -> None:
    header = (ROOT / "msloc_edge" / "capi" / "include" / "msloc_edge.h").read_text()
    numbers = re.findall(r"#define MSLOC_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header)
    project = re.findall(r"project\(msloc_edge VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())
    assert [".".join(numbers)] == project == [__version__]
