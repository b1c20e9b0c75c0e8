"""Fixtures of the robustness tests: the benchmark's damaged films, and the cases beside the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def robustness(script: Callable[[str], ModuleType]) -> ModuleType:
    """The benchmark's module: its films, its damages, its counts."""
    return script("benchmarks/robustness.py")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Files that broke the product once, with their right values; a test that needs them is skipped where they lack."""
    folder = ROOT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"the cases are not here: {folder}")
    return folder
