"""Headers of JPEG, JPEG-LS and JPEG 2000 codestreams: what a decoder would make of one, told before it decodes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msloc_edge.errors import InputError
from msloc_edge.imaging.checks import MAX_PIXELS

MAX_SCANS = 100
"""Largest number of scans in a JPEG: each costs a pass over the film, and progressive films have about ten."""

_MAX_SCANNED_PIXELS = 12 * MAX_PIXELS

JPEG, JPEG_LS, JPEG_2000, RLE = "JPEG", "JPEG-LS", "JPEG 2000", "RLE"
END = b"\xff\xd9"
"""The marker that ends a codestream: EOI of JPEG and JPEG-LS, EOC of JPEG 2000."""

# ITU-T T.81 table B.1; the markers without a length are RST, SOI, EOI and TEM
_SOS, _DRI, _DHP, _APP0, _APP14, _SOF_LS = 0xDA, 0xDD, 0xDE, 0xE0, 0xEE, 0xF7
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOF_LOSSLESS = 0xC3
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, _DHP})
_RGB_IDS = (b"RGB", b"rgb")
_HOLE = bytes(4096)


@dataclass(frozen=True, slots=True)
class Codestream:
    """A compressed film, and what its header says.

    kind             JPEG, JPEG_LS, JPEG_2000, or RLE, which has no header of its own
    data             the codestream alone, without boxes around it
    height, width    pixels
    samples          colour components
    bits             precision of a sample
    signed           samples are two's complement (JPEG 2000 alone can say so)
    lossless         JPEG's lossless process, SOF3
    frame_header     where JPEG's SOF marker is
    restart          pixels or blocks from one restart marker of JPEG to the next, 0 = none
    ycc              colour is luma and chroma (True), RGB (False), or the codestream does not say (None)
    """

    kind: str
    data: bytes
    height: int = 0
    width: int = 0
    samples: int = 0
    bits: int = 0
    signed: bool = False
    lossless: bool = False
    frame_header: int = 0
    restart: int = 0
    ycc: bool | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded cells: [H, W] or [H, W, samples]."""
        return (self.height, self.width) if self.samples == 1 else (self.height, self.width, self.samples)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded cells, unsigned."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def cells_size(self) -> int:
        """Size of the decoded cells in bytes."""
        return self.height * self.width * self.samples * self.dtype.itemsize


def read_codestream(data: bytes, name: str) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 codestream; None where there is none that states a size.

    Nothing is decoded. Raises InputError: `unsupported_pixels` for a kind that no film has (hierarchical JPEG, JPEG
    2000 with components of several sizes or depths), `too_large` for a JPEG of more than MAX_SCANS scans, `corrupt`
    for a JPEG 2000 with a hole.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, name)
    codestream = _unboxed(data)
    return _jpeg_2000(codestream, name) if codestream.startswith(b"\xff\x4f\xff\x51") else None


def _jpeg(data: bytes, name: str) -> Codestream | None:
    found, facts = Codestream(JPEG, data), dict[str, Any]()
    for marker, start, body in _segments(data):
        if marker in _HIERARCHICAL:
            raise _unsupported(name, "a hierarchical JPEG")
        if marker == _APP0 and body.startswith(b"JFIF"):
            facts.setdefault("ycc", True)
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            facts["ycc"] = body[11] == 1
        elif marker == _DRI and len(body) >= 2:
            facts["restart"] = int.from_bytes(body[:2], "big")
        elif (marker in _SOF or marker == _SOF_LS) and not found.samples and len(body) >= 6:
            found = _frame_header(found, marker, start, body)
    if not found.samples:
        return None
    scans = data.count(bytes((0xFF, _SOS)))  # in compressed data, 0 follows each FF
    if scans > MAX_SCANS or scans * found.height * found.width > _MAX_SCANNED_PIXELS:
        raise InputError(
            "too_large", f"{name}: expected a JPEG of about ten scans of a film, got {scans}; save the film again."
        )
    return replace(found, **({"ycc": found.ycc} if found.ycc is False else facts))


def _frame_header(found: Codestream, marker: int, start: int, body: bytes) -> Codestream:
    """ITU-T T.81 B.2.2: precision, size and components."""
    bits, height, width, samples = struct.unpack_from(">BHHB", body)
    return replace(
        found,
        kind=JPEG_LS if marker == _SOF_LS else JPEG,
        height=height,
        width=width,
        samples=samples,
        bits=bits,
        lossless=marker == _SOF_LOSSLESS,
        frame_header=start,
        ycc=False if body[6:15:3] in _RGB_IDS else None,
    )


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where it is, its body) of each marker segment before the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SOS:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, data[at + 4 : end]
        at = end


def _unboxed(data: bytes) -> bytes:
    """ISO/IEC 15444-1 annex I: the codestream in the first `jp2c` box of a JP2 file, or the data as they are."""
    at = 0
    while data[4:8] == b"jP  " and at + 8 <= len(data):
        length, body = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 1:  # the length follows, in 8 bytes
            length, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        end = at + length if length else len(data)  # the last box may leave its length open
        if data[at + 4 : at + 8] == b"jp2c":
            return data[body:end]
        if end < body:
            return b""
        at = end
    return data


def _jpeg_2000(data: bytes, name: str) -> Codestream | None:
    """ISO/IEC 15444-1 A.5.1: the SIZ marker segment."""
    if len(data) < 45:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    samples = int.from_bytes(data[40:42], "big")
    components = data[42 : 42 + 3 * samples]
    if not samples or components != components[:1] + b"\x01\x01" + components[: 3 * samples - 3]:
        raise _unsupported(name, "JPEG 2000 with components of several sizes or depths")
    if _HOLE in data:  # an arithmetic coder does not emit such; a decoder would take it for pixels
        raise InputError(
            "corrupt", f"{name}: expected compressed pixels, got {len(_HOLE):,} zeros among them; copy the film again."
        )
    bits, signed = (components[0] & 0x7F) + 1, bool(components[0] & 0x80)
    return Codestream(JPEG_2000, data, bottom - top, right - left, samples, bits, signed)


def _unsupported(name: str, got: str) -> InputError:
    return InputError("unsupported_pixels", f"{name}: expected a plain film, got {got}; convert it first.")
