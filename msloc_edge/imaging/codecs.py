"""Compressed pixels to cells, by the libraries of imagecodecs and simplejpeg; runs in the decoder's process.

A codec raises Truncated where pixels are missing, and whatever its library raises where data are damaged. None fills
up what is missing: half a film is no film.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.imaging.codestream import END, JPEG, JPEG_2000, JPEG_LS, Codestream

_UNREAD = b"\xa5\x5a\xa5\x5a"


class Truncated(ValueError):  # noqa: N818 - named like the reason code
    """Compressed pixels end before the film does."""


def load() -> None:
    """Import the libraries."""
    import imagecodecs
    import simplejpeg

    for codec in ("jpeg8", "jpegls", "jpeg2k", "packbits"):  # each is imported when it is first named
        getattr(imagecodecs, f"{codec}_decode")
    assert simplejpeg.decode_jpeg


def decode(codestream: Codestream, cells: NDArray[Any]) -> None:
    """Decode a codestream into `cells`, an array of its shape and dtype; signed samples come bit by bit."""
    import imagecodecs

    if codestream.kind == JPEG:
        _jpeg(codestream, cells)
    elif codestream.kind == JPEG_LS:
        imagecodecs.jpegls_decode(codestream.data, out=cells)
    elif codestream.kind == JPEG_2000:
        signed = cells.view(cells.dtype.str.replace("u", "i")) if codestream.signed else cells
        imagecodecs.jpeg2k_decode(codestream.data, planar=False, numthreads=1, out=signed)
    else:
        _rle(codestream.data, cells)


def decode_jpeg_8(data: bytes, colorspace: str, cells: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decode 8-bit JPEG -> [H, W] for "GRAY", [H, W, 3] for "RGB"; in `cells`, where given.

    Raises Truncated, or ValueError where data are damaged.
    """
    import simplejpeg

    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace, buffer=cells)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise Truncated from None
        raise
    return pixels[..., 0] if colorspace == "GRAY" else pixels


def _jpeg(codestream: Codestream, cells: NDArray[Any]) -> None:
    """The components as they are stored, without a change of colour space."""
    if codestream.bits == 8 and codestream.samples == 1:
        decode_jpeg_8(codestream.data, "GRAY", cells)
        return
    _stored_components(codestream.data, cells)
    if codestream.bits == 8 and not codestream.lossless:
        decode_jpeg_8(codestream.data, "GRAY")  # which tells when pixels are missing
    else:
        _prove_whole(codestream, cells)


def _stored_components(data: bytes, cells: NDArray[Any]) -> None:
    import imagecodecs

    same = "YCBCR" if cells.ndim == 3 else None  # from a colour space to itself: no change
    imagecodecs.jpeg8_decode(data, colorspace=same, outcolorspace=same, out=cells)


def _prove_whole(codestream: Codestream, cells: NDArray[Any]) -> None:
    """Refuse a JPEG that its decoder has filled up: a whole film does not read what is put before its end."""
    data = codestream.data
    if codestream.restart and codestream.samples == 1:  # a decoder leaves out what lies between two restart markers
        side = 1 if codestream.lossless else 8
        units = -(-codestream.height // side) * -(-codestream.width // side)
        found = sum(data.count(bytes((0xFF, 0xD0 + n)), codestream.frame_header) for n in range(8))
        if found < -(-units // codestream.restart) - 1:
            raise Truncated
    end = data.rindex(END)
    again = np.empty_like(cells)
    _stored_components(data[:end] + _UNREAD + data[end:], again)
    if not np.array_equal(again, cells):
        raise Truncated


def _rle(data: bytes, cells: NDArray[Any]) -> None:
    """PS3.5 annex G: a PackBits segment for each byte of each sample, the highest byte first."""
    import imagecodecs

    count, *offsets = np.frombuffer(data, "<u4", 16).tolist()
    planes = cells.view(np.uint8).reshape(*cells.shape[:2], -1, cells.itemsize)  # row, column, sample, byte
    if count != planes.shape[2] * cells.itemsize:
        raise ValueError("another number of segments than the film has bytes")
    size = planes[..., 0, 0].size
    for n, (start, end) in enumerate(pairwise([*offsets[:count], len(data)])):
        plane = np.frombuffer(imagecodecs.packbits_decode(data[start:end]), np.uint8)
        if plane.size < size:
            raise Truncated
        if plane.size > size:
            raise ValueError("a segment of more pixels than the film has")
        sample, byte = divmod(n, cells.itemsize)
        planes[..., sample, cells.itemsize - 1 - byte] = plane[:size].reshape(cells.shape[:2])
