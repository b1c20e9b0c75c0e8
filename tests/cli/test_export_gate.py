"""msloc-edge export bundle --input-gate: which gate a bundle carries, and what it then does with films."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from msloc_edge import selftest
from msloc_edge.bundle import Bundle
from msloc_edge.imaging.gate import default_gate
from msloc_edge.pipeline import Localizer


@pytest.fixture
def checkpoint(tiny_state: dict[str, Any], tmp_path: Path) -> Path:
    torch.save(tiny_state, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.mark.parametrize(("option", "carried"), [((), True), (("--input-gate", "none"), False)])
def test_a_bundle_carries_this_programs_gate_unless_asked_not_to(
    msloc: Callable[..., Any], checkpoint: Path, tmp_path: Path, option: tuple[str, ...], carried: bool
) -> None:
    done = msloc("export", "bundle", checkpoint, tmp_path / "bundle", *option)
    assert done.code == 0, done.err
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.get("input_gate") == (default_gate().numbers if carried else None)
    with Localizer(bundle.path, all_classes=True) as localizer:  # the built-in film passes
        found = selftest.compare(selftest.result(localizer), selftest.golden_of(bundle.manifest, bundle.name))
    assert found.beyond == ()


def test_a_file_that_is_no_gate(msloc: Callable[..., Any], checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text("{}")
    for name in ("gate.json", "missing.json"):
        done = msloc("export", "bundle", checkpoint, tmp_path / "bundle", "--input-gate", tmp_path / name)
        assert (done.code, done.reasons) == (1, ["bundle_damaged"])
        assert not (tmp_path / "bundle").exists()
