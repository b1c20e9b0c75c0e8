"""Display transform of a DICOM film (PS3.3 C.11), folded into one table.

    stored bits -> stored value -> modality LUT -> VOI LUT or window -> polarity -> padding       (docs/dicom.md)

Every step maps the vector of all 2**BitsStored possible values, never the film.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.imaging.dicom.header import LUT, Header
from msloc_edge.imaging.dicom.pixels import MONOCHROME

Values = NDArray[np.float64]


def display_table(header: Header, pixels: NDArray[Any], bits: int) -> NDArray[np.float32]:
    """Fold all steps into the table [2**bits] from bit pattern to displayed brightness, 1 = white.

    Raises InputError `constant` where the film shows one brightness, `corrupt` where the table is not finite.
    """
    patterns = np.arange(2**bits)
    if header.photometric not in MONOCHROME:  # colour has no modality LUT and no window
        return (patterns / patterns[-1]).astype(np.float32)
    # PS3.5 section 8.1.1: PixelRepresentation 1 is two's complement
    signed = header.integer("PixelRepresentation") == 1
    stored = np.where(patterns < 2 ** (bits - 1), patterns, patterns - 2**bits) if signed else patterns
    padding = _padding(header, stored)
    occurs = cv2.calcHist([pixels], [0], None, [2**bits], [0, 2**bits]).ravel() > 0
    film = occurs & ~padding

    with np.errstate(all="ignore"):  # what is not finite is told below
        values = _modality_lut(header, stored.astype(np.float64))
        shown = _voi(header, values, values[film] if len(values) > 256 else values)
    if not np.isfinite(shown).all():
        wanted = "slope, intercept and window of a film"
        raise header.error("corrupt", wanted, "such that brightness is no number", "export the film again")
    if _inverted(header):
        shown = 1 - shown
    shown[padding] = 0
    if not film.any() or np.ptp(shown[film]) < 1e-6:
        raise header.error("constant", "a film", "one brightness for every pixel", "check its pixels and window")
    return shown.astype(np.float32)


def _padding(header: Header, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """PS3.3 C.7.5.1.1.2: the stored values from PixelPaddingValue to PixelPaddingRangeLimit are no film."""
    padding = np.zeros(stored.shape, bool)
    value = header.number("PixelPaddingValue")
    if value is None:
        return padding
    limit = header.number("PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    if low > stored.max() >= high - 2**16:  # signed values written with the unsigned VR
        low, high = low - 2**16, high - 2**16
    padding = (stored >= low) & (stored <= high)
    if not padding.any():
        header.warn("padding_ignored")
    return padding


def _modality_lut(header: Header, stored: Values) -> Values:
    """PS3.3 C.11.1: stored values to the modality's units, by a table or a line."""
    if luts := header.luts.get("ModalityLUTSequence"):
        if luts[0] is None:
            raise header.error("corrupt", "a table in ModalityLUTSequence", "none", "export the film again")
        return _lookup(header, luts[0], stored)[0]
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope == 0:
        header.warn("dicom_nonconformant")
        slope = None
    return stored * (1 if slope is None else slope) + (intercept or 0)


def _voi(header: Header, values: Values, film: Values) -> Values:
    """PS3.3 C.11.2: modality values to [0, 1]. The VOI LUT goes before a window, the first of several is taken.

    Without either, the values `film` are stretched to the full range.
    """
    luts = header.luts.get("VOILUTSequence", [])
    if None in luts:
        header.warn("dicom_nonconformant")
    if lut := next((lut for lut in luts if lut), None):
        shown, top = _lookup(header, lut, values)
        return shown / top
    center, width = header.number("WindowCenter"), header.number("WindowWidth")
    function = header.text("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        header.warn("dicom_nonconformant")
        function = "LINEAR"
    if center is not None and width is not None:
        if width >= 1 or (width > 0 and function != "LINEAR"):
            return window(values, center, width, function)
        header.warn("bad_window")
    elif len(values) > 256:  # 8 bits are what a screen shows already
        header.warn("no_window")
    low, high = (film.min(), film.max()) if film.size else (0.0, 0.0)
    return np.clip((values - low) / (high - low or 1), 0, 1)


def window(values: Values, center: float, width: float, function: str) -> Values:
    """Window values to [0, 1]; `function` is that of VOI LUT Function.

    PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT:

    >>> window(np.array([0.0, 50.0, 100.0, 200.0]), 100, 200, "LINEAR_EXACT").tolist()
    [0.0, 0.25, 0.5, 1.0]
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _lookup(header: Header, lut: LUT, values: Values) -> tuple[Values, int]:
    """PS3.3 C.11.1.1 and C.11.2.1.1: a LUT's entries for the values, and the largest that its bits can hold.

    The descriptor of an image can say 8 or 16 bits alone, so that tables of 10 or 12 bits say 16; some say fewer than
    their entries have. The entries themselves tell.
    """
    count, first, _ = lut.descriptor
    count = count % 2**16 or 2**16
    entries = _entries(lut.data, count, header.syntax.is_little_endian)
    if len(entries) < count:
        raise header.error("corrupt", f"a LUT of {count} entries", str(len(entries)), "export the film again")
    index = np.clip(np.rint(values) - _first_mapped(first, count, values), 0, count - 1).astype(np.intp)
    bits = max(8, int(entries.max()).bit_length())
    return entries[index].astype(np.float64), 2**bits - 1


def _first_mapped(first: int, count: int, values: Values) -> int:
    """First mapped value, whose VR may have the wrong sign: of both readings, the one that maps more of the values."""

    def mapped(start: int) -> float:
        return min(start + count, values.max() + 1) - max(start, values.min())

    return max((first, first - 2**16 if first > 0 else first + 2**16), key=mapped)


def _entries(data: Any, count: int, little_endian: bool) -> NDArray[Any]:
    """LUT Data, OW bytes or US numbers: one entry per 16 bits, or two where 8-bit entries are packed."""
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        return np.frombuffer(data, ("<u2" if little_endian else ">u2") if wide else np.uint8)[:count]
    words = np.atleast_1d(np.asarray(data)).astype("<u2")
    return (words if len(words) >= count else words.view(np.uint8))[:count]


def _inverted(header: Header) -> bool:
    """PS3.3 C.7.6.3.1.2: MONOCHROME1 shows the lowest value as white, which takes effect after the VOI step.

    Presentation LUT Shape INVERSE says the same once more (C.11.6): inverted once, never twice.
    """
    inverted = header.photometric == "MONOCHROME1"
    if header.text("PresentationLUTShape") == ("IDENTITY" if inverted else "INVERSE"):
        header.warn("polarity_conflict")
    return inverted
