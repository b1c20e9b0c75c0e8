"""An engine that takes minutes to build: another one serves until it is ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends.base import Backend, Outputs
from msloc_edge.backends.tensorrt.progress import LOG
from msloc_edge.bundle import Bundle
from msloc_edge.errors import InternalError, MslocError


class BuildingBackend(Backend):
    """Runs `serving`, makes the wanted engine in a thread, and goes on with that one. `name` is of the one that runs.

    make  called in the thread with an event: set, it asks to stop

    Closing it before the engine is ready stops the build: a command that ends must not leave one behind.
    """

    def __init__(self, serving: Backend, wanted: str, make: Callable[[threading.Event], Backend]) -> None:
        self._engine, self._wanted = serving, wanted
        self.name = serving.name
        self._failed: MslocError | None = None
        self._cancelled = threading.Event()
        self._made: Future[Backend] | None = Future()
        threading.Thread(target=self._work, args=(make, self._made), name=f"build {wanted}", daemon=True).start()

    @classmethod
    def load(cls, bundle: Bundle, device: str | None = None, threads: int | None = None) -> Backend:
        raise NotImplementedError("it is made by the backend that takes long to build")

    def run(self, batch: NDArray[np.float32]) -> Outputs:
        if self._made and self._made.done():
            self._change()
        return self._engine.run(batch)

    def run_device(self, films: Any) -> Outputs:
        """Of the engine that is built, which this waits for."""
        self.wait()
        ready: Any = self._engine
        found: Outputs = ready.run_device(films)
        return found

    def wait(self) -> None:
        if self._made:
            self._change()
        if self._failed:
            raise self._failed

    def describe(self) -> Mapping[str, str]:
        facts = dict(self._engine.describe())
        if self._made:
            facts["until"] = f"{self._wanted} is built"
        if self._failed:
            facts["instead_because"] = f"{self._wanted}: {self._failed}"
        return facts

    def close(self) -> None:
        self._cancelled.set()
        if self._made:
            self._change()
        self._engine.close()

    def _change(self) -> None:
        """To the engine that was built, when it is; the one that served goes on if that failed."""
        assert self._made
        try:
            ready = self._made.result()  # interrupted here, the thread is still ours to stop
        except MslocError as error:
            self._made, self._failed = None, error
            if not self._cancelled.is_set():
                LOG.warning("%s: %s; %s goes on", self._wanted, error, self.name)
            return
        self._engine.close()
        self._made, self._engine, self.name = None, ready, ready.name

    def _work(self, make: Callable[[threading.Event], Backend], made: Future[Backend]) -> None:
        try:
            made.set_result(make(self._cancelled))
        except MslocError as error:
            made.set_exception(error)
        except Exception as error:  # in a thread nobody else would hear of it
            made.set_exception(InternalError("internal_error", f"unexpected {type(error).__name__}: {error}"))
