"""The examples of the documentation, run as a reader would: one after the other, from the repository's root."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def examples(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))


def test_the_python_page_runs(tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", examples("docs/python.md")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\w+ [01]\.\d\d at \d+, \d+: \d+ x \d+", lines[0]), "a box of the first film"
    assert len([line for line in lines if re.fullmatch(r"\w+ [01]\.\d{3} at [01]\.\d{3}: [+-]\d+\.\d\d", line)]) == 3
    assert any(line.startswith("constant - array: expected") for line in lines)
    assert any(line.startswith("missing.png missing.png: expected a file") for line in lines)
    assert len([line for line in lines if ".dcm " in line]) == len(list((ROOT / "examples").rglob("*.dcm")))
    assert (tmp_path / "overlay.png").stat().st_size > 10_000
