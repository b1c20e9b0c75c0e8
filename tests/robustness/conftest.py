"""Fixtures of the robustness tests: the benchmark's damaged films, and the cases beside the checkout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def robustness() -> ModuleType:
    """The benchmark's module: its films, its damages, its counts."""
    spec = importlib.util.spec_from_file_location("robustness", ROOT / "benchmarks" / "robustness.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["robustness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cases() -> Path:
    """Files that broke the product once, with their right values; a test that needs them is skipped where they lack."""
    folder = ROOT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"the cases are not here: {folder}")
    return folder
