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
from dataclasses import asdict, dataclass, replace
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
_KEPT_MEMORY = 64 << 20
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps freed memory for the next film: new pages cost as much as decoding
    "MALLOC_MMAP_THRESHOLD_": str(_KEPT_MEMORY),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_MEMORY),
}
_REFUSALS = {"truncated": "", "corrupt": "they do not decode", "memory": "decoding takes too much memory"}


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
    helper = _idle_helper() or _Helper()
    try:
        answer = helper.ask(codestream)
    except BaseException:
        helper.kill()
        raise
    if isinstance(answer, np.ndarray) or answer in _REFUSALS:
        _idle.append(helper)
    else:
        helper.kill()
    if isinstance(answer, np.ndarray):
        return answer
    if answer == "truncated":
        raise InputError(answer, f"{name}: expected a whole film, but its pixels end early; copy or export it again.")
    why = _REFUSALS.get(answer, answer)
    raise InputError("corrupt", f"{name}: expected compressed pixels, but {why}; export the film again.")


@dataclass(frozen=True)
class _Limits:
    """What decoding one film may cost: processor time in seconds, memory in bytes."""

    seconds: float
    memory: int

    @classmethod
    def of(cls, codestream: Codestream) -> _Limits:
        samples = codestream.height * codestream.width * codestream.samples
        memory = bytes_per_sample(codestream.kind) * samples + 2 * len(codestream.data)
        return cls(SECONDS + SECONDS_PER_MEGAPIXEL * samples / 1e6, _BASE_MEMORY + memory)


class _Helper:
    """The program's end of one helper: its process, the line to it, and the memory that both map."""

    def __init__(self) -> None:
        self._file = unnamed_file()
        self._memory: mmap.mmap | None = None
        self._line, theirs = socket.socketpair()
        with theirs:
            shared = [theirs.fileno(), self._file]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "msloc_edge.imaging.decoder", *map(str, shared)],
                pass_fds=shared,
                cwd=Path(__file__).parents[2],  # where this package is, and nothing of the user's
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
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

    def ask(self, codestream: Codestream) -> NDArray[Any] | str:
        """Let the helper decode. The cells, or its answer, or why there is none."""
        size, limits = codestream.cells_size, _Limits.of(codestream)
        memory = self._room(size + len(codestream.data))
        memory[size : size + len(codestream.data)] = codestream.data
        facts = asdict(replace(codestream, data=b"")) | {"data": len(codestream.data)}
        try:
            self._line.sendall(json.dumps([facts, limits.seconds, limits.memory]).encode())
            answer = self._receive(_PATIENCE * limits.seconds)
        except ConnectionError:
            answer = ""
        except TimeoutError:
            return f"they do not decode within {_PATIENCE * limits.seconds:.0f} s"
        if not answer:
            over_time = self._process.wait() == -signal.SIGXCPU
            return f"they take more than {limits.seconds:.0f} s" if over_time else "they crash their decoder"
        if answer == "done":
            cells = np.frombuffer(memory, codestream.dtype, size // codestream.dtype.itemsize)
            return cells.reshape(codestream.shape).copy()
        return answer

    def _room(self, size: int) -> mmap.mmap:
        """Shared memory of at least this size; it is kept, since new pages cost a tenth of decoding, unless large."""
        if self._memory is None or not size <= len(self._memory) <= max(size, _KEPT_MEMORY):
            self._memory = None
            os.ftruncate(self._file, size)
            self._memory = mmap.mmap(self._file, size)
        return self._memory

    def _receive(self, seconds: float) -> str:
        self._line.settimeout(seconds)
        return self._line.recv(64).decode()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Close this process's end of the line, and leave the helper to the process that started it."""
        self._close()
        self._process.returncode = 0

    def _close(self) -> None:
        self._memory = None
        self._line.close()
        os.close(self._file)


def unnamed_file() -> int:
    """A descriptor of a file that two processes can map, without a name."""
    if hasattr(os, "memfd_create"):  # Linux
        return os.memfd_create("msloc-films")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_idle: list[_Helper] = []


def peaks_mb() -> list[int]:
    """Highest resident memory of each idle helper so far, in MB; Linux only."""
    status = [Path(f"/proc/{helper.pid}/status").read_text() for helper in _idle]
    return [int(line.split()[1]) >> 10 for text in status for line in text.splitlines() if line.startswith("VmHWM")]


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
def end_helpers() -> None:
    """End all idle helpers; the next compressed film starts a new one."""
    while _idle:
        _idle.pop().kill()


os.register_at_fork(after_in_child=_forget_helpers)


# The helper's side


def main() -> None:
    """Decode what comes over a line into a file that is mapped, until the line is cut; descriptors are the arguments.

    A request holds the header of a codestream, with the size of its data, and the limits.
    """
    line, file = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    from msloc_edge.imaging import codecs

    codecs.load()
    line.sendall(b"ready")
    memory = None
    while request := line.recv(4096):
        facts, *limits = json.loads(request)
        if memory is None or len(memory) != os.fstat(file).st_size:
            memory = mmap.mmap(file, 0)
        _limit(*limits)
        line.sendall(_answer(Codestream(**facts | {"data": b""}), facts["data"], memory).encode())


def _end_with(line: socket.socket) -> None:
    """End this process when the program at the other end of the line has ended, whatever is being decoded."""
    poll = select.poll()
    poll.register(line, 0)  # a line that is cut is always told
    poll.poll()
    os._exit(0)


def _answer(codestream: Codestream, length: int, memory: mmap.mmap) -> str:
    from msloc_edge.imaging import codecs

    size = codestream.cells_size
    cells = np.frombuffer(memory, codestream.dtype, size // codestream.dtype.itemsize).reshape(codestream.shape)
    try:
        codecs.decode(replace(codestream, data=memory[size : size + length]), cells)
        return "done"
    except codecs.Truncated:
        return "truncated"
    except MemoryError:
        return "memory"
    except Exception:  # each library has its own errors, and none of their words may go into ours
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
