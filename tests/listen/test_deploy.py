"""The page and the examples: every option stands in docs/listen.md, and the unit passes systemd's own checks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from msloc_edge.imaging.dicom import TRANSFER_SYNTAXES
from msloc_edge.listen import receive, send
from msloc_edge.listen.config import ListenConfig, read_config, table_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
PAGE = (ROOT / "docs" / "listen.md").read_text()


def rows(cls: Any, table: str = "") -> Iterator[str]:
    """A row of the page's table for each option."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        name = f"{table}.{f.name}".lstrip(".")
        if inner := table_of(hints[f.name]):
            yield from rows(inner, name)
        else:
            default = "required" if f.default is MISSING else "" if f.default is None else f"`{json.dumps(f.default)}`"
            yield f"| `{name}` | {default} | {f.metadata['help']} |"


def test_every_option_is_on_the_page_and_no_other() -> None:
    options = re.findall(r"^\| `[a-z_]+(?:\.[a-z_]+)*` \| .*\|$", PAGE.split("## What to watch")[0], re.MULTILINE)
    assert sorted(options) == sorted(rows(ListenConfig))


def test_every_class_and_transfer_syntax_is_on_the_page() -> None:
    for sop_class in receive.SOP_CLASSES:
        assert f"| {sop_class.name} | {sop_class} | SCP |" in PAGE
    for sop_class in send.SOP_CLASSES:
        assert f"| {sop_class.name} | {sop_class} | SCU |" in PAGE
    for syntax in TRANSFER_SYNTAXES:
        assert re.search(rf"{re.escape(syntax)}\b|, {re.escape('.' + syntax.rpartition('.')[2])}\b", PAGE), syntax


def test_the_example_is_right() -> None:
    assert read_config(DEPLOY / "listen.toml").objects == ("sr", "seg")
    assert json.loads((DEPLOY / "orthanc" / "orthanc.json").read_text())["DicomAet"] == "ORTHANC"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_the_unit_passes_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "msloc-edge.service"
    script = Path(sys.executable).with_name("msloc-edge")
    unit.write_text((DEPLOY / unit.name).read_text().replace("/opt/msloc-edge/bin/msloc-edge", str(script), 4))
    told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit], capture_output=True, check=False
    )
    assert rated.returncode == 0, rated.stdout.decode()[-200:]
