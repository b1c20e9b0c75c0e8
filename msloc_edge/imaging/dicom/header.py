"""Elements of a DICOM file that a film needs, as plain values: nothing of the patient is held.

A header may be damaged or made to harm: the elements that are read, their lengths, and the items of their sequences
are bounded, and a value goes into an error only where it is a code string or a number.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from msloc_edge.errors import InputError
from msloc_edge.imaging.checks import MAX_PIXELS, captured_warnings
from msloc_edge.types import SourceUids

FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
_ELEMENTS = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"),
    *("SOPClassUID", "Modality", "PresentationIntentType", "BodyPartExamined", "ViewPosition"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
)
_SEQUENCES = ("ModalityLUTSequence", "VOILUTSequence")
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_TAGS: list[Any] = [Tag(k) for k in (*_ELEMENTS, *_SEQUENCES, *_OFFSETS, "PixelData", *FLOAT_PIXELS)]

MAX_READS = 100_000
"""Largest number of times that the file is read from, which is up to three times for an element; one value each."""

MAX_ITEMS = 100
MAX_INFLATION, _FREE_BYTES = 100, 64 << 20
_MAX_BYTES = {"LUTData": 1 << 18, **dict.fromkeys(_OFFSETS, 1 << 20)}
_MAX_VALUE = 1 << 14
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 table 6.2-1, CS


class _Unreadable:
    """Value of an element that does not convert; an error only where it is needed."""


class _BoundedFile(BytesIO):
    """A file that refuses to be read without end."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise _TooMany("more than 30,000 elements")
        return super().read(size)


class _TooMany(ValueError):  # noqa: N818 - never leaves this module
    """More in a header than a film has; the words go into the error."""


@dataclass(frozen=True)
class LUT:
    """Table of a Modality or VOI LUT Sequence item as it is stored: descriptor, and data as bytes or numbers."""

    descriptor: tuple[int, int, int]
    data: Any


@dataclass(frozen=True)
class Header:
    """One DICOM file: its elements by keyword, its pixel data, and the warnings that it has earned so far."""

    name: str
    syntax: UID
    pixel_data: bytes | None
    encapsulated: bool
    has_float_pixels: bool
    values: dict[str, Any]
    luts: dict[str, list[LUT | None]]
    codes: list[str] = field(default_factory=list)

    def text(self, keyword: str) -> str:
        """Read the first value as text, in upper case; "" where there is none."""
        return str(self._first(keyword) or "").strip().upper()

    def uid(self, keyword: str) -> UID:
        """Read the first value as a UID, which need not be a legal one; pydicom would print what it is instead."""
        return UID(self.text(keyword), config.IGNORE)

    def number(self, keyword: str) -> float | None:
        """Read the first value as a number; None where there is none. Raises InputError `corrupt`."""
        value = self._first(keyword)
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            raise self.unreadable(keyword) from None
        if number is not None and not np.isfinite(number):
            raise self.unreadable(keyword)
        return number

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Read the first value as a whole number. Raises InputError `corrupt` where it is missing without default."""
        number = self.number(keyword)
        if number is None and default is None:
            raise self.error("corrupt", f"the element {keyword}", "none", "export the film again")
        return int(default if number is None else number)  # type: ignore[arg-type]

    def _first(self, keyword: str) -> Any:
        value = self.values.get(keyword)
        if isinstance(value, _Unreadable):
            raise self.unreadable(keyword)
        if isinstance(value, MultiValue):
            value = value[0] if value else None
        return None if value == "" else value

    @property
    def uids(self) -> SourceUids | None:
        """Names of the film, its series and its study; None where one is missing or no legal UID."""
        found = [str(self.values.get(f"{level}InstanceUID", "")) for level in ("SOP", "Series", "Study")]
        return SourceUids(*found) if all(UID(uid, config.IGNORE).is_valid for uid in found) else None

    @property
    def photometric(self) -> str:
        return self.text("PhotometricInterpretation")

    @property
    def frames(self) -> int:
        return max(1, self.integer("NumberOfFrames", 1))

    def warn(self, code: str) -> None:
        """Note something unusual that does not stop the film from being read."""
        self.codes.append(code)

    def quoted(self, keyword: str) -> str:
        """Quote a code string; anything else may be a name that a wrong length has brought here."""
        return quote(str(self._first(keyword) or "").strip())

    def error(self, reason: str, expected: str, got: str, remedy: str) -> InputError:
        return InputError(reason, f"{self.name}: expected {expected}, got {got}; {remedy}.")

    def unreadable(self, keyword: str) -> InputError:
        return self.error("corrupt", f"a number in {keyword}", "something else", "export the film again")

    def truncated(self) -> InputError:
        return self.error("truncated", "a whole DICOM file", "one that ends early", "copy or export it again")


def is_code(text: str) -> bool:
    """Tell whether a text is a legal code string (PS3.5 section 6.2)."""
    return bool(_CODE_STRING.fullmatch(text))


def quote(text: str) -> str:
    """Quote a legal code string; anything else is not repeated."""
    return f"'{text}'" if is_code(text) else "of no legal form"


def read_header(data: bytes, name: str) -> Header:
    """Read a file's header. Nothing of the pixels is decoded.

    Raises InputError `truncated`, `corrupt` or `too_large`.
    """
    try:
        with captured_warnings() as caught:
            ds = _parse(data)
            header = _plain(ds, name)
    except Exception as error:
        if (cause := _too_many(error)) is None:
            raise
        raise InputError(
            "too_large", f"{name}: expected the header of a film, got {cause}; export the film again."
        ) from None
    if any("End of file" in str(warning.message) for warning in caught):
        raise header.truncated()
    if any(issubclass(warning.category, UserWarning) for warning in caught):
        header.warn("dicom_nonconformant")
    return header


def _too_many(error: BaseException | None) -> _TooMany | None:
    """Find the bound that was met, which pydicom may have turned into an error of its own."""
    while error is not None and not isinstance(error, _TooMany):
        error = error.__context__
    return error


def _parse(data: bytes) -> Dataset:
    """Data set with a transfer syntax, its values unconverted as far as pydicom leaves them so."""
    if (found := _deflated(data)) is not None:
        meta, start = found
        ds = read_dataset(_BoundedFile(_inflate(data[start:])), False, True, specific_tags=_TAGS)
        ds.file_meta = meta
        return ds
    ds = pydicom.dcmread(_BoundedFile(data), force=True, specific_tags=_TAGS)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def _deflated(data: bytes) -> tuple[FileMetaDataset, int] | None:
    """PS3.5 annex A.5: the file's meta information and the start of the deflated data set; None if not deflated."""
    if data[128:132] != b"DICM":
        return None
    file = _BoundedFile(data)
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    return FileMetaDataset(meta), file.tell()


