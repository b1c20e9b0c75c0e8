"""The engine cache: plans of this machine, whole and checked or not there at all.

NAME.plan       the plan; NAME says all that it depends on (`Key.file`)
NAME.plan.json  its key, hash, size, build seconds
NAME.plan.lock  held by the process that builds it; the system lets go of it when that process ends, however it ends
NAME.plan.refused-WHY  what was found instead of a plan for this machine, moved aside
NAME.plan.smSM.kernels  what TensorRT-RTX compiled of it for a device, under the plan's lock
NAME.plan.smSM.memory   which memory is faster on this device, if it is integrated
*.timing        the kernels' measured times (builder.py)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msloc_edge._files import ENGINES, TEMPORARY, atomic_write, cache_folder
from msloc_edge.backends.tensorrt.key import Key
from msloc_edge.backends.tensorrt.library import TensorRTLibrary
from msloc_edge.backends.tensorrt.plan import SIDECAR, Plan, RefusedError, read_plan, serves, sidecar_serves
from msloc_edge.backends.tensorrt.progress import LOG
from msloc_edge.errors import BackendError, OutputError

WAIT = 0.2
"""Seconds between two looks at a lock that another process has."""


class Cache:
    """A folder of plans. Raises OutputError (out_unwritable) when it cannot be read or written."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / ENGINES

    def timing(self, library: TensorRTLibrary, version: str, sm: int) -> Path:
        """File of the kernels' times: they depend on the library and the device, not on the model."""
        return self.folder / f"{library.name}-{version}-sm{sm}.timing"

    def find(self, key: Key) -> Plan | None:
        """Find the plan of exactly this key. What is there instead, stale, foreign or damaged, is moved aside."""
        return self._find(key.file)

    def find_any(self, key: Key) -> Plan | None:
        """Find a plan for this model, machine and precision that takes single films.

        One of this machine's own goes before one that is compatible with it, one that ends in the small class maps
        before one with heatmaps, then the one that also takes the largest batch.
        """
        names = [file.name for file in sorted(self.folder.glob(f"{key.model}-*.plan"))]
        found = [self._find(name) for name in names if self._may_serve(name, key)]
        plans = [plan for plan in found if plan and serves(plan.key, plan.facts, key)]
        order = lambda plan: (not plan.compatible, plan.key.graph == "network", plan.key.batch.most)  # noqa: E731
        return max(plans, key=order, default=None)

    def get(self, key: Key, build: Callable[[], Plan], cancelled: threading.Event | None = None) -> Plan:
        """Find the plan of this key, or build it if it is not there: once, also when many processes ask for it.

        cancelled  set by another thread, it ends the waiting for another process: BackendError (build_failed)
        """
        if plan := self.find(key):
            return plan
        with self._lock(key.file, cancelled):
            if not (plan := self._read_or_refuse(key.file)):
                plan = build()
                self._write(plan)
            return plan

    def put(self, plan: Plan) -> None:
        """Keep a plan, in place of one with the same key."""
        with self._lock(plan.key.file):
            self._write(plan)

    def refuse(self, key: Key, why: str) -> None:
        """Move a plan aside that the library would not take."""
        with self._lock(key.file):
            self._move_aside(key.file, why)

    def kernels(self, key: Key, sm: int) -> SideFile:
        """File for what TensorRT-RTX compiles of a plan on a device."""
        return self._beside(key, sm, "kernels")

    def memory(self, key: Key, sm: int) -> SideFile:
        """File for the choice between mapped memory and copies."""
        return self._beside(key, sm, "memory")

    def _beside(self, key: Key, sm: int, what: str) -> SideFile:
        return SideFile(self.folder / f"{key.file}.sm{sm}.{what}", lambda: self._lock(key.file))

    def _may_serve(self, name: str, key: Key) -> bool:
        """Whether a plan is this machine's, by its name, or compatible, by its sidecar: others' are not read."""
        if name.startswith(f"{key.machine}-"):
            return True
        try:
            return sidecar_serves(_content(self.folder / (name + SIDECAR)), key)
        except OSError as error:
            raise self._broken(error) from error

    def _find(self, name: str) -> Plan | None:
        try:
            return self._read(name)
        except RefusedError:
            with self._lock(name):
                return self._read_or_refuse(name)

    def _read(self, name: str) -> Plan | None:
        try:
            data = _content(self.folder / name)
            return None if data is None else read_plan(data, _content(self.folder / (name + SIDECAR)), name)
        except OSError as error:
            raise self._broken(error) from error

    def _read_or_refuse(self, name: str) -> Plan | None:
        """Read a plan, or move it aside, under the lock."""
        try:
            return self._read(name)
        except RefusedError as error:
            self._move_aside(name, str(error))
            return None

    def _move_aside(self, name: str, why: str) -> None:
        aside = f"{name}.refused-{why}"
        try:
            os.replace(self.folder / name, self.folder / aside)
            (self.folder / (name + SIDECAR)).unlink(missing_ok=True)
        except OSError as error:
            raise self._broken(error) from error
        LOG.warning("%s: this engine is not for this machine (%s): moved to %s", name, why, aside)

    def _write(self, plan: Plan) -> None:
        """Write a plan under the lock: so a temporary name that is always the same will do, and is overwritten."""
        name = plan.key.file
        try:
            # The sidecar first: killed in between, it speaks of a plan that is not there, and the next one builds.
            for file, data in ((name + SIDECAR, plan.sidecar()), (name, plan.data)):
                temporary = self._temporary(file)
                with temporary.open("wb") as written:
                    written.write(data)
                    os.fsync(written.fileno())
                os.replace(temporary, self.folder / file)
        except OSError as error:
            raise self._broken(error) from error

    def _temporary(self, file: str) -> Path:
        return self.folder / TEMPORARY.replace("*", file)

    @contextmanager
    def _lock(self, name: str, cancelled: threading.Event | None = None) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._broken(error) from error
        try:
            self._take(handle, name, cancelled)
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)  # closing is not enough when a forked process has the handle, too
        finally:
            os.close(handle)

    def _take(self, handle: int, name: str, cancelled: threading.Event | None) -> None:
        try:
            if not _locked(handle):
                LOG.warning("%s: another process builds this engine; waiting for it", name)
                cancelled = cancelled or threading.Event()
                while not _locked(handle):
                    if cancelled.wait(WAIT):
                        raise BackendError("build_failed", f"{name}: stopped while another process builds it")
            for file in (name, name + SIDECAR):
                self._temporary(file).unlink(missing_ok=True)
        except OSError as error:  # a network's file system may have no locks
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> OutputError:
        return OutputError(
            "out_unwritable",
            f"the engine cache {self.folder} cannot be used: {error.strerror}; set MSLOC_CACHE to a folder of yours",
        )


@dataclass(frozen=True, slots=True)
class SideFile:
    """A file that only saves time: what is not there, or cannot be written, is no error.

    lock  of the plan
    """

    path: Path
    lock: Callable[[], AbstractContextManager[None]]

    def read(self) -> bytes:
        """Read it; b"" where it is not there."""
        try:
            return self.path.read_bytes()
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Write it. Of two processes that do, the later one's stays; each began with what was there."""
        with contextlib.suppress(OSError, OutputError), self.lock():
            atomic_write(self.path, data)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
