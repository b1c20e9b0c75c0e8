"""msloc-edge selftest, as a user runs it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.backends import BACKENDS

Run = Callable[..., Any]


def test_every_installed_engine_passes(msloc: Run, tiny_bundle: Path) -> None:
    ran = msloc("selftest", "--model", tiny_bundle)
    assert ran.code == 0, ran.err
    states = {line["backend"]: line["state"] for line in ran.lines}
    assert list(states) == list(BACKENDS)
    on_gpu = {states.pop("tensorrt"), states.pop("tensorrt_rtx")}
    assert on_gpu <= {"passed", "absent"}, "absent, too, is an engine without its GPU"
    assert states == {name: "passed" if importlib.util.find_spec(name) else "absent" for name in states}
    first = ran.lines[0]
    assert first["schema"] == "msloc-edge/selftest/1"
    assert first["model"]["name"] == "tiny"
    assert first["deviation"]["classes"] == []
    assert first["ms"] > 0
    assert "onnxruntime" in ran.err


def test_one_engine_and_quiet(msloc: Run, tiny_bundle: Path) -> None:
    ran = msloc("selftest", "--model", tiny_bundle, "--backend", "onnxruntime", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert [line["backend"] for line in ran.lines] == ["onnxruntime"]


def test_an_engine_that_is_not_installed(msloc: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there: absent. Asked for and not there: failed."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "msloc_edge.backends.openvino", raising=False)
    ran = msloc("selftest", "--model", tiny_bundle)
    assert ran.code == 0
    assert {line["backend"]: line["state"] for line in ran.lines}["openvino"] == "absent"
    ran = msloc("selftest", "--model", tiny_bundle, "--backend", "openvino")
    assert (ran.code, ran.reasons) == (1, ["backend_missing"])


def test_a_model_that_changed(msloc: Run, bundle_with: Callable[..., Path]) -> None:
    ran = msloc("selftest", "--model", bundle_with(temperature=1.0), "--backend", "onnxruntime")
    assert ran.code == 0, "the temperature is no part of what an engine computes"
    ran = msloc("selftest", "--model", bundle_with(golden=None), "--backend", "onnxruntime")
    assert (ran.code, ran.reasons) == (1, ["golden_missing"])
    assert ran.lines[0]["state"] == "failed"


def test_a_device_that_is_not_there(msloc: Run, tiny_bundle: Path) -> None:
    ran = msloc("selftest", "--model", tiny_bundle, "--backend", "onnxruntime", "--device", "toaster")
    assert (ran.code, ran.reasons) == (1, ["backend_device"])
