"""DICOM files to `Frame`: the stored pixels, and the whole display transform of PS3.3 folded into one table.

    stored bits -> stored value -> modality LUT -> VOI LUT or window -> polarity -> padding       (docs/dicom.md)

Every step maps the vector of all 2**BitsStored possible values, never the film. Only the elements listed here are
taken from the file, so that no name, date or number of a patient is ever held.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from msloc_edge.errors import InputError
from msloc_edge.imaging.raster import (
    MAX_PIXELS,
    captured_warnings,
    check_size,
    choose_frame,
    codestream_header,
    luma,
)
from msloc_edge.types import Frame

_FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
_TAGS: list[Any] = [
    *("SOPClassUID", "Modality", "PresentationIntentType", "BodyPartExamined", "ViewPosition"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", *_FLOAT_PIXELS),
]
_PROJECTIONS = ("CR", "DX", "RG")
_CHEST = ("CHEST", "THORA", "TORAX", "LUNG", "CXR")
_NOT_FRONTAL = ("LL", "RL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO")
_FOR_PROCESSING = UID("1.2.840.10008.5.1.4.1.1.1.1.1")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")

Values = NDArray[np.float64]


def decode_dicom(data: bytes, name: str, frame: int | None = None) -> Frame:
    """The bytes of a DICOM file -> Frame, without its hash.

    Raises InputError; docs/errors.md lists the reasons.
    """
    codes: list[str] = []
    try:
        with captured_warnings() as caught:  # pydicom's codecs hold Python's lock anyway: no thread waits for longer
            film = _Film(_parse(data, name), name, codes)
            if any("End of file" in str(warning.message) for warning in caught):
                raise film.truncated()
            film.check_kind()
            pixels, bits = film.decode(frame)
            lut = film.display(pixels, bits)
    except InputError:
        raise
    except Exception as error:  # a damaged element can fail anywhere in pydicom and its codecs
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            "corrupt", f"{name}: expected DICOM, but it does not decode ({text}); export the film again."
        ) from None
    if any(issubclass(warning.category, UserWarning) for warning in caught):
        codes.append("dicom_nonconformant")
    return Frame(pixels, lut, name, warnings=tuple(dict.fromkeys(codes)))


def _parse(data: bytes, name: str) -> Dataset:
    """The data set, with a transfer syntax. Nothing of the pixels is decoded."""
    if (start := _deflated(data)) is not None:
        _check_inflated(data[start:], name)
    ds = pydicom.dcmread(BytesIO(data), force=True, specific_tags=_TAGS)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def _deflated(data: bytes) -> int | None:
    """PS3.5 annex A.5: where the deflated data set begins, or None when it is not deflated."""
    if data[128:132] != b"DICM":
        return None
    file = BytesIO(data)
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    return file.tell() if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian else None


def _check_inflated(rest: bytes, name: str) -> None:
    """Refuse a bomb: pydicom inflates without a bound."""
    inflate, size, limit = zlib.decompressobj(-zlib.MAX_WBITS), 0, 4 * MAX_PIXELS
    while rest:
        size += len(inflate.decompress(rest, 2**24))
        rest = inflate.unconsumed_tail
        if size > limit:
            raise InputError(
                "too_large", f"{name}: expected at most {limit:,} bytes inflated, got more; send it undeflated."
            )


@dataclass(frozen=True)
class _Film:
    """One data set on its way to a Frame; `codes` collects the warnings."""

    ds: Dataset
    name: str
    codes: list[str]

    # What it is

    def check_kind(self) -> None:
        """Refuse what is no projection radiograph; note what is no frontal chest film meant for display."""
        sop, modality = UID(self._text("SOPClassUID")), self._text("Modality")
        known = sop.name != sop
        if known and "Image" not in sop.name:
            raise self._wrong_modality(f"'{sop.name}'")
        if modality in ("", "OT"):
            self.codes.append("modality_missing")
        elif modality not in _PROJECTIONS:
            raise self._wrong_modality(f"modality {modality}")
        if self._text("PresentationIntentType") == "FOR PROCESSING" or sop == _FOR_PROCESSING:
            self.codes.append("for_processing")
        view, part = self._text("ViewPosition"), self._text("BodyPartExamined")
        if view in _NOT_FRONTAL or "LAT" in view or "OBL" in view:
            self.codes.append("not_frontal")
        if part and not any(chest in part for chest in _CHEST):
            self.codes.append("not_chest")

    # The stored pixels

    def decode(self, frame: int | None) -> tuple[NDArray[Any], int]:
        """The chosen frame's bit patterns [H, W], each below 2**bits, and bits."""
        index = self._check_size(frame)
        bits, low_bit = self._check_depth()
        decoder, precision = self._check_data(index)
        options: dict[str, Any] = {} if decoder.is_encapsulated else {"view_only": True, "correct_unused_bits": False}
        decoded, _ = decoder.as_array(self.ds, index=index, validate=False, **options)
        if decoded.ndim == 3:
            self.codes.append("colour_converted")
            return luma(decoded), bits
        if precision > bits and _exceeds(decoded, bits):  # a codestream of more bits than the header admits
            self.codes.append("dicom_nonconformant")
            bits = precision
        # PS3.5 section 8.1.1: a sample is the BitsStored bits that end at HighBit; the others may be overlays
        pattern = decoded.view(decoded.dtype.str.replace("i", "u"))
        if low_bit and (decoder.is_native or self._syntax == RLELossless):  # a codestream holds samples, not cells
            pattern = pattern >> low_bit
        return (pattern & (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16, copy=False), bits

    def _check_size(self, frame: int | None) -> int:
        """The index of the frame to read; refuse what has no pixels, or too few or too many."""
        ds = self.ds
        if any(keyword in ds for keyword in _FLOAT_PIXELS):
            raise self._unsupported("floating point pixels")
        if any(keyword not in ds for keyword in ("PixelData", "Rows", "Columns")):
            raise self._error("corrupt", "an image", "none, or only its header", "export the film again")
        check_size(self._integer("Rows"), self._integer("Columns"), self.name)
        return choose_frame(self._frames, frame, self.name)

    def _check_depth(self) -> tuple[int, int]:
        """BitsStored and the lowest bit of the sample."""
        samples, allocated, bits = (self._integer(k) for k in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
        low_bit = self._integer("HighBit", bits - 1) - bits + 1
        if samples == 1 and self._photometric not in _MONOCHROME:
            raise self._unsupported(f"photometric interpretation '{self._photometric}'")
        if samples not in (1, 3) or (samples == 3 and bits != allocated):
            raise self._unsupported(f"{samples} samples per pixel of {bits} bits")
        if allocated not in (8, 16) or not 1 <= bits <= allocated or not 0 <= low_bit <= allocated - bits:
            raise self._unsupported(f"{bits} bits up to bit {low_bit + bits - 1} of {allocated}")
        return bits, low_bit

    def _check_data(self, index: int) -> tuple[Decoder, int]:
        """Refuse what lacks a codec, is cut short or lies about its size. The decoder; the codestream's bits, or 0."""
        ds, syntax = self.ds, self._syntax
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:  # video, JPIP, JPEG XL, private ones
            raise self._no_codec(syntax, "convert it to Explicit VR Little Endian first") from None
        if decoder.is_native:
            samples = 2 if self._photometric == "YBR_FULL_422" else ds.SamplesPerPixel
            if len(ds.PixelData) < (index + 1) * ds.Rows * ds.Columns * samples * ds.BitsAllocated // 8:
                raise self.truncated()
            return decoder, 0
        if not decoder.is_available:
            raise self._no_codec(syntax, "install one of: " + "; ".join(decoder.missing_dependencies))
        offsets = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if "ExtendedOffsetTable" in ds else None
        codestream = get_frame(ds.PixelData, index, number_of_frames=self._frames, extended_offsets=offsets)
        if syntax == RLELossless:
            return decoder, 0
        if not codestream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
            raise self.truncated()
        height, width, precision = codestream_header(codestream) or (0, 0, 0)
        if (height, width) != (ds.Rows, ds.Columns):  # the codec would believe the codestream: a bomb
            size = f"a codestream of {ds.Columns} x {ds.Rows} pixels, as the header says"
            raise self._error("corrupt", size, f"{width} x {height}", "export the film again")
        return decoder, precision

    # The display transform

    def display(self, pixels: NDArray[Any], bits: int) -> NDArray[np.float32]:
        """The table [2**bits] from bit pattern to displayed brightness, 1 = white."""
        patterns = np.arange(2**bits)
        if self._photometric not in _MONOCHROME:  # colour has no modality LUT and no window
            return (patterns / patterns[-1]).astype(np.float32)
        # PS3.5 section 8.1.1: PixelRepresentation 1 is two's complement
        signed = self._integer("PixelRepresentation") == 1
        stored = np.where(patterns < 2 ** (bits - 1), patterns, patterns - 2**bits) if signed else patterns
        padding = self._padding(stored)
        occurs = cv2.calcHist([pixels], [0], None, [2**bits], [0, 2**bits]).ravel() > 0
        film = occurs & ~padding

        values = self._modality_lut(stored.astype(np.float64))
        shown = self._voi(values, values[film] if len(values) > 256 else values)
        if self._inverted():
            shown = 1 - shown
        shown[padding] = 0
        if not film.any() or np.ptp(shown[film]) < 1e-6:
            raise self._error("constant", "a film", "one brightness for every pixel", "check its pixels and window")
        return shown.astype(np.float32)

    def _padding(self, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
        """PS3.3 C.7.5.1.1.2: the stored values from PixelPaddingValue to PixelPaddingRangeLimit are no film."""
        padding = np.zeros(stored.shape, bool)
        value = self._number("PixelPaddingValue")
        if value is None:
            return padding
        limit = self._number("PixelPaddingRangeLimit")
        low, high = sorted((value, value if limit is None else limit))
        if low > stored.max() >= high - 2**16:  # signed values written with the unsigned VR
            low, high = low - 2**16, high - 2**16
        padding = (stored >= low) & (stored <= high)
        if not padding.any():
            self.codes.append("padding_ignored")
        return padding

    def _modality_lut(self, stored: Values) -> Values:
        """PS3.3 C.11.1: stored values to the modality's units, by a table or a line."""
        if items := self.ds.get("ModalityLUTSequence"):
            return self._lookup(items[0], stored)[0]
        slope, intercept = self._number("RescaleSlope"), self._number("RescaleIntercept")
        if slope == 0:
            self.codes.append("dicom_nonconformant")
            slope = None
        return stored * (1 if slope is None else slope) + (intercept or 0)

    def _voi(self, values: Values, film: Values) -> Values:
        """PS3.3 C.11.2: modality values to [0, 1]. The VOI LUT goes before a window, the first of several is taken.

        Without either, the values `film` are stretched to the full range.
        """
        if items := self.ds.get("VOILUTSequence"):
            shown, top = self._lookup(items[0], values)
            return shown / top
        center, width = self._number("WindowCenter"), self._number("WindowWidth")
        function = self._text("VOILUTFunction") or "LINEAR"
        if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            self.codes.append("dicom_nonconformant")
            function = "LINEAR"
        if center is not None and width is not None:
            if width >= 1 or (width > 0 and function != "LINEAR"):
                return _window(values, center, width, function)
            self.codes.append("bad_window")
        elif len(values) > 256:  # 8 bits are what a screen shows already
            self.codes.append("no_window")
        low, high = (film.min(), film.max()) if film.size else (0.0, 0.0)
        return np.clip((values - low) / (high - low or 1), 0, 1)

    def _lookup(self, item: Dataset, values: Values) -> tuple[Values, int]:
        """PS3.3 C.11.1.1 and C.11.2.1.1: a LUT's entries for the values, and its largest possible entry."""
        count, first, depth = (int(number) for number in item.LUTDescriptor)
        count = count % 2**16 or 2**16
        if first > values.max():  # a negative first value written with the unsigned VR
            first -= 2**16
        entries = _entries(item.LUTData, count, self._syntax.is_little_endian)
        if len(entries) < count:
            raise self._error("corrupt", f"a LUT of {count} entries", str(len(entries)), "export the film again")
        index = np.clip(np.rint(values) - first, 0, count - 1).astype(np.intp)
        # some writers state fewer bits than their entries have
        return entries[index].astype(np.float64), max(2**depth - 1, int(entries.max()))

    def _inverted(self) -> bool:
        """PS3.3 C.7.6.3.1.2: MONOCHROME1 shows the lowest value as white, which takes effect after the VOI step.

        Presentation LUT Shape INVERSE says the same once more (C.11.6): inverted once, never twice.
        """
        inverted = self._photometric == "MONOCHROME1"
        if self._text("PresentationLUTShape") == ("IDENTITY" if inverted else "INVERSE"):
            self.codes.append("polarity_conflict")
        return inverted

    # Elements and errors

    @property
    def _syntax(self) -> UID:
        return UID(self.ds.file_meta.TransferSyntaxUID)

    @property
    def _photometric(self) -> str:
        return self._text("PhotometricInterpretation")

    @property
    def _frames(self) -> int:
        return max(1, self._integer("NumberOfFrames", 1))

    def _first(self, keyword: str) -> Any:
        value = self.ds.get(keyword)
        if isinstance(value, MultiValue):
            value = value[0] if value else None
        return None if value == "" else value

    def _text(self, keyword: str) -> str:
        return str(self._first(keyword) or "").strip().upper()

    def _number(self, keyword: str) -> float | None:
        value = self._first(keyword)
        if value is None:
            return None
        if not np.isfinite(number := float(value)):
            raise self._error("corrupt", f"a number in {keyword}", str(number), "export the film again")
        return number

    def _integer(self, keyword: str, default: int | None = None) -> int:
        number = self._number(keyword)
        if number is None and default is None:
            raise self._error("corrupt", f"the element {keyword}", "none", "export the film again")
        return int(default if number is None else number)  # type: ignore[arg-type]

    def _error(self, reason: str, expected: str, got: str, remedy: str) -> InputError:
        return InputError(reason, f"{self.name}: expected {expected}, got {got}; {remedy}.")

    def _wrong_modality(self, got: str) -> InputError:
        return self._error("wrong_modality", "a projection radiograph (CR, DX, RG)", got, "send the chest film itself")

    def _unsupported(self, got: str) -> InputError:
        expected = "8 or 16 bits allocated, MONOCHROME1, MONOCHROME2, RGB or YBR"
        return self._error("unsupported_pixels", expected, got, "convert the film first")

    def _no_codec(self, syntax: UID, remedy: str) -> InputError:
        return self._error("unsupported_codec", "a transfer syntax with a decoder", f"{syntax.name} ({syntax})", remedy)

    def truncated(self) -> InputError:
        return self._error("truncated", "a whole DICOM file", "one that ends early", "copy or export it again")


def _window(values: Values, center: float, width: float, function: str) -> Values:
    """PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT, with an output of [0, 1]."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _entries(data: Any, count: int, little_endian: bool) -> NDArray[Any]:
    """LUT Data, OW bytes or US numbers: one entry per 16 bits, or two where 8-bit entries are packed."""
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        return np.frombuffer(data, ("<u2" if little_endian else ">u2") if wide else np.uint8)[:count]
    words = np.atleast_1d(np.asarray(data)).astype("<u2")
    return (words if len(words) >= count else words.view(np.uint8))[:count]


def _exceeds(decoded: NDArray[Any], bits: int) -> bool:
    signed = decoded.dtype.kind == "i"
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return bool(decoded.min() < low or decoded.max() > high)
