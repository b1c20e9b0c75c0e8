"""TIFF files (TIFF 6.0, BigTIFF), directory by directory, before Pillow reads them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from msloc_edge.errors import InputError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339
WHITE_IS_ZERO = 0
MAX_PAGES, MAX_ENTRIES, MAX_VALUES = 1000, 100_000, 1_000_000

_STRIPS, _TILES = (273, 279), (324, 325)  # their offsets and their lengths
_TYPE_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def upright_tiff(data: bytes, name: str) -> tuple[bytes, list[bool]]:
    """Set every page's orientation to 1, since Pillow would turn it -> the file, and which pages had another.

    Raises InputError `too_large` where directories are many, or point to far more than the file holds; struct.error
    where a directory or a value lies beyond the end of the file.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]  # BigTIFF
    link, count_format, entry_size, start = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    inline = struct.calcsize(link)
    upright, turned, seen, entries, values = bytearray(data), list[bool](), {0}, 0, 0
    (directory,) = struct.unpack_from(order + link, data, start)
    while directory not in seen:
        seen.add(directory)
        (count,) = struct.unpack_from(order + count_format, data, directory)
        entries += count
        _check_amount(len(seen) - 1, entries, values, len(data), name)
        first = directory + struct.calcsize(order + count_format)
        (directory,) = struct.unpack_from(order + link, data, first + count * entry_size)
        turned.append(False)
        for entry in range(first, first + count * entry_size, entry_size):
            tag, kind, length = struct.unpack_from(order + "HH" + link, data, entry)
            value = entry + entry_size - inline
            if (size := length * _TYPE_SIZES.get(kind, 1)) > inline:
                if kind in _TYPE_SIZES and length > MAX_VALUES:
                    raise _too_large(name, f"{length:,} values of one tag")
                struct.unpack_from(f"{size}x", data, *struct.unpack_from(order + link, data, value))
                values += size
            if tag == ORIENTATION and struct.unpack_from(order + "H", data, value) != (1,):
                struct.pack_into(order + "H", upright, value, 1)
                turned[-1] = True
    _check_amount(len(turned), entries, values, len(data), name)
    return bytes(upright) if any(turned) else data, turned


def _check_amount(pages: int, entries: int, values: int, length: int, name: str) -> None:
    if pages > MAX_PAGES:
        raise _too_large(name, f"more than {MAX_PAGES:,} pages")
    if entries > MAX_ENTRIES:
        raise _too_large(name, f"more than {MAX_ENTRIES:,} tags")
    if values > 10 * length:  # pages may share a few, such as a colour profile
        raise _too_large(name, "directories that hold ten times more than the file")


def check_tiff(image: ImageFile, length: int, name: str) -> None:
    """Refuse samples that no film has, and strips beyond the end of the file.

    Raises InputError `unsupported_pixels` or `truncated`.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    sample_format, bits = tags.get(SAMPLE_FORMAT, (1,))[0], max(tags.get(BITS, (1,)))
    if sample_format != 1 or bits > 16:
        kind = {2: "signed integers", 3: "floating point"}.get(sample_format, "integers")
        raise InputError(
            "unsupported_pixels", f"{name}: expected 8 or 16-bit pixels, got {kind} of {bits} bits; convert it first."
        )
    for offsets, counts in (_STRIPS, _TILES):
        ends = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        if any(offset + count > length for offset, count in ends):
            raise InputError(
                "truncated", f"{name}: expected a whole TIFF file, but it ends early; copy or export it again."
            )


def _too_large(name: str, got: str) -> InputError:
    return InputError("too_large", f"{name}: expected the TIFF of a film, got {got}; save the film alone.")
