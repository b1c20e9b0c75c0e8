"""Compressed films in a helper process: it can be stopped, it is kept, and it never outlives its program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from msloc_edge.errors import InputError
from msloc_edge.imaging import codecs, decoder
from msloc_edge.imaging.codestream import RLE, Codestream, read_codestream

SOON = 60.0  # seconds that a busy machine may take for what comes at once
SIXTEEN = np.random.default_rng(0).integers(0, 65536, (64, 80), np.uint16)
TWELVE = np.sort(SIXTEEN // 16, axis=1)  # smooth enough for a lossy codec
EIGHT = (TWELVE // 16).astype(np.uint8)


def codestream(data: bytes) -> Codestream:
    found = read_codestream(data, "film")
    assert found is not None
    return found


JPEG_2000 = codestream(imagecodecs.jpeg2k_encode(SIXTEEN, reversible=True, codecformat="j2k"))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No helper from another test, none for the next."""
    decoder.end_helpers()
    yield
    decoder.end_helpers()


def refusal(film: Codestream) -> str:
    with pytest.raises(InputError) as error:
        decoder.decode(film, "film")
    return f"{error.value.reason} {error.value.message}"


def gone(pid: int) -> bool:
    """Whether a process ends soon; one that nobody has waited for counts as there."""
    until = time.monotonic() + SOON
    while time.monotonic() < until:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("data", "pixels", "difference"),
    [
        (imagecodecs.jpeg8_encode(EIGHT, level=98), EIGHT, 4),
        (imagecodecs.jpeg8_encode(TWELVE, level=98, bitspersample=12), TWELVE, 60),
        (imagecodecs.jpeg8_encode(EIGHT, lossless=True, predictor=1), EIGHT, 0),
        (imagecodecs.jpeg8_encode(TWELVE, lossless=True, predictor=4, bitspersample=12), TWELVE, 0),
        (imagecodecs.jpeg8_encode(SIXTEEN, lossless=True, predictor=1, bitspersample=16), SIXTEEN, 0),
        (imagecodecs.jpegls_encode(EIGHT), EIGHT, 0),
        (imagecodecs.jpegls_encode(SIXTEEN), SIXTEEN, 0),
        (imagecodecs.jpeg2k_encode(EIGHT, reversible=True, codecformat="j2k"), EIGHT, 0),
        (imagecodecs.jpeg2k_encode(SIXTEEN, reversible=True, codecformat="jp2"), SIXTEEN, 0),
        (imagecodecs.htj2k_encode(SIXTEEN, reversible=True), SIXTEEN, 0),
    ],
    ids=["jpeg", "jpeg-12", "lossless-8", "lossless-12", "lossless-16", "ls-8", "ls-16", "2000", "jp2", "htj2k"],
)
def test_every_codec(data: bytes, pixels: np.ndarray, difference: int) -> None:
    found = decoder.decode(codestream(data), "film")
    assert found.dtype == pixels.dtype
    assert np.abs(found.astype(int) - pixels).max() <= difference


@pytest.mark.parametrize("options", [{"level": 95}, {"level": 95, "bitspersample": 12}, {"lossless": True}])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8, 0.97])
def test_half_a_jpeg_with_its_end_put_back(options: dict[str, object], keep: float) -> None:
    pixels = TWELVE if "bitspersample" in options else EIGHT
    data = imagecodecs.jpeg8_encode(pixels, **options)
    first = data.rindex(b"\xff\xda") + 14
    cut = data[: first + int(keep * (len(data) - first))] + b"\xff\xd9"
    assert refusal(codestream(cut)).startswith("truncated film: expected a whole film")


def test_a_jpeg_that_lacks_what_lies_between_two_restart_markers() -> None:
    whole = imagecodecs.jpeg8_encode(TWELVE, level=95, bitspersample=12)
    scan = whole.index(b"\xff\xda")
    restarts = codestream(whole[:scan] + b"\xff\xdd\0\x04\0\x14" + whole[scan:])
    with pytest.raises(codecs.Truncated):
        codecs.decode(restarts, np.empty(restarts.shape, restarts.dtype))


@pytest.mark.parametrize("data", [imagecodecs.jpegls_encode(SIXTEEN), JPEG_2000.data], ids=["jpeg-ls", "jpeg-2000"])
def test_a_hole(data: bytes) -> None:
    middle = len(data) // 2
    assert refusal(codestream(data[:middle] + data[middle + 300 :])).startswith("corrupt")


def test_a_hole_of_zeros_in_jpeg_2000() -> None:
    data, middle = JPEG_2000.data, len(JPEG_2000.data) // 3
    with pytest.raises(InputError, match="4,096 zeros") as error:
        read_codestream(data[:middle] + bytes(5000) + data[middle + 5000 :], "film")
    assert error.value.reason == "corrupt"


def rle(*segments: bytes, shape: tuple[int, int] = (32, 40), bits: int = 16) -> Codestream:
    starts = np.cumsum([64, *(len(segment) for segment in segments[:-1])])
    header = np.zeros(16, "<u4")
    header[: len(starts) + 1] = [len(segments), *starts]
    return Codestream(RLE, header.tobytes() + b"".join(segments), *shape, 1, bits)


