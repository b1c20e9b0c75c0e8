"""From a file, its bytes or an array to a `Frame`. What a file is, its content decides, never its name."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import DependencyError, InputError
from msloc_edge.imaging.checks import MAX_MEMORY, MAX_PIXELS, MIN_SIDE, check_size
from msloc_edge.imaging.raster import (
    decode_image,
    frame_from_image,
    full_range_frame,
    image_format,
    luma,
)
from msloc_edge.types import Frame

__all__ = ["MAX_MEMORY", "MAX_PIXELS", "MIN_SIDE", "begins_as_film", "decode_frame", "frame_from_array", "read_frame"]

_OTHER_FORMATS = {
    b"BM": "a BMP image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image or another RIFF file",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 codestream",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"{": "JSON or other text",
    b"<": "XML, HTML or other text",
}


def read_frame(path: str | Path, *, frame: int | None = None) -> Frame:
    """Read one film: PNG, JPEG, TIFF or DICOM.

    `frame` chooses one of several frames or pages, counted from 1.
    Raises InputError; docs/errors.md lists the reasons.
    """
    name = str(path)
    try:
        data = _read_file(path, name)
    except FileNotFoundError:
        raise InputError("missing", f"{name}: expected a file, but there is none; check the path.") from None
    except IsADirectoryError:
        raise InputError(
            "unreadable", f"{name}: expected a film, or for `infer` a folder that holds one, got another folder."
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a valid path"
        raise InputError(
            "unreadable", f"{name}: expected a readable file, got '{why}'; check the path and its permissions."
        ) from None
    return decode_frame(data, name, frame=frame)


def _read_file(path: str | Path, name: str) -> bytes:
    """Read a file whole, if it is one, and no larger than a film can be: a pipe would wait, a device never end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise InputError("unreadable", f"{name}: expected a file, got a device or a pipe; copy it first.")
        _check_length(facts.st_size, name)
        return file.read(MAX_MEMORY)


def _check_length(length: int, name: str) -> None:
    if length > MAX_MEMORY:
        raise InputError(
            "too_large", f"{name}: expected at most {MAX_MEMORY >> 20} MB, got {length >> 20} MB; send a film."
        )


def begins_as_film(path: str | Path) -> bool:
    """Tell by its first bytes whether a file is PNG, JPEG, TIFF or DICOM. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        head = file.read(1024)
    return _is_dicom(head) or image_format(head) is not None


def decode_frame(data: bytes, name: str, *, frame: int | None = None) -> Frame:
    """Decode one film from a file's bytes; `name` is what errors and results call it. Otherwise as `read_frame`.

    Raises InputError; docs/errors.md lists the reasons.
    """
    if not data:
        raise InputError("truncated", f"{name}: expected a film, got 0 bytes; copy or export it again.")
    _check_length(len(data), name)
    with ThreadPoolExecutor(1) as beside:  # the hash of an uncompressed film takes as long as its decoding
        digest = beside.submit(hashlib.sha256, data)
        return replace(_decode(data, name, frame), sha256=digest.result().hexdigest())


def _decode(data: bytes, name: str, frame: int | None) -> Frame:
    if _is_dicom(data):
        return _decode_dicom(data, name, frame)
    if image_format(data):
        return decode_image(data, name, frame)
    got = next((what for magic, what in _OTHER_FORMATS.items() if data.startswith(magic)), "something else")
    raise InputError("not_an_image", f"{name}: expected PNG, JPEG, TIFF or DICOM, got {got}; convert the film first.")


def _decode_dicom(data: bytes, name: str, frame: int | None) -> Frame:
    try:
        from msloc_edge.imaging.dicom import decode_dicom
    except ImportError as error:
        raise DependencyError(
            "package_missing",
            f"{name}: expected pydicom, to read DICOM, got {error}; install it with: pip install 'msloc-edge[dicom]'.",
        ) from error
    return decode_dicom(data, name, frame)


def frame_from_array(pixels: Any, name: str = "array") -> Frame:
    """Take an array or a PIL image as a film; the full range of its depth is displayed, 0 = black, and white is dense.

    pixels  [H, W] or [H, W, 3] (RGB): uint8 or uint16, kept as they are and not copied where grey; or floats in
            [0, 1], stored as 16 bits, since a Frame holds whole numbers (at most 1/131070 off); or a PIL image, whose
            mode says what its pixels are, as if its file were read

    Raises InputError `unsupported_pixels`, `too_small`, `too_large` or `constant`.
    """
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(pixels, pil.Image) and pixels.mode != "F":
        return frame_from_image(pixels, name)
    pixels = np.asarray(pixels)
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise _not_pixels(name, f"shape {pixels.shape}")
    check_size(pixels.shape[0], pixels.shape[1], name)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = _sixteen_bits(pixels, name)
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _not_pixels(name, f"dtype {pixels.dtype}")
    if pixels.ndim == 3:
        return full_range_frame(luma(pixels), name, ("colour_converted",))
    return full_range_frame(pixels, name)


def _sixteen_bits(pixels: NDArray[Any], name: str) -> NDArray[np.uint16]:
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(low + high):
        raise InputError(
            "unsupported_pixels", f"{name}: expected finite numbers, got NaN or infinity; fix the array first."
        )
    if low < 0 or high > 1:
        raise _not_pixels(name, f"floats from {low:g} to {high:g}")
    return np.rint(np.multiply(pixels, 65535, dtype=np.float64)).astype(np.uint16)


def _not_pixels(name: str, got: str) -> InputError:
    return InputError(
        "unsupported_pixels",
        f"{name}: expected [H, W] or [H, W, 3] of uint8, uint16 or floats in [0, 1], got {got}; convert it first.",
    )


def _is_dicom(data: bytes) -> bool:
    """PS3.10 section 7.1: "DICM" at byte 128. Older files start at once with an element of group 2 or 8."""
    if data[128:132] == b"DICM":
        return True
    for order in ("<", ">"):
        if len(data) >= 8 and np.frombuffer(data[:2], order + "u2")[0] in (0x0002, 0x0008):
            element = np.frombuffer(data[2:4], order + "u2")[0]
            explicit = data[4:6].isalpha() and data[4:6].isupper()
            length = int(np.frombuffer(data[4:8], order + "u4")[0])
            return bool(element <= 0x0070 and (explicit or length <= 128))
    return False
