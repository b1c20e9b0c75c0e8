"""Writes the self-test film as C++ source: embed_film.py selftest.png selftest_film.cpp. Standard library only."""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from pathlib import Path

SOURCE = """#include "selftest_film.h"

namespace msloc {{

const int kSelfTestWidth = {width};
const int kSelfTestHeight = {height};
const char* const kSelfTestSha256 = "{sha256}";
const unsigned char kSelfTestPixels[] = {{
{pixels}
}};

}}  // namespace msloc
"""


def decode(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and pixels of an 8-bit grey PNG that is not interlaced (RFC 2083)."""
    width, height, *kind = struct.unpack(">IIBBBBB", png[16:29])
    if not png.startswith(b"\x89PNG\r\n\x1a\n") or kind != [8, 0, 0, 0, 0]:
        raise ValueError(f"expected an 8-bit grey PNG without interlacing, got {kind}")
    data, at = b"", 8
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        if name == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    lines, pixels, above = zlib.decompress(data), bytearray(), bytes(width)
    for y in range(height):
        kind_of_filter, *line = lines[y * (width + 1) : (y + 1) * (width + 1)]
        above = unfiltered(kind_of_filter, line, above)
        pixels += above
    return width, height, bytes(pixels)


def unfiltered(kind: int, line: list[int], above: bytes) -> bytes:
    """Section 6 of RFC 2083: a line with its filter undone."""
    for x, value in enumerate(line):
        left, corner = (line[x - 1], above[x - 1]) if x else (0, 0)
        predicted = (0, left, above[x], (left + above[x]) // 2, paeth(left, above[x], corner))[kind]
        line[x] = (value + predicted) & 255
    return bytes(line)


def paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def main(source: Path, target: Path) -> None:
    png = source.read_bytes()
    width, height, pixels = decode(png)
    rows = (pixels[at : at + 32] for at in range(0, len(pixels), 32))
    text = "\n".join("  " + ", ".join(map(str, row)) + "," for row in rows)
    target.write_text(
        SOURCE.format(width=width, height=height, sha256=hashlib.sha256(png).hexdigest(), pixels=text), "utf-8"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
