"""Packages that reach CUDA's driver: cuda-bindings, NVIDIA's own, or pycuda where that is what is installed."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any, Protocol

from msloc_edge.cuda.compiled import Argument
from msloc_edge.errors import BackendError, DependencyError

Dimensions = tuple[int, int, int]

CTYPES: Mapping[str, Any] = {
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "fp32": ctypes.c_float,
    "fp64": ctypes.c_double,
}
"""Triton's type of a number -> its type in C."""

NO_DRIVER = (
    "no NVIDIA driver on this machine: libcuda.so.1 cannot be loaded; install the driver (a container needs "
    "--gpus all), or take what runs on the CPU"
)


class MissingFunctionError(BackendError):
    """The driver has no function of this name: it is older than the package that calls it."""


class Provider(Protocol):
    """One device through one package; its primary context, which torch and CUDA's runtime use too.

    integrated  the device has no memory of its own (Jetson)
    """

    name: str
    sm: int
    integrated: bool
    driver: Any
    device: Any

    def current(self) -> AbstractContextManager[None]:
        """Make the context that of this thread, and then again the one that it had. It may be nested."""

    def load(self, image: bytes, entry: str) -> Any:
        """Load the function `entry` of a cubin or of PTX; it keeps its module alive."""

    def launch(
        self,
        function: Any,
        grid: Dimensions,
        block: int,
        shared: int,
        stream: Any,
        arguments: Sequence[Argument],
        values: Sequence[float],
    ) -> None:
        """Put one launch on a stream, and do not wait for it."""


class CudaBindings:
    """A device by cuda.bindings.driver, where every call returns a status and its results."""

    name = "cuda-bindings"

    def __init__(self, driver: Any, ordinal: int) -> None:
        self.driver = driver
        try:
            (status,) = driver.cuInit(0)
        except RuntimeError as error:  # it loads libcuda.so.1 on the first call
            raise BackendError("backend_device", NO_DRIVER) from error
        self._check("cuInit", status, reason="backend_device")
        status, count = driver.cuDeviceGetCount()
        self._check("cuDeviceGetCount", status)
        _check_ordinal(ordinal, int(count))
        self.device = self.call("cuDeviceGet", ordinal)
        attribute = driver.CUdevice_attribute
        major, minor = (
            self.call(
                "cuDeviceGetAttribute",
                getattr(attribute, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"),
                self.device,
            )
            for part in ("MAJOR", "MINOR")
        )
        self.sm = 10 * int(major) + int(minor)
        integrated = attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
        self.integrated = bool(self.call("cuDeviceGetAttribute", integrated, self.device))
        self._context = self.call("cuDevicePrimaryCtxRetain", self.device)  # for as long as the process lives

    def load(self, image: bytes, entry: str) -> Any:
        with self.current():
            module = self.call("cuModuleLoadData", image + b"\0")  # PTX is a C string
            return self.call("cuModuleGetFunction", module, entry.encode())

    def launch(
        self,
        function: Any,
        grid: Dimensions,
        block: int,
        shared: int,
        stream: Any,
        arguments: Sequence[Argument],
        values: Sequence[float],
    ) -> None:
        types = tuple(CTYPES.get(argument.type, ctypes.c_void_p) for argument in arguments)
        with self.current():
            self.call("cuLaunchKernel", function, *grid, block, 1, 1, shared, int(stream), (tuple(values), types), 0)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self.call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the driver, and give its one result.

        Raises BackendError (backend_failed), and of these MissingFunctionError.
        """
        try:
            status, *results = getattr(self.driver, name)(*arguments)
        except RuntimeError as error:  # it looks for the function on the first call
            raise MissingFunctionError("backend_failed", self._older_driver(name)) from error
        self._check(name, status)
        return results[0] if results else None

    def _older_driver(self, name: str) -> str:
        _, version = self.driver.cuDriverGetVersion()
        major, minor = version // 1000, version % 1000 // 10
        return (
            f"CUDA's driver: {name} of cuda-bindings {metadata.version('cuda-bindings')} is not in a driver of CUDA "
            f"{major}.{minor}; update the driver, or: pip install 'cuda-bindings<{major + 1}'"
        )

    def _check(self, name: str, status: Any, reason: str = "backend_failed") -> None:
        if status == self.driver.CUresult.CUDA_SUCCESS:
            return
        _, text = self.driver.cuGetErrorString(status)
        said = text.decode() if text else "unknown error"
        raise BackendError(reason, f"CUDA's driver: {name} failed: {said} ({status.name})")


class PyCuda:
    """A device by pycuda.driver, which raises its own errors. A stream is None or pycuda's own: it wraps no other."""

    name = "pycuda"

    def __init__(self, driver: Any, ordinal: int) -> None:
        self.driver = driver
        try:
            driver.init()
            _check_ordinal(ordinal, driver.Device.count())
            self.device = driver.Device(ordinal)
            major, minor = self.device.compute_capability()
            self.sm = 10 * int(major) + int(minor)
            self.integrated = bool(self.device.get_attribute(driver.device_attribute.INTEGRATED))
            self._context = self.device.retain_primary_context()
        except driver.Error as error:
            raise BackendError("backend_device", f"no NVIDIA device on this machine: {error}") from error

    def load(self, image: bytes, entry: str) -> Any:
        with self.current():
            return self.driver.module_from_buffer(image + b"\0").get_function(entry)

    def launch(
        self,
        function: Any,
        grid: Dimensions,
        block: int,
        shared: int,
        stream: Any,
        arguments: Sequence[Argument],
        values: Sequence[float],
    ) -> None:
        if stream == 0:
            stream = None
        elif isinstance(stream, int):
            raise BackendError(
                "backend_failed", "pycuda launches on its own streams alone: expected 0 or a pycuda Stream"
            )
        with self.current():
            function.prepare([_letter(argument) for argument in arguments])
            function.prepared_async_call(grid, (block, 1, 1), stream, *values, shared_size=shared)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        try:
            self._context.push()
            try:
                yield
            finally:
                self.driver.Context.pop()
        except self.driver.Error as error:
            raise BackendError("backend_failed", f"CUDA's driver: {error}") from error


def _letter(argument: Argument) -> str:
    """Type of an argument as pycuda packs it, in the notation of `struct`."""
    kind = CTYPES.get(argument.type)
    return "P" if kind is None else str(kind._type_)


def _check_ordinal(ordinal: int, count: int) -> None:
    if not 0 <= ordinal < count:
        raise BackendError("backend_device", f"expected a device from 0 to {count - 1}, got {ordinal}")


PACKAGES: Mapping[str, Callable[[Any, int], Provider]] = {"cuda.bindings.driver": CudaBindings, "pycuda.driver": PyCuda}
"""Module -> its adapter, in the order in which they are tried."""


def open_provider(ordinal: int) -> Provider:
    """Open a device by the first package that is installed.

    Raises DependencyError (backend_missing), BackendError (backend_device).
    """
    for module, adapter in PACKAGES.items():
        try:
            driver = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except ImportError as error:  # pycuda is linked to libcuda.so.1
            raise BackendError("backend_device", NO_DRIVER) from error
        return adapter(driver, ordinal)
    raise DependencyError(
        "backend_missing", "expected cuda-bindings or pycuda, found neither; install one: pip install 'msloc-edge[gpu]'"
    )
