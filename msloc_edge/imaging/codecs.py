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
    """Decode a codestream into `cells`, an array of its shape and dtype."""
    import imagecodecs

    if codestream.kind == JPEG:
        _jpeg(codestream, cells)
    elif codestream.kind == JPEG_LS:
        _copy(imagecodecs.jpegls_decode(codestream.data), cells)
    elif codestream.kind == JPEG_2000:
        _copy(imagecodecs.jpeg2k_decode(codestream.data, planar=False, numthreads=1), cells)
    else:
        _rle(codestream.data, cells)


def _copy(decoded: NDArray[Any], cells: NDArray[Any]) -> None:
    """Signed samples are copied bit by bit."""
    if decoded.shape != cells.shape or decoded.itemsize != cells.itemsize:
        raise ValueError("another size than the header says")
    cells[...] = decoded.view(cells.dtype)


def decode_jpeg_8(data: bytes, colorspace: str) -> NDArray[np.uint8]:
    """8-bit JPEG -> [H, W] for "GRAY", [H, W, 3] for "RGB". Raises Truncated, or ValueError where data are damaged."""
    import simplejpeg

    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise Truncated from None
        raise
    return pixels[..., 0] if colorspace == "GRAY" else pixels


def _jpeg(codestream: Codestream, cells: NDArray[Any]) -> None:
    """The components as they are stored, without a change of colour space."""
    told = codestream.bits == 8 and (codestream.samples == 1 or not codestream.lossless)
    luma = decode_jpeg_8(codestream.data, "GRAY") if told else None  # simplejpeg tells when pixels are missing
    if luma is not None and codestream.samples == 1:
        _copy(luma, cells)
        return
    _copy(_stored_components(codestream.data, codestream.samples), cells)
    if luma is None:
        _prove_whole(codestream, cells)


def _stored_components(data: bytes, samples: int) -> NDArray[Any]:
    import imagecodecs

    same = "YCBCR" if samples == 3 else None  # from a colour space to itself: no change
    return imagecodecs.jpeg8_decode(data, colorspace=same, outcolorspace=same)


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
    if not np.array_equal(_stored_components(data[:end] + _UNREAD + data[end:], codestream.samples), cells):
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
