"""Preprocessing on a CUDA device: films are windowed there, and stay for the network."""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.ops import window_resize
from msloc_edge.types import Frame


class DeviceFilm:
    """A film as model's input [H, W] on a device, and on its way to the host, where numpy makes an array of it.

    The input gate looks at every film. So the copy is put behind the film at once, on the film's own stream beside the
    network: whoever asks finds it there.
    """

    def __init__(self, film: Tensor) -> None:
        """film  [H, W] float32, which the current stream writes"""
        self.shape = tuple(film.shape)
        self._film, self._windowed, self._copied = film, torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._windowed.record()
        self._host = torch.empty(film.shape, pin_memory=True)
        self._host.copy_(film, non_blocking=True)
        self._copied.record()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        self._copied.synchronize()
        array: NDArray[np.float32] = self._host.numpy()
        return array.astype(dtype or array.dtype, copy=bool(copy))

    def copy_to(self, target: Tensor) -> None:
        """Copy to a tensor, on the current stream, which waits for the film and not for its way to the host."""
        stream = torch.cuda.current_stream()
        self._windowed.wait(stream)
        self._film.record_stream(stream)
        target.copy_(self._film)


class CudaWindow:
    """Window and letterbox on a device. Threads have a stream each, so that the copies and the kernel of the next film
    run beside the network of this one."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._own = device, threading.local()

    @torch.inference_mode()
    def __call__(self, frame: Frame, geometry: Geometry) -> DeviceFilm:
        """Window a film, and wait for nothing. Pixels go from page-locked memory, others by way of it."""
        stored = np.asarray(frame.pixels)
        pixels = torch.from_numpy(stored if stored.itemsize == 1 else stored.view(np.int16))
        size = geometry.input_height, geometry.input_width
        place = geometry.left, geometry.top, geometry.width, geometry.height
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream()):
            staged = pixels if pixels.is_pinned() else pixels.contiguous().pin_memory()
            table = torch.from_numpy(frame.lut).pin_memory().to(self._device, non_blocking=True)
            fitted = window_resize(staged.to(self._device, non_blocking=True), table, size, place)
            return DeviceFilm(fitted[0, 0])

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._own.stream
        return stream
