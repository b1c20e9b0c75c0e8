"""A backend whose engine takes minutes to build: another backend serves until it is ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from numpy.typing import ArrayLike

from msloc_edge.backends.base import Backend, Films, Outputs, Search
from msloc_edge.backends.tensorrt.progress import LOG
from msloc_edge.cuda.on_device import is_on_device
from msloc_edge.errors import InternalError, MslocError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.types import Frame


class BuildingBackend(Backend):
    """A backend that serves, and another that is built in a thread and takes over. `name` is of the one that runs.

    serve   loads the one that serves: while the other is built, and again, with False, if that fails
    wanted  words for the one that is built
    make    builds it; called in the thread with an event that, set, asks to stop

    Closing it before the other is ready stops the build: a command that ends must not leave one behind.
    """

    def __init__(
        self, serve: Callable[[bool], Backend], wanted: str, make: Callable[[threading.Event], Backend]
    ) -> None:
        self._serve, self._active, self._wanted = serve, serve(True), wanted
        self.name = self._active.name
        self._failed: MslocError | None = None
        self._cancelled = threading.Event()
        self._build: Future[Backend] | None = Future()
        threading.Thread(target=self._work, args=(make, self._build), name=f"build {wanted}", daemon=True).start()

    def preprocess(self, frame: Frame, geometry: Geometry) -> ArrayLike:
        return self._active.preprocess(frame, geometry)

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        if is_on_device(films):
            self.wait()  # the one that serves reads the host's memory alone
        elif self._build and self._build.done():
            self._take_over()
        return self._active.run(films, search)

    def describe(self) -> Mapping[str, str]:
        facts = dict(self._active.describe())
        if self._build:
            facts["until"] = f"{self._wanted} is built"
        if self._failed:
            facts["instead_because"] = f"{self._wanted}: {self._failed}"
        return facts

    def wait(self) -> None:
        if self._build:
            self._take_over()
        if self._failed:
            raise self._failed

    def close(self) -> None:
        self._cancelled.set()
        if self._build:
            self._take_over()
        self._active.close()

    def _take_over(self) -> None:
        """Wait for the backend that is built, and run it from now on; the one that served goes on if that failed."""
        assert self._build
        try:
            ready = self._build.result()  # interrupted here, the thread is still ours to stop
        except MslocError as error:
            self._build, self._failed = None, error
            if self._cancelled.is_set():
                return
            LOG.warning("%s: %s; %s goes on", self._wanted, error, self.name)
            ready = self._serve(False)
        self._active.close()
        self._build, self._active, self.name = None, ready, ready.name

    def _work(self, make: Callable[[threading.Event], Backend], build: Future[Backend]) -> None:
        try:
            build.set_result(make(self._cancelled))
        except MslocError as error:
            build.set_exception(error)
        except Exception as error:  # in a thread nobody else would hear of it
            build.set_exception(InternalError("internal_error", f"unexpected {type(error).__name__}: {error}"))
