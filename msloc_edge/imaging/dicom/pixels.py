"""Stored pixels of a DICOM film (PS3.5 section 8), native or compressed: every bit of a sample, nothing else."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_fragments, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from msloc_edge.errors import InputError
from msloc_edge.imaging import decoder
from msloc_edge.imaging.checks import captured_warnings, check_size, choose_frame
from msloc_edge.imaging.codestream import END, JPEG, JPEG_2000, JPEG_LS, RLE, Codestream, read_codestream
from msloc_edge.imaging.dicom.header import Header
from msloc_edge.imaging.raster import luma

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_COMPRESSED = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), JPEG),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), JPEG_LS),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), JPEG_2000),
    RLELossless: RLE,
}
TRANSFER_SYNTAXES = (*_NATIVE, *_COMPRESSED)
"""Transfer syntaxes that are decoded."""

_YBR = ("YBR_FULL", "YBR_FULL_422")


def stored_pixels(header: Header, frame: int | None) -> tuple[NDArray[Any], int]:
    """Decode the chosen frame -> bit patterns [H, W], each below 2**bits, and bits; colour becomes luma.

    Raises InputError; docs/errors.md lists the reasons.
    """
    index = _check_size(header, frame)
    bits, low_bit = _check_depth(header)
    if header.syntax not in TRANSFER_SYNTAXES:  # video, JPIP, JPEG XL, private ones
        raise _no_codec(header, "convert it to Explicit VR Little Endian first")
    if header.syntax in _NATIVE and not header.encapsulated:
        return _from_cells(header, _native(header, index), bits, low_bit)
    codestream = _codestream(header, index)
    cells = decoder.decode(codestream, header.name)
    if codestream.kind == RLE:
        return _from_cells(header, cells, bits, low_bit)
    return _from_codestream(header, cells, codestream, bits)


def _check_size(header: Header, frame: int | None) -> int:
    """Choose the frame; refuse what has no pixels, or too few or too many."""
    if header.has_float_pixels:
        raise _unsupported(header, "floating point pixels")
    if header.pixel_data is None or not {"Rows", "Columns"} <= header.values.keys():
        raise header.error("corrupt", "an image", "none, or only its header", "export the film again")
    check_size(header.integer("Rows"), header.integer("Columns"), header.name)
    return choose_frame(header.frames, frame, header.name)


def _check_depth(header: Header) -> tuple[int, int]:
    """BitsStored, and the lowest bit of the sample in its cell."""
    samples, allocated, bits = (header.integer(k) for k in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    low_bit = header.integer("HighBit", bits - 1) - bits + 1
    if samples == 1 and header.photometric not in MONOCHROME:
        raise _unsupported(header, f"photometric interpretation {header.quoted('PhotometricInterpretation')}")
    if samples not in (1, 3) or (samples == 3 and bits != allocated):
        raise _unsupported(header, f"{samples} samples per pixel of {bits} bits")
    if allocated not in (8, 16) or not 1 <= bits <= allocated or not 0 <= low_bit <= allocated - bits:
        raise _unsupported(header, f"{bits} bits up to bit {low_bit + bits - 1} of {allocated}")
    return bits, low_bit


def _native(header: Header, index: int) -> NDArray[Any]:
    """Cells of uncompressed pixel data, [H, W] or RGB [H, W, 3]."""
    rows, columns, samples, allocated = (
        header.integer(k) for k in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    )
    check_size(rows, columns, header.name, 6 * samples * allocated // 8)
    stored = 2 if header.photometric == "YBR_FULL_422" else samples
    pixels = header.pixel_data or b""
    if len(pixels) < (index + 1) * rows * columns * stored * allocated // 8:
        raise header.truncated()
    options: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": samples,
        "bits_allocated": allocated,
        "bits_stored": header.integer("BitsStored"),
        "number_of_frames": header.frames,
        "photometric_interpretation": header.photometric,
        "pixel_representation": header.integer("PixelRepresentation", 0),
        "planar_configuration": header.integer("PlanarConfiguration", 0),
        "pixel_keyword": "PixelData",
        "view_only": True,
        "correct_unused_bits": False,
    }
    with captured_warnings():
        cells, _ = get_decoder(header.syntax).as_array(pixels, index=index, validate=False, **options)
    return cells.view(cells.dtype.str.replace("i", "u"))


def _from_cells(header: Header, cells: NDArray[Any], bits: int, low_bit: int) -> tuple[NDArray[Any], int]:
    """PS3.5 section 8.1.1: a sample is the BitsStored bits that end at HighBit; the others may be overlays."""
    if cells.ndim == 3:
        ybr = header.photometric in _YBR and header.syntax == RLELossless  # pydicom has converted native ones
        return _luma(header, cells, ybr), bits
    return _masked(cells >> low_bit if low_bit else cells, bits), bits


def _from_codestream(
    header: Header, cells: NDArray[Any], codestream: Codestream, bits: int
) -> tuple[NDArray[Any], int]:
    """PS3.5 section 8.2: where codestream and header differ, the codestream controls the decoding."""
    if codestream.samples != header.integer("SamplesPerPixel"):
        header.warn("dicom_nonconformant")
        bits = codestream.bits
    if codestream.samples == 3:
        return _luma(header, cells, _is_ybr(header, codestream)), codestream.bits
    precision, signed = codestream.bits, header.integer("PixelRepresentation", 0) == 1
    patterns = cells & np.array(2**precision - 1, cells.dtype) if codestream.signed else cells
    if precision > bits and _exceeds(patterns, bits, precision if signed else 0):
        header.warn("dicom_nonconformant")
        bits = precision
    elif precision < bits and signed and codestream.kind != JPEG:  # the sign of a shorter sample
        sign = np.uint16(1 << (precision - 1))
        patterns = (patterns.astype(np.uint16) ^ sign) - sign
    return _masked(patterns, bits), bits


def _masked(cells: NDArray[Any], bits: int) -> NDArray[Any]:
    """Clear the bits above the sample, in place where the cells are ours."""
    if not cells.flags.owndata or not cells.dtype.isnative:
        cells = cells & (2**bits - 1)
    elif bits < 8 * cells.itemsize:
        np.bitwise_and(cells, 2**bits - 1, out=cells)
    return cells.astype(np.uint8 if bits <= 8 else np.uint16, copy=False)


def _exceeds(patterns: NDArray[Any], bits: int, signed_precision: int) -> bool:
    """Tell whether samples do not fit into `bits`; signed ones are two's complement of their precision."""
    values = patterns.astype(np.int32)
    if not signed_precision:
        return bool(values.max() >= 2**bits)
    sign = 1 << (signed_precision - 1)
    values = (values ^ sign) - sign
    return bool(values.min() < -(2 ** (bits - 1)) or values.max() >= 2 ** (bits - 1))


