"""Stored pixels that are on a CUDA device already, as a film."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from msloc_edge.cuda.on_device import DeviceArray, OnDevice, on_device
from msloc_edge.cuda.streams import Stream, open_stream
from msloc_edge.errors import BackendError, InputError
from msloc_edge.imaging.checks import check_size
from msloc_edge.imaging.raster import full_range
from msloc_edge.types import Frame

DTYPES = ("uint8", "uint16")


class DevicePixels:
    """Stored pixels [H, W] uint8 or uint16 on a CUDA device; the array of numpy that is made of them is a copy.

    Whoever has them keeps the array that they are of, and so its memory.
    """

    def __init__(self, array: DeviceArray) -> None:
        """Look at an array's form, and wait for nothing. Raises InputError (unsupported_pixels)."""
        try:
            with on_device(array, None, dtypes=DTYPES) as found:
                shape, self.dtype = found.shape, found.dtype
        except BackendError as error:
            raise InputError("unsupported_pixels", f"array: {error}") from error
        if len(shape) != 2:
            raise InputError(
                "unsupported_pixels", f"array: expected [H, W] on the device, got shape {shape}; convert it first."
            )
        self.shape = (shape[0], shape[1])
        self.itemsize, self._array = self.dtype.itemsize, array

    def borrow(self, stream: Stream, ordinal: int | None = None) -> AbstractContextManager[OnDevice]:
        """Give their address for work on a stream, which waits for what writes them; the host does not wait.

        Raises BackendError (backend_failed) where they are not on device `ordinal`.
        """
        return on_device(self._array, stream, ordinal, DTYPES)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:  # numpy's words for "never"
            raise ValueError("expected copy=None or True for pixels on a device, got False")
        stream = open_stream(self._ordinal())
        try:
            with stream.current(), self.borrow(stream) as found:
                host = np.empty(self.shape, self.dtype)
                stream.copy_out(host, found.address)
                stream.synchronize()
        finally:
            stream.close()
        return host.astype(dtype or self.dtype, copy=False)

    def _ordinal(self) -> int:
        """Their device as DLPack names it; with one address space any device's context serves for the rest."""
        device = getattr(self._array, "__dlpack_device__", None)
        return int(device()[1]) if device else 0


def frame_on_device(array: DeviceArray) -> Frame:
    """Take an array on a CUDA device as a film, as `frame_from_array` takes one on the host.

    Its values stay there: whether all are equal, or few of them used, is not looked for.

    Raises InputError `unsupported_pixels`, `too_small` or `too_large`.
    """
    pixels = DevicePixels(array)
    check_size(*pixels.shape, "array")
    return Frame(pixels, full_range(8 * pixels.itemsize))
