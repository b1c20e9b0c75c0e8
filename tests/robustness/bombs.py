"""Write small files that ask for much into a folder: python bombs.py FOLDER."""

from __future__ import annotations

import importlib.util
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs

ROOT = Path(__file__).parents[2]
JPEG, JPEG_2000, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
SOF0, SOF2 = b"\xff\xc0", b"\xff\xc2"
SIDE = 10_900  # almost 120 megapixels


def robustness() -> Any:
    spec = importlib.util.spec_from_file_location("robustness", ROOT / "benchmarks" / "robustness.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["robustness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILMS = robustness()
WHOLE: dict[str, bytes] = FILMS.films()


def deflated_zeros(megabytes: int, wbits: int = 15) -> bytes:
    deflate, block = zlib.compressobj(9, wbits=wbits), bytes(1 << 20)
    return b"".join(deflate.compress(block) for _ in range(megabytes)) + deflate.flush()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(side: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def many_chunks() -> bytes:
    whole = WHOLE["png"]
    return whole[:33] + chunk(b"teXt", b"") * 800_000 + whole[33:]


def tag(number: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", number, kind, count, value)


def directory(tags: list[bytes], following: int = 0) -> bytes:
    return struct.pack("<H", len(tags)) + b"".join(tags) + struct.pack("<I", following)


def many_pages(count: int = 60_000) -> bytes:
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 4096)]
    page = [tag(*facts) for facts in tags]
    size = len(directory(page))
    ends = [8 + (number + 1) * size for number in range(count - 1)] + [0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(directory(page, end) for end in ends)


def overlapping_tags() -> bytes:
    """60,000 tags that point to the same five megabytes."""
    tags = [tag(300 + number, 7, 5_000_000, 8) for number in range(60_000)]
    return b"II*\0" + struct.pack("<I", 5_000_008) + bytes(5_000_000) + directory(tags)


def long_array() -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + directory([tag(273, 4, 5_000_000, 30)]) + bytes(20_000_100)


def resized(data: bytes, marker: bytes = SOF0) -> bytes:
    at = data.index(marker) + 5
    return data[:at] + struct.pack(">HH", SIDE, SIDE) + data[at + 4 :]


def many_scans(data: bytes, count: int) -> bytes:
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * count + b"\xff\xd9"


def dicom(stream: bytes, syntax: str, side: int | None = None) -> bytes:
    ds = FILMS.dicom(FILMS.grey(), 8, syntax, stream)
    ds.Rows, ds.Columns = (side, side) if side else (ds.Rows, ds.Columns)
    whole: bytes = FILMS.to_bytes(ds)
    return whole


def jpeg() -> bytes:
    return imagecodecs.jpeg8_encode(FILMS.grey(), level=90)


def another_size() -> bytes:
    """DHP, a marker of hierarchical JPEG, which carries a size."""
    whole = jpeg()
    return dicom(whole[:2] + b"\xff\xde\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0" + whole[2:], JPEG)


def large_jpeg_2000() -> bytes:
    whole = bytearray(imagecodecs.jpeg2k_encode(FILMS.grey(), reversible=True, codecformat="j2k"))
    struct.pack_into(">6I", whole, 8, 9000, 9000, 0, 0, 9000, 9000)
    return bytes(whole)


def box(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(body) if length is None else length) + kind + body


def decoy() -> bytes:
    """A size of its own in a box before the codestream."""
    small = b"\xff\x4f\xff\x51" + struct.pack(">HH4I", 41, 0, 88, 72, 0, 0) + bytes(32)
    return dicom(box(b"jP  ", b"\r\n\x87\n") + box(b"xml ", small) + box(b"jp2c", large_jpeg_2000(), 0), JPEG_2000)


def endless_box() -> bytes:
    return dicom(box(b"jP  ", b"\r\n\x87\n") + box(b"free", bytes(40) + b"\xff\xd9", 0), JPEG_2000)


def long_runs() -> bytes:
    return dicom(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 2_000_000, RLE, SIDE)


def many_items(length: int) -> bytes:
    whole, items = WHOLE["dicom-explicit"], b"\xfe\xff\0\xe0\0\0\0\0" * 1_000_000
    at = whole.index(b"\xe0\x7f\x10\x00")
    end = b"\xfe\xff\xdd\xe0\0\0\0\0" if length == 0xFFFFFFFF else b""
    return whole[:at] + b"\x28\0\x10\x30SQ\0\0" + struct.pack("<I", length) + items + end + whole[at:]


def many_values() -> bytes:
    whole = WHOLE["dicom-implicit"]
    at = whole.index(b"\x28\0\x50\x10")  # Window Center
    return whole[: at + 4] + struct.pack("<I", 10_000_000) + b"7\\" * 5_000_000 + whole[at + 14 :]


def inflated() -> bytes:
    whole = WHOLE["dicom-deflated"]
    meta = 144 + struct.unpack_from("<I", whole, 140)[0]
    return whole[:meta] + deflated_zeros(300, wbits=-15)


BOMBS: dict[str, Callable[[], bytes]] = {
    "palette.png": lambda: png(SIDE, 8, 3, deflated_zeros(SIDE * SIDE >> 20), chunk(b"PLTE", bytes(6))),
    "colour.png": lambda: png(6000, 16, 6, deflated_zeros(300)),
    "wide.png": lambda: png(60_000, 8, 0, b""),
    "chunks.png": many_chunks,
    "pages.tif": many_pages,
    "overlap.tif": overlapping_tags,
    "array.tif": long_array,
    "scans.jpg": lambda: many_scans(WHOLE["jpg-progressive"], 2000),
    "scans-large.jpg": lambda: many_scans(resized(WHOLE["jpg-progressive"], SOF2), 60),
    "large.jpg": lambda: resized(WHOLE["jpg"]),
    "large-jpeg.dcm": lambda: dicom(resized(jpeg()), JPEG, SIDE),
    "dhp.dcm": another_size,
    "large-j2k.dcm": lambda: dicom(large_jpeg_2000(), JPEG_2000, 9000),
    "decoy.dcm": decoy,
    "box.dcm": endless_box,
    "rle.dcm": long_runs,
    "items.dcm": lambda: many_items(0xFFFFFFFF),
    "items-length.dcm": lambda: many_items(8_000_000),
    "values.dcm": many_values,
    "deflated.dcm": inflated,
}


if __name__ == "__main__":
    for name, make in BOMBS.items():
        (Path(sys.argv[1]) / name).write_bytes(make())
