"""PNG, JPEG and TIFF files, PIL images and plain arrays to `Frame`.

Pillow reads the header and decodes PNG and TIFF; 16-bit colour, which Pillow cannot hold, goes through OpenCV. JPEG
goes through simplejpeg, which tells when pixels are missing. The film stays as stored: no rotation by EXIF (boxes are
in pixels of the stored image), no colour management, the full range of its depth.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import InputError
from msloc_edge.imaging import codecs, png, tiff
from msloc_edge.imaging.checks import MAX_PIXELS, captured_warnings, check_size, choose_frame
from msloc_edge.imaging.codestream import END, read_codestream
from msloc_edge.types import Frame

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

_MAGIC = {
    png.SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_SCAN = b"\xff\xda"
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # "I": how Pillow before 11 holds a 16-bit PNG
# Bytes per pixel that Pillow, the array made of its image, and luma take together at most
_MEMORY = {"L": 3, "P": 4, "LA": 8, "I;16": 6, "I;16B": 6, "I": 8}
_COLOUR_MEMORY, _DEEP_COLOUR_MEMORY = 12, 20


def image_format(data: bytes) -> str | None:
    """Tell a file's format by its first bytes: "PNG", "JPEG", "TIFF" or None."""
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


def full_range_frame(
    pixels: NDArray[Any], name: str, codes: tuple[str, ...] = (), *, bits: int = 0, white_is_zero: bool = False
) -> Frame:
    """Grey pixels [H, W] uint8/uint16 -> Frame whose `lut` is the full range of `bits` (default: of the dtype).

    Raises InputError `constant` when all pixels are equal.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise InputError("constant", f"{name}: expected a film, but every pixel is {low}; export the film again.")
    bits = bits or 8 * pixels.dtype.itemsize
    if pixels.dtype.itemsize == 2 and high < 2**bits // 8:
        codes += ("narrow_range",)
    lut = full_range(bits)
    return Frame(pixels, np.float32(1) - lut if white_is_zero else lut, name, warnings=codes)


def full_range(bits: int) -> NDArray[np.float32]:
    """Table [2**bits] that shows a depth's smallest value black, and its largest white.

    >>> full_range(2)
    array([0.        , 0.33333334, 0.6666667 , 1.        ], dtype=float32)
    """
    top = 2**bits - 1
    return np.arange(top + 1, dtype=np.float32) / np.float32(top)


def luma(colour: NDArray[Any], *, bgr: bool = False) -> NDArray[Any]:
    """Colour [H, W, 3] uint8/uint16 -> luma [H, W] of the same depth, ITU-R BT.601; exact where R = G = B.

    >>> luma(np.array([[[255, 0, 0], [7, 7, 7]]], np.uint8)).tolist()
    [[76, 7]]
    """
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_BGR2GRAY if bgr else cv2.COLOR_RGB2GRAY)


def decode_image(data: bytes, name: str, frame: int | None = None) -> Frame:
    """Decode the bytes of a PNG, JPEG or TIFF file -> Frame, without its hash.

    Raises InputError; docs/errors.md lists the reasons.
    """
    kind = image_format(data)
    try:
        if kind == "PNG":
            png.check_png(data, name)
        elif kind == "JPEG":
            _check_jpeg(data, name)
        data, pages = tiff.upright_tiff(data, name) if kind == "TIFF" else (data, [])
        with captured_warnings():
            image = _open(data, kind, name, frame)
            turned = pages[image.tell()] if pages else _is_turned(image)
        film = _decode(image, data, name, ("exif_orientation_ignored",) if turned else ())
        if kind == "PNG" and (data[25] == png.PALETTE or data[28] or not np.asarray(film.pixels)[-1].any()):
            png.prove_rows(data, name)
        return film
    except InputError:
        raise
    except codecs.Truncated:
        raise _truncated(name, str(kind)) from None
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
    index = choose_frame(getattr(image, "n_frames", 1), frame, name)
    _check_memory(image, data, name)
    if index:
        _check_animation(image, index, name)
        image.seek(index)
        _check_memory(image, data, name)
    if kind == "TIFF":
        tiff.check_tiff(image, len(data), name)
    return image


def _check_memory(image: ImageFile, data: bytes, name: str) -> None:
    deep = image.format == "PNG" and png.is_16_bit_colour(data)
    memory = _DEEP_COLOUR_MEMORY if deep else _MEMORY.get(image.mode, _COLOUR_MEMORY)
    check_size(image.height, image.width, name, memory, stored=len(data))


def _check_animation(image: ImageFile, index: int, name: str) -> None:
    """Refuse a frame of an animated PNG that costs the decoding of too many before it."""
    if image.format == "PNG" and index * image.height * image.width > 10 * MAX_PIXELS:
        raise InputError(
            "too_large", f"{name}: expected a film, got frame {index + 1} of a long animation; save the film alone."
        )


def _is_turned(image: Image) -> bool:
    return "exif" in image.info and image.getexif().get(tiff.ORIENTATION, 1) != 1


def _decode(image: ImageFile, data: bytes, name: str, codes: tuple[str, ...]) -> Frame:
    tags = getattr(image, "tag_v2", {})
    if image.format == "PNG" and png.is_16_bit_colour(data):
        return _colour16(png.plain_png(data, name), 0, data[25] & 2, name, codes)
    if image.mode.startswith("RGB") and 16 in tags.get(tiff.BITS, ()):
        return _colour16(data, image.tell(), 2, name, codes)
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        if image.mode == "L":
            return full_range_frame(codecs.decode_jpeg_8(data, "GRAY"), name, codes)
        return full_range_frame(luma(codecs.decode_jpeg_8(data, "RGB")), name, (*codes, "colour_converted"))
    if image.format == "TIFF":  # its decoder has a bomb check of its own, which may warn
        with captured_warnings():
            image.load()
    bits = tags[tiff.BITS][0] if tags and image.mode in _SIXTEEN_BITS else 0
    inverted = bits > 8 and tags.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO  # Pillow inverts 8 bits only
    pixels, colour = grey_pixels(image, name)
    codes = (*codes, "colour_converted") if colour else codes
    return full_range_frame(pixels, name, codes, bits=bits, white_is_zero=inverted)


def frame_from_image(image: Image, name: str) -> Frame:
    """A PIL image as a film, as the file that it came from is read; the same pixels, not turned by EXIF.

    Raises InputError `unsupported_pixels`, `too_small`, `too_large` or `constant`.
    """
    check_size(image.height, image.width, name, _MEMORY.get(image.mode, _COLOUR_MEMORY))
    codes = ("exif_orientation_ignored",) if _is_turned(image) else ()
    try:
        pixels, colour = grey_pixels(image, name)
    except InputError:
        raise
    except Exception as error:  # a lazily opened file decodes here
        raise _broken(name, image.format or "PIL", error) from None
    return full_range_frame(pixels, name, (*codes, "colour_converted") if colour else codes)


def grey_pixels(image: Image, name: str) -> tuple[NDArray[Any], bool]:
    """Pixels [H, W] uint8 or uint16 of a PIL image, and whether they were colour. Transparency is dropped.

    Raises InputError `unsupported_pixels` for a mode that no film has.
    """
    import cv2

    mode = image.mode
    if mode in ("L", "LA"):
        return np.array(image if mode == "L" else image.getchannel(0)), False
    if mode in _SIXTEEN_BITS:
        pixels = np.array(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise _unsupported(name, "whole numbers beyond 16 bits")
        return pixels.astype("=u2", copy=False), False
    if mode == "P":
        palette = np.zeros((1, 256, 3), np.uint8)
        entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[0, : len(entries)] = entries
        return cv2.LUT(np.array(image), luma(palette)[0]), True
    if mode in ("RGB", "RGBA", "RGBX", "PA", "RGBa", "YCbCr", "HSV"):
        straight = image if mode in ("RGB", "RGBA", "RGBX") else image.convert("RGBA" if mode == "PA" else "RGB")
        return luma(np.asarray(straight)[..., :3]), True
    raise _unsupported(name, {"1": "1-bit black and white", "F": "floating point"}.get(mode, f"{mode} pixels"))


def _colour16(data: bytes, page: int, colour: int, name: str, codes: tuple[str, ...]) -> Frame:
    """16-bit colour, or grey with alpha, through OpenCV."""
    import cv2

    read, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    if not read or pages[0].dtype != np.uint16:
        raise _unsupported(name, "16-bit colour that OpenCV does not decode")
    pixels = pages[0] if pages[0].ndim == 2 else luma(pages[0][..., :3], bgr=True)
    return full_range_frame(pixels, name, (*codes, "colour_converted") if colour else codes)


def _check_jpeg(data: bytes, name: str) -> None:
    if data.find(END, data.rfind(_SCAN)) < 0:  # no end after the last scan; a thumbnail has its own
        raise _truncated(name, "JPEG")
    codestream = read_codestream(data, name)
    if codestream is not None and codestream.bits != 8:
        raise _unsupported(name, f"a JPEG of {codestream.bits} bits")


def _truncated(name: str, kind: str) -> InputError:
    return InputError("truncated", f"{name}: expected a whole {kind} file, but it ends early; copy or export it again.")


def _unsupported(name: str, got: str) -> InputError:
    return InputError(
        "unsupported_pixels", f"{name}: expected 8 or 16-bit grey or RGB pixels, got {got}; convert the film first."
    )


def _broken(name: str, kind: str | None, error: Exception) -> InputError:
    """Tell what is cut from what is damaged; a library's own words may repeat what the file says, and are left out."""
    cut = ("truncated", "not enough", "out of range", "requires a buffer", "unexpected end", "no more data")
    if isinstance(error, EOFError) or any(sign in str(error).lower() for sign in cut):
        return _truncated(name, str(kind))
    return InputError("corrupt", f"{name}: expected a {kind} file, but it does not decode; export it again.")
