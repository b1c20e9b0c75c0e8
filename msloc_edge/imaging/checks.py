"""Checks that every film passes before it is decoded, whatever file it comes in."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from msloc_edge.errors import InputError

MAX_PIXELS = 120_000_000
"""Largest film that is decoded, in pixels (the largest detectors have 20 million): above it, a decompression bomb."""

MAX_MEMORY = 1 << 30
"""Largest amount of memory that decoding a film may take, in bytes, and the largest file that is read."""

MAX_EXPANSION = 500
"""Largest amount of memory for each byte of a compressed film, beyond the first 128 MB: a film has noise, and shrinks
to a tenth, or a fiftieth; what shrinks to a hundredth of that is a bomb."""

MIN_SIDE = 32
"""Smallest side of a film, in pixels."""

_FREE_MEMORY = 128 << 20

_capture = threading.Lock()


@contextmanager
def captured_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect Python warnings instead of printing them; one thread at a time, since Python's filters are global."""
    with _capture, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def choose_frame(count: int, frame: int | None, name: str) -> int:
    """Choose the frame to read: its index, from 0; `frame` counts from 1, as DICOM's frame numbers do.

    Raises InputError `multi_frame` when there are several and none is chosen, `option_invalid` for one that is not.
    """
    if frame is None and count > 1:
        raise InputError(
            "multi_frame",
            f"{name}: expected one film, got {count} frames; choose one with --frame N, N = 1 to {count}.",
        )
    if frame is not None and not 1 <= frame <= count:
        raise InputError(
            "option_invalid", f"{name}: frame {frame} was asked for, but the frames are 1 to {count}; choose one."
        )
    return (frame or 1) - 1


def check_size(height: int, width: int, name: str, bytes_per_pixel: int = 1, stored: int | None = None) -> None:
    """Refuse a film that is too small or too large, before anything is decoded.

    bytes_per_pixel   memory that decoding takes at its highest
    stored            size of the compressed film in bytes: a small file does not ask for much memory, unless to harm

    Raises InputError `too_small` or `too_large`.
    """
    size = f"{width} x {height} pixels"
    if min(height, width) < 1:
        raise InputError("too_small", f"{name}: expected a film, got an image of {size}; export the film again.")
    if min(height, width) < MIN_SIDE:
        raise InputError(
            "too_small", f"{name}: expected at least {MIN_SIDE} pixels a side, got {size}; send the original film."
        )
    if height * width > MAX_PIXELS:
        raise InputError(
            "too_large", f"{name}: expected at most {MAX_PIXELS:,} pixels, got {size}; scale the film down first."
        )
    limit = MAX_MEMORY if stored is None else min(MAX_MEMORY, _FREE_MEMORY + MAX_EXPANSION * stored)
    if (memory := height * width * bytes_per_pixel) > limit:
        raise InputError(
            "too_large",
            f"{name}: expected a film of this file size to take at most {limit >> 20} MB to decode, got {size} that "
            f"take {memory >> 20} MB; scale it down first.",
        )