def _luma(header: Header, cells: NDArray[Any], ybr: bool) -> NDArray[Any]:
    header.warn("colour_converted")
    return luma(convert_color_space(cells, "YBR_FULL", "RGB") if ybr else cells)


def _is_ybr(header: Header, codestream: Codestream) -> bool:
    """Tell whether decoded colour is luma and chroma: what the codestream says goes before the header."""
    if codestream.ycc is not None:
        return codestream.ycc
    if header.photometric in MONOCHROME:
        return codestream.kind == JPEG  # its habit
    return header.photometric in _YBR


def _codestream(header: Header, index: int) -> Codestream:
    """The compressed frame, checked for what decoding it will take: the decoder would believe its header."""
    data = _compressed_frame(header, index)
    rows, columns = header.integer("Rows"), header.integer("Columns")
    expected = _COMPRESSED.get(header.syntax)
    if not decoder.is_available():
        raise _no_codec(header, "install it with: pip install 'msloc-edge[dicom]'")
    if expected == RLE:
        samples, bits = header.integer("SamplesPerPixel"), header.integer("BitsAllocated")
        codestream = Codestream(RLE, data, rows, columns, samples, bits)
    else:
        if not data[-1024:].rstrip(b"\0\xff").endswith(END):  # padded to an even length, or to a block
            raise header.truncated()
        found = read_codestream(data, header.name)
        if found is None or (found.height, found.width) != (rows, columns):
            got = f"{found.width} x {found.height}" if found else "something else"
            wanted = f"a codestream of {columns} x {rows} pixels, as the header says"
            raise header.error("corrupt", wanted, got, "export the film again")
        if found.samples not in (1, 3) or not 2 <= found.bits <= 16:
            raise _unsupported(header, f"a codestream of {found.samples} samples of {found.bits} bits")
        if found.kind != expected:
            header.warn("dicom_nonconformant")
        codestream = found
    memory = decoder.bytes_per_sample(codestream.kind) * codestream.samples
    check_size(rows, columns, header.name, memory, stored=len(codestream.data))
    return codestream


def _compressed_frame(header: Header, index: int) -> bytes:
    """PS3.5 annex A.4: the fragments of a frame. A single frame is all of them, whatever its offset table says."""
    pixels, values = header.pixel_data or b"", header.values
    try:
        with captured_warnings():
            if header.frames == 1:
                table = 8 + int.from_bytes(pixels[4:8], "little")
                return b"".join(generate_fragments(BytesIO(pixels[table:])))
            tables: Any = values.get("ExtendedOffsetTable"), values.get("ExtendedOffsetTableLengths")
            offsets = tables if all(isinstance(table, bytes) for table in tables) else None
            return get_frame(pixels, index, number_of_frames=header.frames, extended_offsets=offsets)
    except Exception:  # damaged item tags and lengths
        wanted = "the compressed pixels in fragments"
        raise header.error("corrupt", wanted, "none that hold together", "export the film again") from None


def _unsupported(header: Header, got: str) -> InputError:
    expected = "8 or 16 bits allocated, MONOCHROME1, MONOCHROME2, RGB or YBR"
    return header.error("unsupported_pixels", expected, got, "convert the film first")


def _no_codec(header: Header, remedy: str) -> InputError:
    uid: UID = header.syntax
    legal = uid.is_valid
    got = (f"{uid.name} ({uid})" if uid.name != uid else str(uid)) if legal else "no legal UID"
    return header.error("unsupported_codec", "a transfer syntax with a decoder", got, remedy)
