"""clang-tidy over all of the library that is built here (TensorRT's part: where its headers are)."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

LARGE_HEADERS = {"dicom.cpp", "display.cpp", "engine_openvino.cpp"}
"""Checked beside the others, in a second process; dicom_missing.cpp defines what one of these does."""


def test_clang_tidy(capi: Any, structs: dict[str, Any], tmp_path: Path) -> None:
    """Sources are included into two, each checked as one: headers are most of the work (50 s of CPU instead of 240)."""
    if not shutil.which("clang-tidy"):
        pytest.skip("no clang-tidy here")
    root = structs["ROOT"]
    commands = json.loads((capi.build / "compile_commands.json").read_text("utf-8"))
    built = {Path(entry["file"]): entry["command"].split() for entry in commands}
    sources = sorted(path for path in built if path.parent == root / "msloc_edge" / "capi" / "src")
    assert len(sources) > 20
    running = []
    for name, part in (
        ("core.cpp", [path for path in sources if path.name not in LARGE_HEADERS]),
        ("large.cpp", [path for path in sources if path.name in LARGE_HEADERS]),
    ):
        (tmp_path / name).write_text("".join(f'#include "{path}"\n' for path in part), "utf-8")
        words = [word for path in part for word in built[path]]
        flags = [word for word in words if word.startswith(("-I", "-D"))]
        system = [f"-isystem{after}" for word, after in pairwise(words) if word == "-isystem"]
        command = ["clang-tidy", "-quiet", f"--config-file={root / '.clang-tidy'}", tmp_path / name]
        options = ["--header-filter=/capi/src/", "--checks=-bugprone-suspicious-include"]
        command += [*options, "--", "-std=c++17", *dict.fromkeys(flags + system)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for process in running:
        found, errors = process.communicate()
        assert process.returncode == 0, found + errors
