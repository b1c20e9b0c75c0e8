"""PNG, JPEG and TIFF files, and plain arrays, to `Frame`; and the checks that every film must pass.

Pillow reads the header and decodes; 16-bit colour, which Pillow cannot hold, goes through OpenCV. The film stays as
stored: no rotation by EXIF (boxes are in pixels of the stored image), no colour management, the full range of its
depth.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import InputError
from msloc_edge.types import Frame

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 120_000_000
"""Largest film that is decoded, in pixels (the largest detectors have 20 million): above it, a decompression bomb."""

MIN_SIDE = 32
"""Smallest side of a film, in pixels."""

_PNG = b"\x89PNG\r\n\x1a\n"
_MAGIC = {
    _PNG: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
# TIFF 6.0 tag numbers
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
_STRIPS, _TILES = (273, 279), (324, 325)
_WHITE_IS_ZERO = 0
_TIFF_TYPE_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_PALETTE = 3  # PNG colour type
# PNG section 8.2: the first column and row, and the steps, of each pass of an interlaced film
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

_capture = threading.Lock()


@contextmanager
def captured_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect Python warnings instead of printing them; one thread at a time, since Python's filters are global."""
    with _capture, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def image_format(data: bytes) -> str | None:
    """What the file's first bytes say: "PNG", "JPEG", "TIFF" or None."""
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


def choose_frame(count: int, frame: int | None, name: str) -> int:
    """The index, from 0, of the frame to read; `frame` counts from 1, as DICOM's frame numbers do.

    Raises InputError `multi_frame` when there are several and none is chosen, `option_invalid` otherwise.
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


def check_size(height: int, width: int, name: str) -> None:
    """Raises InputError `too_small` or `too_large`; called before anything is decoded."""
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


def full_range_frame(
    pixels: NDArray[Any], name: str, codes: tuple[str, ...] = (), *, bits: int = 0, white_is_zero: bool = False
) -> Frame:
    """Grey pixels [H, W] uint8/uint16 -> Frame whose `lut` is the full range of `bits` (default: of the dtype).

    Raises InputError `constant` when all pixels are equal.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise InputError("constant", f"{name}: expected a film, but every pixel is {low}; export the film again.")
    top = 2 ** (bits or 8 * pixels.dtype.itemsize) - 1
    if pixels.dtype.itemsize == 2 and high < (top + 1) // 8:
        codes += ("narrow_range",)
    lut = np.arange(top + 1, dtype=np.float32) / np.float32(top)
    return Frame(pixels, np.float32(1) - lut if white_is_zero else lut, name, warnings=codes)


def luma(colour: NDArray[Any], *, bgr: bool = False) -> NDArray[Any]:
    """Colour [H, W, 3] uint8/uint16 -> luma [H, W] of the same depth, ITU-R BT.601; exact where R = G = B."""
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_BGR2GRAY if bgr else cv2.COLOR_RGB2GRAY)


def decode_image(data: bytes, name: str, frame: int | None = None) -> Frame:
    """The bytes of a PNG, JPEG or TIFF file -> Frame, without its hash.

    Raises InputError; docs/errors.md lists the reasons.
    """
    kind = image_format(data)
    try:
        if kind == "PNG":
            _check_png(data, name)
        elif kind == "JPEG":
            _check_jpeg(data, name)
        data, pages = _upright_tiff(data) if kind == "TIFF" else (data, [])
        with captured_warnings():
            image = _open(data, kind, name, frame)
            turned = (
                pages[image.tell()] if pages else "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1
            )
        film = _decode(image, data, name, ("exif_orientation_ignored",) if turned else ())
        if kind == "PNG" and (data[25] == _PALETTE or data[28] or not film.pixels[-1].any()):
            _prove_rows(data, name)
        return film
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, KeyError ...
        raise _broken(name, kind, error) from None