def test_rle_by_hand() -> None:
    runs = b"".join(bytes((257 - 40, row)) for row in range(32))  # PackBits: a byte repeated 40 times
    literal = b"".join(bytes((39,)) + bytes(range(40)) for _ in range(32))
    found = decoder.decode(rle(runs, literal), "film")
    assert (found == np.arange(32)[:, None] * 256 + np.arange(40)).all()
    assert refusal(rle(runs, literal[: -2 * 41])).startswith("truncated")
    assert refusal(rle(runs, literal[:-60])).startswith("corrupt"), "a run that is cut"
    assert refusal(rle(runs, literal + b"\x01ab")).startswith("corrupt")
    assert refusal(rle(runs)).startswith("corrupt")
    assert refusal(replace(rle(runs, literal), data=b"\x02\0")).startswith("corrupt")


def test_a_helper_is_kept_and_shared() -> None:
    decoder.decode(JPEG_2000, "film")
    (helper,) = decoder._idle
    for _ in range(3):
        assert (decoder.decode(JPEG_2000, "film") == SIXTEEN).all()
    assert decoder._idle == [helper]
    assert refusal(replace(JPEG_2000, data=JPEG_2000.data[:200] + b"\xff\xd9")).startswith("corrupt")
    assert decoder._idle == [helper], "a film that does not decode ends no helper"


def test_films_of_growing_and_shrinking_size() -> None:
    for side in (40, 400, 33, 300):
        pixels = np.random.default_rng(side).integers(0, 65536, (side, side), np.uint16)
        film = codestream(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=16))
        first = decoder.decode(film, "film")
        decoder.decode(JPEG_2000, "film")
        assert (first == pixels).all(), "cells stay when the memory is used again"


def test_threads_have_helpers_of_their_own() -> None:
    with ThreadPoolExecutor(4) as pool:
        films = list(pool.map(lambda _: decoder.decode(JPEG_2000, "film"), range(40)))
    assert all((film == SIXTEEN).all() for film in films)
    assert 1 <= len(decoder._idle) <= 4


def test_a_helper_that_sleeps_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.decode(JPEG_2000, "film")
    pid = decoder._idle[0].pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder, "SECONDS", 0.05)
    assert "but they do not decode within 1 s" in refusal(JPEG_2000)
    assert gone(pid)
    monkeypatch.undo()
    assert (decoder.decode(JPEG_2000, "film") == SIXTEEN).all()


@pytest.mark.parametrize(
    ("ended_by", "words"), [(signal.SIGXCPU, "they take more than 5 s"), (signal.SIGSEGV, "they crash their decoder")]
)
def test_a_helper_that_ends_costs_one_film(ended_by: signal.Signals, words: str) -> None:
    decoder.decode(JPEG_2000, "film")
    pid = decoder._idle[0].pid
    os.kill(pid, signal.SIGSTOP)
    ending = threading.Timer(0.3, lambda: (os.kill(pid, ended_by), os.kill(pid, signal.SIGCONT)))
    ending.start()
    assert words in refusal(JPEG_2000)
    ending.join()
    assert (decoder.decode(JPEG_2000, "film") == SIXTEEN).all()


def test_an_idle_helper_that_was_ended_costs_nothing() -> None:
    decoder.decode(JPEG_2000, "film")
    os.kill(decoder._idle[0].pid, signal.SIGKILL)
    decoder._idle[0]._process.wait()
    assert (decoder.decode(JPEG_2000, "film") == SIXTEEN).all()


@pytest.mark.parametrize(
    ("limits", "work", "ending"),
    [
        ("0, 1 << 30", "while True: pass", -signal.SIGXCPU),
        ("60, 64 << 20", "bytearray(200 << 20)", 1),  # MemoryError
        ("60, 400 << 20", "bytearray(200 << 20)", 0),
    ],
)
def test_the_limits_hold(limits: str, work: str, ending: int) -> None:
    code = f"from msloc_edge.imaging.decoder import _limit\n_limit({limits})\n{work}"
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=SOON).returncode == ending


def test_memory_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.add.outer(np.arange(2500), np.arange(2500)).astype(np.uint16)
    film = codestream(imagecodecs.jpeg2k_encode(large, reversible=True, codecformat="j2k"))
    with monkeypatch.context() as small:
        small.setattr(decoder, "_BASE_MEMORY", 0)
        small.setattr(decoder, "bytes_per_sample", lambda kind: 0)
        assert refusal(film).startswith("corrupt")
    assert (decoder.decode(film, "film") == large).all()


SCRIPT = """
import sys, os, signal
from msloc_edge.imaging import decoder
from msloc_edge.imaging.codestream import Codestream, RLE
runs = bytes((257 - 40, 7)) * 32
film = Codestream(RLE, bytes((1, 0, 0, 0, 64)) + bytes(59) + runs, 32, 40, 1, 8)
print(decoder.decode(film, "film").sum(), decoder._idle[0].pid, flush=True)
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
    ids=["end", "exit", "_exit", "killed"],
)
def test_a_script_without_a_guard_leaves_nothing_behind(ending: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the folder was imported')")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "script.py").write_text(SCRIPT + ending)
    done = subprocess.run([sys.executable, "sub/script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=SOON)
    assert (done.returncode, done.stderr) == (status, "")
    total, pid = done.stdout.split()
    assert total == str(32 * 40 * 7)
    assert gone(int(pid))


def test_a_fork_has_helpers_of_its_own() -> None:
    decoder.decode(JPEG_2000, "film")
    pid = decoder._idle[0].pid
    child = os.fork()
    if child == 0:
        try:
            right = not decoder._idle and bool((decoder.decode(JPEG_2000, "film") == SIXTEEN).all())
            right = right and decoder._idle[0].pid != pid
            decoder.end_helpers()
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (decoder.decode(JPEG_2000, "film") == SIXTEEN).all()
    assert decoder._idle[0].pid == pid
