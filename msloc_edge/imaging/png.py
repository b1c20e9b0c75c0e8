"""PNG files, chunk by chunk: what is cut short must never pass for a film, which a decoder would fill up with black."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from msloc_edge.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE = 3  # colour type
MAX_CHUNKS = 100_000

# PNG section 8.2: the first column and row, and the steps, of each pass of an interlaced film
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SAMPLES = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}
_BLOCK = 1 << 20


def is_16_bit_colour(data: bytes) -> bool:
    """Tell whether the file has 16 bits and more than grey, which Pillow cannot hold."""
    return data[24] == 16 and data[25] != 0


def check_png(data: bytes, name: str) -> None:
    """Refuse a PNG that ends early. Raises InputError `truncated`, `too_large`, `unsupported_pixels`."""
    kinds = []
    for kind, _ in _chunks(data):
        kinds.append(kind)
        if len(kinds) > MAX_CHUNKS:
            raise InputError(
                "too_large", f"{name}: expected at most {MAX_CHUNKS:,} chunks in a PNG, got more; save it again."
            )
    if b"IEND" not in kinds:
        raise _truncated(name)
    if b"acTL" in kinds and is_16_bit_colour(data) and data[25] != PALETTE:
        raise InputError(
            "unsupported_pixels",
            f"{name}: expected a film, got an animated PNG of 16-bit colour; convert it first.",
        )


def plain_png(data: bytes, name: str) -> bytes:
    """Keep the chunks that carry pixels, their data proven whole: libpng then has nothing to say on stderr.

    Raises InputError `truncated`, ValueError where a checksum is wrong.
    """
    prove_rows(data, name)
    wanted = [(kind, chunk) for kind, chunk in _chunks(data) if kind in (b"IHDR", b"IDAT", b"IEND")]
    if any(zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big") for _, chunk in wanted):
        raise ValueError("a chunk's checksum is wrong")
    return SIGNATURE + b"".join(chunk for _, chunk in wanted)


def prove_rows(data: bytes, name: str) -> None:
    """Refuse a PNG whose compressed data hold fewer rows than its header says. Raises InputError `truncated`."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    bits = depth * _SAMPLES[colour]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    missing = sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0)
    inflate = zlib.decompressobj()
    for kind, chunk in _chunks(data):
        rest = chunk[8:-4] if kind == b"IDAT" else b""
        while rest and missing > 0:
            missing -= len(inflate.decompress(rest, _BLOCK))
            rest = inflate.unconsumed_tail
    while missing > 0 and (more := inflate.decompress(b"", _BLOCK)):  # what the last call has held back
        missing -= len(more)
    if missing > 0:
        raise _truncated(name)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, the whole chunk) of each chunk; ends early where the file does."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], data[at:end]
        at = end


def _truncated(name: str) -> InputError:
    return InputError("truncated", f"{name}: expected a whole PNG file, but it ends early; copy or export it again.")