def _open(data: bytes, kind: str | None, name: str, frame: int | None) -> ImageFile:
    """Read the header, choose the frame, check the size: nothing is decoded yet.

    The format's own class rather than Image.open, whose bomb limit is a global of the calling program.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    openers: dict[str, Callable[[BytesIO], ImageFile]]
    openers = {"PNG": PngImageFile, "JPEG": JpegImageFile, "TIFF": TiffImageFile}
    try:
        image = openers[kind or ""](BytesIO(data))
    except SyntaxError as error:
        if "unknown pixel mode" in str(error):
            raise _unsupported(name, "a TIFF with another sample type") from None
        raise
    if index := choose_frame(getattr(image, "n_frames", 1), frame, name):
        image.seek(index)
    check_size(image.height, image.width, name)
    if kind == "TIFF":
        _check_tiff(image, len(data), name)
    return image


def _decode(image: ImageFile, data: bytes, name: str, codes: tuple[str, ...]) -> Frame:
    tags = getattr(image, "tag_v2", {})
    if image.format == "PNG" and data[24] == 16 and data[25] != 0:
        return _colour16(_plain_png(data, name), 0, data[25] & 2, name, codes)
    if image.mode.startswith("RGB") and 16 in tags.get(_BITS, ()):
        return _colour16(data, image.tell(), 2, name, codes)

    if image.format == "TIFF":  # its decoder has a bomb check of its own, which may warn
        with captured_warnings():
            image.load()
    mode = image.mode
    if mode in ("L", "LA"):
        return full_range_frame(np.array(image if mode == "L" else image.getchannel(0)), name, codes)
    if mode in ("I;16", "I;16B", "I"):  # "I": how Pillow before 11 holds a 16-bit PNG
        bits = tags[_BITS][0] if tags else 16
        inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # Pillow inverts 8 bits only
        return full_range_frame(
            np.array(image).astype("=u2", copy=False), name, codes, bits=bits, white_is_zero=inverted
        )
    if mode in ("RGB", "RGBA", "RGBX", "P", "PA"):  # a palette goes through RGBA, which can hold its transparency
        colour = np.asarray(image if mode == "RGB" else image.convert("RGBA"))
        return full_range_frame(luma(colour[..., :3]), name, (*codes, "colour_converted"))
    raise _unsupported(name, {"1": "1-bit black and white", "F": "floating point"}.get(mode, f"{mode} pixels"))


def _colour16(data: bytes, page: int, colour: int, name: str, codes: tuple[str, ...]) -> Frame:
    """16-bit colour, or grey with alpha, through OpenCV."""
    import cv2

    read, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    if not read or pages[0].dtype != np.uint16:
        raise _unsupported(name, "16-bit colour that OpenCV does not decode")
    pixels = pages[0] if pages[0].ndim == 2 else luma(pages[0][..., :3], bgr=True)
    return full_range_frame(pixels, name, (*codes, "colour_converted") if colour else codes)


# What is cut short must never pass for a film: containers are checked before a decoder, which may fill up, sees them.


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, the whole chunk) of each chunk; ends early where the file does."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], data[at:end]
        at = end


def _check_png(data: bytes, name: str) -> None:
    kinds = [kind for kind, _ in _png_chunks(data)]
    if b"IEND" not in kinds:
        raise _truncated(name, "PNG")
    if b"acTL" in kinds and data[24] == 16 and data[25] not in (0, 3):
        raise _unsupported(name, "an animated PNG of 16-bit colour")


def _plain_png(data: bytes, name: str) -> bytes:
    """The chunks that carry pixels, with their data proven whole: libpng then has nothing to say on stderr."""
    _prove_rows(data, name)
    wanted = [(kind, chunk) for kind, chunk in _png_chunks(data) if kind in (b"IHDR", b"IDAT", b"IEND")]
    if any(zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big") for _, chunk in wanted):
        raise ValueError("a chunk's checksum is wrong")
    return _PNG + b"".join(chunk for _, chunk in wanted)


def _prove_rows(data: bytes, name: str) -> None:
    """Refuse a PNG whose compressed data hold fewer rows than its header says, which Pillow fills up with black."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    expected = sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0)
    inflate = zlib.decompressobj()
    stored = b"".join(chunk[8:-4] for kind, chunk in _png_chunks(data) if kind == b"IDAT")
    if len(inflate.decompress(stored, expected)) < expected:
        raise _truncated(name, "PNG")


