"""docs/embedding.md says what there is: every status, every preset, every setting, and Python that runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "embedding.md").read_text("utf-8")


def test_every_status_has_its_row() -> None:
    cases = (ROOT / "msloc_edge" / "capi" / "src" / "status.cpp").read_text("utf-8")
    names = re.findall(r'case MSLOC_\w+: return "(\w+)"', cases)
    table = PAGE.partition("## Statuses")[2].partition("\n## ")[0]
    assert len(names) >= 30
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)] == names


def test_every_preset_and_setting_is_named() -> None:
    presets = json.loads((ROOT / "CMakePresets.json").read_text("utf-8"))
    workflows = {preset["name"] for preset in presets["workflowPresets"]}
    assert {name for name in workflows if name in PAGE} == workflows
    lists = [ROOT / "CMakeLists.txt", *(ROOT / "msloc_edge" / "capi").glob("**/*.cmake")]
    lists.append(ROOT / "msloc_edge" / "capi" / "CMakeLists.txt")
    settings = {name for path in lists for name in re.findall(r"option\((MSLOC_\w+)", path.read_text("utf-8"))}
    assert settings - {"MSLOC_BUILD_CAPI", "MSLOC_BUILD_PLUGIN"} == {name for name in settings if f"`{name}`" in PAGE}


def test_its_film_is_a_phantom_in_8_bits() -> None:
    phantom = np.asarray(Image.open(ROOT / "examples" / "png" / "phantom4000176.png")).astype(int)
    assert (np.asarray(Image.open(ROOT / "examples" / "embed" / "film.pgm")) == phantom * 255 // 65535).all()


def test_the_python_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, "docs/embedding.md", "exec"), namespace)
    assert re.search(r"^\w+ 0\.\d\d at \d+, \d+: \d+ x \d+$", capsys.readouterr().out, re.MULTILINE)