def _inflate(rest: bytes) -> bytes:
    limit = min(4 * MAX_PIXELS, _FREE_BYTES + MAX_INFLATION * len(rest))
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest, limit + 1)
    if len(inflated) > limit:
        raise _TooMany(f"more than {limit:,} bytes inflated")
    return inflated


def _plain(ds: Dataset, name: str) -> Header:
    values = {keyword: _value(ds, keyword) for keyword in (*_ELEMENTS, *_OFFSETS)}
    pixels = ds.get(Tag("PixelData"))
    return Header(
        name=name,
        syntax=UID(str(ds.file_meta.TransferSyntaxUID)),
        pixel_data=pixels.value or b"" if pixels else None,
        encapsulated=bool(pixels and pixels.is_undefined_length),
        has_float_pixels=any(keyword in ds for keyword in FLOAT_PIXELS),
        values={keyword: value for keyword, value in values.items() if value is not None},
        luts={keyword: _luts(ds, keyword) for keyword in _SEQUENCES if keyword in ds},
    )


def _value(ds: Dataset, keyword: str) -> Any:
    """Convert one element, unless it is longer than any such element is."""
    if keyword not in ds:
        return None
    raw: Any = ds.get_item(keyword)
    if isinstance(raw, RawDataElement) and len(raw.value or b"") > _MAX_BYTES.get(keyword, _MAX_VALUE):
        raise _TooMany(f"{len(raw.value or b''):,} bytes of {keyword}")
    try:
        return ds[keyword].value
    except Exception:  # pydicom's converters raise all kinds of errors
        return _Unreadable()


def _luts(ds: Dataset, keyword: str) -> list[LUT | None]:
    """Tables of a sequence; None for an item without one."""
    raw: Any = ds.get_item(keyword)
    count = sum((raw.value or b"").count(tag) for tag in _ITEM) if isinstance(raw, RawDataElement) else len(raw.value)
    if count > MAX_ITEMS:
        raise _TooMany(f"{count:,} items in {keyword}")
    items: list[Dataset] = list(ds[keyword].value or ())
    return [_lut(item) for item in items]


def _lut(item: Dataset) -> LUT | None:
    descriptor, data = _value(item, "LUTDescriptor"), _value(item, "LUTData")
    try:
        count, first, depth = (int(number) for number in descriptor)
    except (TypeError, ValueError):
        return None
    return None if data is None or isinstance(data, _Unreadable) else LUT((count, first, depth), data)