def _check_jpeg(data: bytes, name: str) -> None:
    if data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0:  # no end after the last scan; a thumbnail has its own
        raise _truncated(name, "JPEG")
    header = codestream_header(data)
    if header is not None and header[2] != 8:
        raise _unsupported(name, f"a JPEG of {header[2]} bits")


def _upright_tiff(data: bytes) -> tuple[bytes, list[bool]]:
    """The file with every page's orientation set to 1, since Pillow would turn it, and which pages had another.

    Raises struct.error where a directory or a value lies beyond the end of the file.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]  # BigTIFF
    link, count_format, entry_size, start = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    upright, turned, seen = bytearray(data), [], {0}
    (directory,) = struct.unpack_from(order + link, data, start)
    while directory not in seen:
        seen.add(directory)
        (count,) = struct.unpack_from(order + count_format, data, directory)
        first = directory + struct.calcsize(order + count_format)
        (directory,) = struct.unpack_from(order + link, data, first + count * entry_size)
        turned.append(False)
        for entry in range(first, first + count * entry_size, entry_size):
            tag, kind, length = struct.unpack_from(order + "HH" + link, data, entry)
            value = entry + entry_size - struct.calcsize(link)
            if (size := length * _TIFF_TYPE_SIZES.get(kind, 1)) > struct.calcsize(link):
                struct.unpack_from(f"{size}x", data, *struct.unpack_from(order + link, data, value))
            if tag == _ORIENTATION and struct.unpack_from(order + "H", data, value) != (1,):
                struct.pack_into(order + "H", upright, value, 1)
                turned[-1] = True
    return bytes(upright) if any(turned) else data, turned


def _check_tiff(image: ImageFile, length: int, name: str) -> None:
    tags = image.tag_v2  # type: ignore[attr-defined]
    sample_format, bits = tags.get(_SAMPLE_FORMAT, (1,))[0], max(tags.get(_BITS, (1,)))
    if sample_format != 1 or bits > 16:
        kind = {2: "signed integers", 3: "floating point"}.get(sample_format, "integers")
        raise _unsupported(name, f"{kind} of {bits} bits")
    for offsets, counts in (_STRIPS, _TILES):
        ends = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        if any(offset + count > length for offset, count in ends):
            raise _truncated(name, "TIFF")


def codestream_header(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, bits) that a JPEG, JPEG-LS or JPEG 2000 codestream states, or None where it states none."""
    siz = data.find(b"\xff\x4f\xff\x51", 0, 4096)  # JPEG 2000: SOC, SIZ; a JP2 box may come first
    if not data.startswith(b"\xff\xd8") and siz >= 0 and len(data) >= siz + 43:
        width, height, left, top = struct.unpack_from(">4I", data, siz + 8)
        return height - top, width - left, (data[siz + 42] & 0x7F) + 1
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # SOF; F7: JPEG-LS
            bits, height, width = struct.unpack_from(">BHH", data, at + 4)
            return height, width, bits
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _truncated(name: str, kind: str) -> InputError:
    return InputError("truncated", f"{name}: expected a whole {kind} file, but it ends early; copy or export it again.")


def _unsupported(name: str, got: str) -> InputError:
    return InputError(
        "unsupported_pixels", f"{name}: expected 8 or 16-bit grey or RGB pixels, got {got}; convert the film first."
    )


def _broken(name: str, kind: str | None, error: Exception) -> InputError:
    text = " ".join(str(error).split())[:120] or type(error).__name__
    cut = ("truncated", "not enough", "out of range", "requires a buffer", "unexpected end", "no more data")
    if isinstance(error, EOFError) or any(sign in text.lower() for sign in cut):
        return _truncated(name, str(kind))
    return InputError("corrupt", f"{name}: expected a {kind} file, but it does not decode ({text}); export it again.")
