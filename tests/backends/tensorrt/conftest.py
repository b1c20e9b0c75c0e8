"""Stand-ins for what is not on every machine: TensorRT, and pycuda."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def trt(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in, as tensorrt."""
    spec = importlib.util.spec_from_file_location("tensorrt", stand_ins / "python" / "tensorrt.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


class PyCuda:
    """pycuda.driver, with the memory functions of its source; device memory is the host's, streams do all at once."""

    class Error(Exception):
        """pycuda's own."""

    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    device_attribute = SimpleNamespace(INTEGRATED="INTEGRATED")

    def __init__(self) -> None:
        self.integrated, self.live, self.copies = False, 0, 0
        fake = self

        class Context:
            def push(self) -> None: ...
            @staticmethod
            def pop() -> None: ...

        class Device:
            count = staticmethod(lambda: 1)

            def __init__(self, ordinal: int) -> None: ...
            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

            def retain_primary_context(self) -> Context:
                return Context()

            def get_attribute(self, attribute: str) -> int:
                return int(fake.integrated)

        class Memory:
            def __init__(self, size: int) -> None:
                self.numbers = (ctypes.c_float * (size // 4))()
                fake.live += 1

            def __int__(self) -> int:
                return ctypes.addressof(self.numbers)

            def free(self) -> None:
                fake.live -= 1

        class Event:
            def record(self, stream: Any) -> Any:
                return self

            def time_since(self, other: Any) -> float:
                return 1.5

        self.Context, self.Device, self.mem_alloc, self.Event = Context, Device, Memory, Event
        self.Stream = lambda: SimpleNamespace(handle=0, synchronize=lambda: None)

    def init(self) -> None: ...

    def pagelocked_empty(self, shape: int, dtype: Any, mem_flags: int = 0) -> np.ndarray:
        class Base(np.ndarray):
            def get_device_pointer(self) -> int:
                assert mem_flags == 2
                return self.ctypes.data

        return np.full(shape, np.nan, dtype).view(Base)[:]

    def memcpy_htod_async(self, target: int, source: np.ndarray, stream: Any) -> None:
        self._copy(target, source.ctypes.data, source.nbytes)

    def memcpy_dtoh_async(self, target: np.ndarray, source: int, stream: Any) -> None:
        self._copy(target.ctypes.data, source, target.nbytes)

    def memcpy_dtod_async(self, target: int, source: int, size: int, stream: Any) -> None:
        self._copy(target, source, size)

    def memcpy_dtoh(self, target: np.ndarray, source: int) -> None:
        self._copy(target.ctypes.data, source, target.nbytes)

    def _copy(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)
        self.copies += 1


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> PyCuda:
    """The only package that reaches a driver."""
    fake = PyCuda()
    modules = {"cuda.bindings.driver": None, "pycuda": SimpleNamespace(driver=fake), "pycuda.driver": fake}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake
