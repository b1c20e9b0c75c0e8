"""Arrays that are on a CUDA device already, of any library: by DLPack or the CUDA array interface.

DLPack hands over a capsule with a pointer to this (dlpack.h, the form without a version, which every library gives):

    DLManagedTensor   DLTensor, void *manager_ctx, void (*deleter)(DLManagedTensor *)
    DLTensor          void *data, {int32 type, int32 id} device, int32 ndim, {uint8 code, uint8 bits, uint16 lanes}
                      dtype, int64 *shape, int64 *strides (null: contiguous), uint64 byte_offset
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, Union

import numpy as np

from msloc_edge.cuda.streams import Stream
from msloc_edge.errors import BackendError

CUDA, MANAGED = 2, 13
"""DLDeviceType of memory that a CUDA device copies from. 1 is the CPU, 3 the host's page-locked memory."""

LETTERS = "iuf"
"""DLDataType: signed, unsigned and floating numbers by their code, in numpy's letters."""

NO_WAIT = -1
"""Stream of `__dlpack__` that asks the exporter to wait for nothing."""

TAKEN, USED = b"dltensor", b"used_dltensor"
"""Names of the capsule; one that was used is not freed by its destructor. A capsule keeps no copy: these must live."""


class HasDlpack(Protocol):
    """An array that DLPack can hand over: of torch, CuPy or JAX."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class HasCudaInterface(Protocol):
    """An array with the CUDA array interface, as numba has them."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


DeviceArray = Union[HasDlpack, HasCudaInterface]  # noqa: UP007 - protocols cannot be joined at run time in Python 3.10


class OnDevice(NamedTuple):
    """Contiguous numbers at an address on the device."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


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


def is_on_device(array: Any) -> bool:
    """Whether an array of any library is on a CUDA device; what says nothing of a device is on the host."""
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] in (CUDA, MANAGED)
    return hasattr(array, "__cuda_array_interface__")


@contextmanager
def on_device(
    array: Any, stream: Stream | None, ordinal: int | None = None, dtypes: tuple[str, ...] = ("float32",)
) -> Iterator[OnDevice]:
    """Borrow an array for as long as the block lasts; DLPack is preferred, as its exporter waits for what writes it.

    stream   on which it will be read; None: it will not be, so nothing waits
    ordinal  its device, which it must be on; None: any
    dtypes   that it may have
    Raises BackendError (backend_failed) when it is not contiguous, of another type, or not on this device.
    """
    if hasattr(array, "__dlpack__"):
        kind, place = array.__dlpack_device__()
        if kind not in (CUDA, MANAGED) or ordinal not in (None, place):
            where = f"CUDA device {place}" if kind in (CUDA, MANAGED) else f"DLPack device type {int(kind)}, id {place}"
            raise _refused(f"an array on cuda:{ordinal or 0}, got {where}; copy it there, or to the host")
        try:
            capsule = array.__dlpack__(stream=stream.handle if stream else NO_WAIT)
            address = _pointer(capsule, TAKEN)
        except (BufferError, TypeError, ValueError, RuntimeError) as error:  # as one that requires gradients
            raise _refused(f"an array that DLPack can hand over, got {type(array).__name__}: {error}") from error
        with _borrowed(capsule, address, dtypes) as found:
            yield found
    elif (facts := getattr(array, "__cuda_array_interface__", None)) is not None:
        dtype, shape = _taken(facts["typestr"], dtypes), tuple(facts["shape"])
        _require_contiguous(shape, facts.get("strides"), dtype.itemsize)
        if stream and facts.get("stream") is not None:
            with stream.current():
                stream.wait_for(facts["stream"])
        yield OnDevice(facts["data"][0], shape, dtype)
    else:
        raise _refused(f"an array with __dlpack__ or __cuda_array_interface__, got {type(array).__name__}")


@contextmanager
def _borrowed(capsule: Any, address: int, dtypes: tuple[str, ...]) -> Iterator[OnDevice]:
    """Borrow what a capsule holds; it is given back at the end."""
    managed = _DLManagedTensor.from_address(address)
    _set_name(capsule, USED)
    try:
        tensor = managed.tensor
        shape, code = tuple(tensor.shape[: tensor.ndim]), tensor.code
        if code >= len(LETTERS) or tensor.lanes != 1:  # bfloat16, complex, vectors
            raise _refused(f"{' or '.join(dtypes)}, got DLPack type {(code, tensor.bits, tensor.lanes)}; convert it")
        dtype = _taken(f"{LETTERS[code]}{tensor.bits / 8:g}", dtypes)
        _require_contiguous(shape, tensor.strides[: tensor.ndim] if tensor.strides else None, 1)
        yield OnDevice((tensor.data or 0) + tensor.byte_offset, shape, dtype)
    finally:
        if managed.deleter:
            _deleter(managed.deleter)(address)


def _taken(words: str, dtypes: tuple[str, ...]) -> np.dtype[Any]:
    """Read a type in numpy's words; others than these are refused, and so are those that numpy does not have."""
    try:
        dtype = np.dtype(words)
    except TypeError:
        raise _refused(f"{' or '.join(dtypes)}, got {words}; convert it") from None
    if dtype not in map(np.dtype, dtypes):
        raise _refused(f"{' or '.join(dtypes)}, got {dtype}; convert it")
    return dtype


def _require_contiguous(shape: tuple[int, ...], strides: Sequence[int] | None, unit: int) -> None:
    """Refuse gaps and other orders; the stride of a dimension of one means nothing."""
    expected = unit
    for side, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if side != 1 and stride != expected:
            raise _refused(f"a contiguous array, got strides {list(strides or ())}; copy it")
        expected *= side


def _refused(words: str) -> BackendError:
    return BackendError("backend_failed", f"expected {words}")
