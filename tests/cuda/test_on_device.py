"""Arrays of other libraries: capsules of numpy and torch, whose memory is the host's, read as if it were the device's.

That films by DLPack reach an engine is tested on the stand-ins of tests/backends/tensorrt.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from msloc_edge.cuda.on_device import OnDevice, on_device
from msloc_edge.errors import BackendError


class Exported:
    """Says of an array on the host that it is on a CUDA device."""

    def __init__(self, array: Any, kind: int = 2, ordinal: int = 0) -> None:
        self.array, self.device, self.capsule = array, (kind, ordinal), None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream == 77
        self.capsule = self.array.__dlpack__()
        return self.capsule


FLOATS, BYTES = np.dtype(np.float32), np.dtype(np.uint8)


def read(films: Any) -> OnDevice:
    with on_device(films, stream(), 0) as found:
        return found


def stream(waited: list[int] | None = None) -> Any:
    return SimpleNamespace(handle=77, current=nullcontext, wait_for=[].append if waited is None else waited.append)


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (1, 1, 1, 1), (3,), (), (0, 1, 5, 7)])
def test_capsules_of_torch(shape: tuple[int, ...]) -> None:
    films = torch.zeros(shape)
    assert read(Exported(films)) == OnDevice(films.data_ptr(), shape, FLOATS)


@pytest.mark.parametrize("kind", [2, 13])
def test_capsules_of_numpy(kind: int) -> None:
    films = np.zeros((4, 1, 5, 7), np.float32)[1:3]
    assert read(Exported(films, kind)) == OnDevice(films.ctypes.data, (2, 1, 5, 7), FLOATS)


def test_a_stride_of_one_film_means_nothing() -> None:
    films = torch.zeros(5, 1, 4, 6)[::5]
    assert films.stride()[0] == 5 * 24
    assert read(Exported(films)).shape == (1, 1, 4, 6)


def test_it_is_given_back_once() -> None:
    films = np.zeros((1, 1, 5, 7), np.float32)
    before, exported = sys.getrefcount(films), Exported(films)
    with on_device(exported, stream(), 0):
        assert sys.getrefcount(films) == before + 2, "by the capsule, and by the stand-in"
        assert '"used_dltensor"' in repr(exported.capsule)
    assert sys.getrefcount(films) == before + 1
    with pytest.raises(ZeroDivisionError), on_device(exported, stream(), 0):
        raise ZeroDivisionError
    assert sys.getrefcount(films) == before + 1
    exported.capsule = None
    assert sys.getrefcount(films) == before + 1, "the capsule's own destructor leaves a used one alone"


@pytest.mark.parametrize(
    ("films", "says"),
    [
        (
            torch.zeros(1, 1, 4, 4),
            "expected an array on cuda:0, got DLPack device type 1, id 0; copy it there, or to the host",
        ),
        (Exported(np.zeros(4, np.float32), 3), "DLPack device type 3"),
        (Exported(np.zeros(4, np.float32), 2, 1), "expected an array on cuda:0, got CUDA device 1"),
        (Exported(np.zeros(4)), "expected float32, got float64; convert it"),
        (Exported(np.zeros(4, np.int32)), "expected float32, got int32"),
        (Exported(torch.zeros(4, dtype=torch.bfloat16)), r"expected float32, got DLPack type \(4, 16, 1\)"),
        (Exported(torch.zeros(4, 4).T[:2]), r"expected a contiguous array, got strides \[1, 4\]"),
        (Exported(torch.zeros(4, requires_grad=True)), "an array that DLPack can hand over, got Exported: "),
        (np.float32(1), "__dlpack__|DLPack"),
        ([[1.0]], "expected an array with __dlpack__ or __cuda_array_interface__, got list"),
        (
            SimpleNamespace(__cuda_array_interface__={"typestr": "<i12", "shape": (4,)}),
            "expected float32, got <i12; convert it",
        ),
        (
            SimpleNamespace(__cuda_array_interface__={"typestr": "<f8", "shape": (4,)}),
            "expected float32, got float64",
        ),
        (
            SimpleNamespace(__cuda_array_interface__={"typestr": "<f4", "shape": (4, 4), "strides": (32, 4)}),
            r"expected a contiguous array, got strides \[32, 4\]",
        ),
    ],
)
def test_what_is_no_film_of_this_device(films: Any, says: str) -> None:
    with pytest.raises(BackendError, match=says) as caught:
        read(films)
    assert caught.value.reason == "backend_failed"
    if isinstance(films, Exported) and films.capsule is not None:
        assert '"used_dltensor"' in repr(films.capsule), "given back all the same"


def test_a_capsule_that_was_used_is_refused() -> None:
    exported = Exported(np.zeros(4, np.float32))
    read(exported)
    exported.__dlpack__ = lambda stream: exported.capsule  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="an array that DLPack can hand over, got Exported: PyCapsule"):
        read(exported)


def test_the_cuda_array_interface_may_name_a_stream() -> None:
    facts = {"typestr": "<f4", "data": (4096, False), "shape": (1, 1, 2, 2), "version": 3}
    waited: list[int] = []
    for extra in ({}, {"stream": None}, {"stream": 2}, {"strides": None}):
        films = SimpleNamespace(__cuda_array_interface__=facts | extra)
        with on_device(films, stream(waited), 0) as found:
            assert found == OnDevice(4096, (1, 1, 2, 2), FLOATS)
    assert waited == [2]
