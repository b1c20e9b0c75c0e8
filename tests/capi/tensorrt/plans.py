"""The stand-ins for TensorRT and the driver that this process has loaded, and plans for them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.plan import Plan
from msloc_edge.bundle import Bundle

DRIVER = ctypes.CDLL("libcuda.so.1")
NVINFER = ctypes.CDLL(os.environ["STAND_IN_NVINFER"])
NVINFER.stand_in_scratch.restype = ctypes.c_int64
NVINFER.stand_in_plan.restype = NVINFER.stand_in_plugin.restype = ctypes.c_char_p
PARTS = tuple(int(getattr(NVINFER, f"getInferLib{part}Version")()) for part in ("Major", "Minor", "Patch"))
VERSION = ".".join(map(str, PARTS))
SM = 87


@contextmanager
def nothing_left() -> Iterator[None]:
    """Afterwards nothing is left of what an engine makes, and this thread's context is the one that it was."""
    before = DRIVER.stand_in_live()
    yield
    assert NVINFER.stand_in_objects() == 0, "runtime, engine and context are freed"
    assert DRIVER.stand_in_live() == before, "memory, streams and graphs are freed"
    assert DRIVER.stand_in_retained() == 0, "the primary context is released"
    assert DRIVER.stand_in_depth() == 0, "every push has its pop"


def tensors(bundle: Bundle, heatmap: bool = False) -> dict[str, str]:
    """Name -> its line in a plan of the stand-in; the outputs in another order than the bundle's."""
    height, width = bundle.input_size
    classes = len(bundle.classes)
    lines = {"image": f"in image float -1 1 {height} {width}"}
    if heatmap:
        lines["heatmap"] = f"out heatmap float -1 {classes} {height} {width}"
    for s, stage in reversed(list(enumerate(bundle.stages, 1))):
        lines[f"cams_{s}"] = f"out cams_{s} float -1 {classes} {stage.height} {stage.width}"
    return lines | {"logits": f"out logits float -1 {classes}"}


def plan_of(bundle: Bundle, name: str = "plan", facts: dict[str, Any] | None = None, **change: Any) -> Plan:
    """A plan of the stand-in; `change` replaces parts of its key, and "lines" its tensors."""
    lines = change.pop("lines", None) or tensors(bundle, change.get("graph") == "heatmap")
    key = replace(Key(bundle.sha256, "tensorrt", VERSION, SM, "fp32", "network", Batch()), **change)
    text = "\n".join([f"name {name}", f"batch {key.batch.least} {key.batch.most}", *lines.values()])
    return Plan(b"ftrt" + bytes(20) + bytes(PARTS) + bytes(5) + text.encode(), key, facts=facts or {})
