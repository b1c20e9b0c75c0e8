"""Compressed pixels are decoded in a process that can be stopped: `python -m msloc_edge.imaging.decoder`.

A damaged codestream may hang or crash the library that decodes it, or fill the memory. Here it ends a helper, which
has limits of time and memory, and the next film gets a new one. Helpers start when they are first needed, one for
each thread that decodes at that moment, and are kept. A helper ends with the program that started it, however that
ends: the line between the two is cut then.

    program                                        helper
    shared memory: room for cells, codestream  ->  codec writes the cells
    line: what the codestream is (JSON)        ->  "done", "truncated", "corrupt" or "memory"
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import DependencyError, InputError
from msloc_edge.imaging.codestream import JPEG_2000, Codestream

SECONDS, SECONDS_PER_MEGAPIXEL = 5.0, 2.0
"""Processor time that a film may cost: some five times what OpenJPEG, the slowest codec, needs on a small device."""

_PATIENCE = 10  # a helper that does not answer in so many times its processor time sleeps, and is ended
_START_SECONDS = 120
_BASE_MEMORY = 128 << 20


def is_available() -> bool:
    """Tell whether the codecs are installed."""
    return importlib.util.find_spec("imagecodecs") is not None


def bytes_per_sample(kind: str) -> int:
    """Memory that decoding takes for each sample, in bytes; OpenJPEG holds 32-bit samples, twice."""
    return 12 if kind == JPEG_2000 else 6


def decode(codestream: Codestream, name: str) -> NDArray[Any]:
    """Decode a film -> cells [H, W] or [H, W, samples], uint8 up to 8 bits, else uint16; signed: two's complement.

    Raises InputError `truncated` or `corrupt`, with the limit where one was reached; DependencyError
    `package_missing` where no helper can be started.
    """
    film = _Film(codestream)
    helper = _idle_helper() or _Helper()
    try:
        answer = helper.ask(film)
    except BaseException:
        helper.kill()
        raise
    if answer in ("done", "truncated", "corrupt"):
        _idle.append(helper)
    else:
        helper.kill()
    if answer == "done":
        return film.cells
    if answer == "truncated":
        raise InputError(answer, f"{name}: expected a whole film, but its pixels end early; copy or export it again.")
    why = {"corrupt": "they do not decode", "memory": f"they need more than {film.memory >> 20} MB"}.get(answer, answer)
    raise InputError("corrupt", f"{name}: expected compressed pixels, but {why}; export the film again.")


class _Film:
    """One codestream on its way, in memory that is shared with a helper: the cells, then the codestream."""

    def __init__(self, codestream: Codestream) -> None:
        shape, size = codestream.shape, codestream.cells_size
        samples = codestream.height * codestream.width * codestream.samples
        self.seconds = SECONDS + SECONDS_PER_MEGAPIXEL * samples / 1e6
        self.memory = _BASE_MEMORY + bytes_per_sample(codestream.kind) * samples + 2 * len(codestream.data)
        self.fd = _shared_memory(size + len(codestream.data))
        memory = mmap.mmap(self.fd, size + len(codestream.data))
        memory[size:] = codestream.data
        self.cells = np.frombuffer(memory, codestream.dtype, codestream.height * codestream.width * codestream.samples)
        self.cells.shape = shape
        facts = asdict(replace(codestream, data=b""))
        del facts["data"]
        limits = {"seconds": self.seconds, "memory": self.memory}
        self.request = json.dumps({"codestream": facts, **limits}).encode()


def _shared_memory(size: int) -> int:
    """A descriptor of memory that another process can map, without a name."""
    if sys.platform == "linux":
        fd = os.memfd_create("msloc-film")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


class _Helper:
    """The program's end of one helper: its process, and the line to it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "msloc_edge.imaging.decoder", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],  # where this package is, and nothing of the user's
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        if self._receive(_START_SECONDS) != "ready":
            self.kill()
            raise DependencyError(
                "package_missing",
                "expected the decoder of compressed films to start, but it did not; check it with: "
                f"{sys.executable} -c 'import imagecodecs, simplejpeg'.",
            )

    def ask(self, film: _Film) -> str:
        """Let the helper fill the film's cells. Its answer, or why there is none."""
        try:
            socket.send_fds(self._line, [film.request], [film.fd])
        except OSError:
            return self._why_ended(film)
        finally:
            os.close(film.fd)
        try:
            return self._receive(_PATIENCE * film.seconds) or self._why_ended(film)
        except TimeoutError:
            return f"they do not decode within {_PATIENCE * film.seconds:.0f} s"

    def _receive(self, seconds: float) -> str:
        self._line.settimeout(seconds)
        try:
            return self._line.recv(64).decode()
        except ConnectionError:
            return ""

    def _why_ended(self, film: _Film) -> str:
        over_time = self._process.wait() == -signal.SIGXCPU
        return f"they take more than {film.seconds:.0f} s" if over_time else "they crash their decoder"

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._line.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Close this process's end of the line, and leave the helper to the process that started it."""
        self._line.close()
        self._process.returncode = 0


_idle: list[_Helper] = []


def _idle_helper() -> _Helper | None:
    with suppress(IndexError):
        while True:
            helper = _idle.pop()
            if helper.runs:
                return helper
            helper.kill()
    return None


def _forget_helpers() -> None:
    while _idle:
        _idle.pop().forget()


@atexit.register
def _end_helpers() -> None:
    while _idle:
        _idle.pop().kill()


os.register_at_fork(after_in_child=_forget_helpers)


# The helper's side


def main() -> None:
    """Decode what comes over the line whose descriptor is the first argument, until it is cut."""
    line = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    from msloc_edge.imaging import codecs

    codecs.load()
    line.sendall(b"ready")
    while True:
        request, (fd,), *_ = socket.recv_fds(line, 4096, 1)
        line.sendall(_answer(json.loads(request), fd).encode())


def _end_with(line: socket.socket) -> None:
    """End this process when the program at the other end of the line has ended, whatever is being decoded."""
    poll = select.poll()
    poll.register(line, 0)  # a line that is cut is always told
    poll.poll()
    os._exit(0)


def _answer(request: dict[str, Any], fd: int) -> str:
    from msloc_edge.imaging import codecs

    codestream = Codestream(data=b"", **request["codestream"])
    memory = mmap.mmap(fd, 0)
    os.close(fd)
    _limit(request["seconds"], request["memory"])
    codestream = replace(codestream, data=memory[codestream.cells_size :])
    cells = np.frombuffer(memory, codestream.dtype, codestream.cells_size // codestream.dtype.itemsize)
    try:
        codecs.decode(codestream, cells.reshape(codestream.shape))
        return "done"
    except codecs.Truncated:
        return "truncated"
    except MemoryError:
        return "memory"
    except Exception:  # each library has its own errors; none of their words may hold more than they should
        return "corrupt"


def _limit(seconds: float, memory: int) -> None:
    """Allow so much more processor time, and so much more memory, than this process has used and holds."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds += used.ru_utime + used.ru_stime
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
