"""Films that are on a CUDA device already, in any library's array: by DLPack or the CUDA array interface.

DLPack hands over a capsule with a pointer to this (dlpack.h, the form without a version, which every library gives):

    DLManagedTensor   DLTensor, void *manager_ctx, void (*deleter)(DLManagedTensor *)
    DLTensor          void *data, {int32 type, int32 id} device, int32 ndim, {uint8 code, uint8 bits, uint16 lanes}
                      dtype, int64 *shape, int64 *strides (null: contiguous), uint64 byte_offset
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from msloc_edge.cuda.streams import Stream
from msloc_edge.errors import BackendError

CUDA, MANAGED = 2, 13
"""DLDeviceType of memory that a CUDA device copies from. 1 is the CPU, 3 the host's page-locked memory."""

FLOAT32 = (2, 32, 1)
"""DLDataType: code of floats, bits, lanes."""

TAKEN, USED = b"dltensor", b"used_dltensor"
"""Names of the capsule; one that was used is not freed by its destructor. A capsule keeps no copy: these must live."""


class OnDevice(NamedTuple):
    """Contiguous float32 films [B, 1, H, W] at an address on the device."""

    address: int
    shape: tuple[int, ...]


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes, _pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes, _set_name.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int
_deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # called with the GIL: some exporters count references in theirs


def is_on_device(films: Any) -> bool:
    """Whether an array of any library is on a CUDA device; what says nothing of a device is on the host."""
    if hasattr(films, "__dlpack_device__"):
        return films.__dlpack_device__()[0] in (CUDA, MANAGED)
    return hasattr(films, "__cuda_array_interface__")


@contextmanager
def on_device(films: Any, stream: Stream, ordinal: int) -> Iterator[OnDevice]:
    """Borrow films for as long as the block lasts; DLPack is preferred, as its exporter waits for what writes them.

    stream   on which they will be read
    ordinal  its device, which they must be on
    Raises BackendError (backend_failed) when they are not contiguous float32 films on this device.
    """
    if hasattr(films, "__dlpack__"):
        kind, place = films.__dlpack_device__()
        if kind not in (CUDA, MANAGED) or place != ordinal:
            where = f"CUDA device {place}" if kind in (CUDA, MANAGED) else f"DLPack device type {int(kind)}, id {place}"
            raise _refused(f"films on cuda:{ordinal}, got {where}; copy them there, or to the host")
        try:
            capsule = films.__dlpack__(stream=stream.handle)
            address = _pointer(capsule, TAKEN)
        except (BufferError, TypeError, ValueError, RuntimeError) as error:  # as one that requires gradients
            raise _refused(f"films that DLPack can hand over, got {type(films).__name__}: {error}") from error
        with _borrowed(capsule, address) as found:
            yield found
    elif (facts := getattr(films, "__cuda_array_interface__", None)) is not None:
        if facts["typestr"] != "<f4" or facts.get("strides"):
            raise _refused(f"contiguous float32 films, got {facts['typestr']}, strides {facts.get('strides')}")
        if facts.get("stream") is not None:
            with stream.current():
                stream.wait_for(facts["stream"])
        yield OnDevice(facts["data"][0], tuple(facts["shape"]))
    else:
        raise _refused(f"an array with __dlpack__ or __cuda_array_interface__, got {type(films).__name__}")


@contextmanager
def _borrowed(capsule: Any, address: int) -> Iterator[OnDevice]:
    """Borrow what a capsule holds; it is given back at the end."""
    managed = _DLManagedTensor.from_address(address)
    _set_name(capsule, USED)
    try:
        tensor = managed.tensor
        shape = tuple(tensor.shape[: tensor.ndim])
        if (tensor.code, tensor.bits, tensor.lanes) != FLOAT32:
            raise _refused(f"float32 films, got DLPack type {(tensor.code, tensor.bits, tensor.lanes)}; convert them")
        if tensor.strides and not _contiguous(shape, tensor.strides[: tensor.ndim]):
            raise _refused(f"contiguous films, got strides {tensor.strides[: tensor.ndim]}; copy them")
        yield OnDevice((tensor.data or 0) + tensor.byte_offset, shape)
    finally:
        if managed.deleter:
            _deleter(managed.deleter)(address)


def _contiguous(shape: tuple[int, ...], strides: list[int]) -> bool:
    """Strides count elements; those of a dimension of one mean nothing."""
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != expected:
            return False
        expected *= side
    return True


def _refused(words: str) -> BackendError:
    return BackendError("backend_failed", f"run: expected {words}")
