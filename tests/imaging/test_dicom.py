"""DICOM to Frame: every step of the display transform against values worked by hand from PS3.3 and PS3.5."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from msloc_edge.errors import InputError
from msloc_edge.imaging import decoder
from msloc_edge.imaging.dicom import header
from msloc_edge.imaging.dicom.display import window
from msloc_edge.imaging.reading import decode_frame, read_frame
from msloc_edge.types import Frame

DX = "1.2.840.10008.5.1.4.1.1.1.1"
SIDE = 32
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)


def dataset(pixels: np.ndarray, bits: int, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A DX image of these cells; `elements` are set last, None removes one."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = DX, "1.2.3", "DX"
    ds.PatientName, ds.PatientID = "Secret^Name", "SECRET-ID"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def to_bytes(ds: Dataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():  # the writer objects to what some tests write on purpose
        warnings.simplefilter("ignore")
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(ds: Dataset, frame: int | None = None) -> Frame:
    return decode_frame(to_bytes(ds), "film", frame=frame)


def film(bits: int, signed: bool = False, **elements: Any) -> Dataset:
    """A film that holds every stored value from the lowest up, or 1024 evenly spaced ones."""
    count = min(2**bits, SIDE * SIDE)
    values = (RAMP % count) * (2**bits // count) - (2 ** (bits - 1) if signed else 0)
    dtype = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return dataset(values.astype(dtype), bits, **elements)


def lut_item(first: int, bits: int, entries: list[int] | bytes, count: int | None = None) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [(len(entries) if count is None else count) % 2**16, first, bits]
    item.add_new("LUTData", "OW" if isinstance(entries, bytes) else "US", entries)
    return item


def value_of(lut: np.ndarray, value: int) -> float:
    """What a stored value, perhaps negative, displays as."""
    return float(lut[value % len(lut)])


def reason_of(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert "film" in error.value.message
    assert "SECRET" not in error.value.message.upper()
    return error.value.reason


# The stored pixels: PS3.5 section 8


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_depth_and_sign(bits: int, signed: bool, syntax: str) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    cells = np.full((SIDE, SIDE), low, f"{'i' if signed else 'u'}2")
    cells[0, :4] = low, low + 1, high - 1, high
    frame = read(dataset(cells, bits, syntax, WindowCenter=(low + high + 1) / 2, WindowWidth=high - low + 1))

    assert frame.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert frame.pixels.dtype.isnative
    assert frame.pixels[0, :4].tolist() == [v % 2**bits for v in (low, low + 1, high - 1, high)]
    assert frame.lut.shape == (2**bits,)
    assert frame.lut.dtype == np.float32
    # LINEAR over the whole range: (x - (c - 0.5)) / (w - 1) + 0.5 = (x - low) / (high - low)
    steps = high - low
    assert frame.display()[0, :4].tolist() == pytest.approx([0, 1 / steps, 1 - 1 / steps, 1], abs=1e-6)
    assert frame.warnings == ()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_eight_bits_allocated_signed(syntax: str) -> None:
    frame = read(film(8, signed=True, syntax=syntax))
    assert frame.pixels[0, 0] == 0x80
    assert [value_of(frame.lut, v) for v in (-128, 0, 127)] == pytest.approx([0, 128 / 255, 1])


def test_overlay_bits_above_the_sample_are_masked() -> None:
    cells = (RAMP | np.where(RAMP % 3 == 0, 0xF000, 0)).astype(np.uint16)
    frame = read(dataset(cells, 12, WindowCenter=512, WindowWidth=1024))
    assert (frame.pixels == RAMP).all()
    assert frame.lut.shape == (4096,)


def test_negative_sample_below_overlay_bits() -> None:
    cells = np.zeros((SIDE, SIDE), np.uint16)
    cells[0, 0] = 0x3FFF  # 12 bits 0xFFF = -1, under two overlay bits
    ds = dataset(cells, 12, PixelRepresentation=1, WindowCenter=0, WindowWidth=3)
    frame = read(ds)
    assert frame.pixels[0, 0] == 0xFFF
    # LINEAR c=0 w=3: (x + 0.5) / 2 + 0.5
    assert frame.display()[0, :2].tolist() == pytest.approx([0.25, 0.75])


def test_high_bit_above_the_stored_bits() -> None:
    cells = ((RAMP << 4) | 0b1010).astype(np.uint16)  # the sample in bits 15..4, rubbish below it
    frame = read(dataset(cells, 12, HighBit=15, WindowCenter=512, WindowWidth=1024))
    assert (frame.pixels == RAMP).all()


@pytest.mark.parametrize(("bits", "high_bit"), [(12, 15), (10, 15), (12, 13), (10, 12)])
def test_high_bit_above_the_stored_bits_in_rle(bits: int, high_bit: int) -> None:
    """PS3.5 annex G keeps whole cells, with what is beside the sample."""
    cells = ((RAMP % 2**bits) << (high_bit - bits + 1) | 1).astype(np.uint16)
    ds = dataset(cells, bits, HighBit=high_bit)
    native = read(ds)
    ds.compress(RLELossless)
    frame = read(ds)
    assert (frame.pixels == RAMP % 2**bits).all()
    assert (frame.pixels == native.pixels).all()
    assert (frame.lut == native.lut).all()


def test_eight_bits_stored_in_sixteen() -> None:
    frame = read(dataset((RAMP % 256).astype(np.uint16), 8))
    assert frame.pixels.dtype == np.uint8
    assert (frame.pixels == RAMP % 256).all()
    assert frame.lut.tolist() == pytest.approx((np.arange(256) / 255).tolist())


# Modality LUT: PS3.3 C.11.1


def test_rescale_slope_and_intercept() -> None:
    frame = read(film(12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=0.5, WindowWidth=2001))
    # 2 x - 1000 in LINEAR c=0.5 w=2001 = v / 2000 + 0.5: x = 0 -> 0, 500 -> 0.5, 750 -> 0.75, 1000 -> 1
    assert frame.lut[[0, 500, 750, 1000, 4095]].tolist() == pytest.approx([0, 0.5, 0.75, 1, 1])


def test_negative_slope_turns_the_film_over() -> None:
    frame = read(film(12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096))
    assert frame.lut[[0, 4095]].tolist() == [1, 0]


def test_modality_lut_sequence() -> None:
    table = lut_item(10, 16, [100, 200, 400])
    frame = read(film(12, ModalityLUTSequence=[table], WindowCenter=250.5, WindowWidth=301))
    # below 10: the first entry, 100; 10, 11, 12: 100, 200, 400; above: the last. LINEAR: (v - 100) / 300
    assert frame.lut[[0, 10, 11, 12, 4095]].tolist() == pytest.approx([0, 0, 1 / 3, 1, 1])


def test_modality_lut_with_a_negative_first_value() -> None:
    table = lut_item(-2, 12, [0, 1000, 2000, 3000])
    frame = read(film(12, signed=True, ModalityLUTSequence=[table], WindowCenter=1500.5, WindowWidth=3001))
    assert [value_of(frame.lut, v) for v in (-2048, -2, -1, 0, 1, 2047)] == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


# VOI LUT and windows: PS3.3 C.11.2


@pytest.mark.parametrize(
    ("function", "center", "width", "expected"),
    [
        # (x - 99.5) / 199 + 0.5, clipped: x <= 0 black, x > 199 white
        ("LINEAR", 100, 200, {0: 0, 50: 50 / 199, 100: 100 / 199, 199: 1, 200: 1}),
        # (x - 100) / 200 + 0.5
        ("LINEAR_EXACT", 100, 200, {0: 0, 50: 0.25, 100: 0.5, 200: 1, 300: 1}),
        # 1 / (1 + exp(-4 (x - 100) / 200))
        ("SIGMOID", 100, 200, {0: 0.1192029, 50: 0.2689414, 100: 0.5, 200: 0.8807971}),
        # width 1: x <= 99.5 black, else white
        ("LINEAR", 100, 1, {99: 0, 100: 1}),
        ("LINEAR_EXACT", 100, 0.5, {99: 0, 100: 0.5, 101: 1}),
    ],
)
def test_windows(function: str, center: float, width: float, expected: dict[int, float]) -> None:
    lut = read(film(12, VOILUTFunction=function, WindowCenter=center, WindowWidth=width)).lut
    assert lut[list(expected)].tolist() == pytest.approx(list(expected.values()), abs=1e-6)


@settings(deadline=None)
@given(
    center=st.floats(-3000, 3000),
    width=st.floats(1, 5000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_agree_with_pydicom(center: float, width: float, function: str) -> None:
    ds = Dataset()
    ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation = "MONOCHROME2", 12, 1
    ds.VOILUTFunction = function
    ds.WindowCenter, ds.WindowWidth = round(center, 3), round(width, 3)
    values = np.arange(-2048, 2048)
    with np.errstate(over="ignore"):
        expected = (apply_windowing(values, ds) + 2048) / 4095
    ours = window(values.astype(float), float(ds.WindowCenter), float(ds.WindowWidth), function)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_the_first_of_several_windows() -> None:
    lut = read(film(12, WindowCenter=[100.5, 2000], WindowWidth=[201, 4000])).lut
    assert lut[[0, 100, 200]].tolist() == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    "item",
    [
        lut_item(100, 8, [0, 51, 255]),
        lut_item(100, 8, bytes([0, 0, 51, 0, 255, 0]), count=3),  # OW, one entry a word
        lut_item(100, 8, bytes([0, 51, 255, 0]), count=3),  # OW, 8-bit entries packed
        lut_item(100, 8, [0 | 51 << 8, 255], count=3),  # the same as US
        lut_item(100, 16, [0, 13107, 65535]),
    ],
)
def test_voi_lut_sequence(item: Dataset) -> None:
    frame = read(film(12, VOILUTSequence=[item]))
    assert frame.lut[[0, 100, 101, 102, 4095]].tolist() == pytest.approx([0, 0, 0.2, 1, 1])
    assert frame.warnings == ()


def test_voi_lut_goes_before_a_window() -> None:
    frame = read(film(12, VOILUTSequence=[lut_item(0, 8, [0, 255])], WindowCenter=2048, WindowWidth=4096))
    assert frame.lut[[0, 1, 2]].tolist() == [0, 1, 1]


def test_voi_lut_of_8_bits_with_more_than_256_entries() -> None:
    entries = (np.arange(4096) // 16).tolist()
    frame = read(film(12, VOILUTSequence=[lut_item(0, 8, entries)]))
    assert frame.lut[[0, 1600, 4095]].tolist() == pytest.approx([0, 100 / 255, 1])


def test_voi_lut_of_65536_entries_and_a_negative_first_value_in_the_unsigned_form() -> None:
    item = lut_item(-1024 % 65536, 16, list(range(65536)))
    assert item.LUTDescriptor[0] == 0
    frame = read(film(12, VOILUTSequence=[item], RescaleSlope=1, RescaleIntercept=-1024))
    assert frame.lut[[0, 4095]].tolist() == pytest.approx([0, 4095 / 65535])


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("inverted", [False, True])
def test_voi_lut_of_fewer_bits_than_the_descriptor_can_say(bits: int, inverted: bool) -> None:
    """The descriptor of an image says 8 or 16 bits alone: the table tells what its full range is."""
    ds = film(12, VOILUTSequence=[lut_item(0, 16, [0, 2 ** (bits - 2), 2**bits - 1])])
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    shown = [0, 2 ** (bits - 2) / (2**bits - 1), 1]
    assert read(ds).lut[:3].tolist() == pytest.approx([1 - s for s in shown] if inverted else shown)


@pytest.mark.parametrize("first", [40000, 40000 - 65536])
def test_first_mapped_value_of_the_unsigned_values_in_the_signed_form(first: int) -> None:
    """PS3.3 C.11.2.1.1: its sign is that of Pixel Representation, whatever its VR."""
    cells = (40000 + RAMP).astype(np.uint16)
    item = lut_item(0, 16, (np.arange(1024) * 64).tolist())
    item.add_new("LUTDescriptor", "US" if first > 0 else "SS", [1024, first, 16])
    frame = read(dataset(cells, 16, VOILUTSequence=[item]))
    assert frame.lut[[0, 40000, 41023, 65535]].tolist() == pytest.approx([0, 0, 1023 * 64 / 65535, 1023 * 64 / 65535])


def test_first_mapped_value_above_signed_pixels_after_a_modality_lut() -> None:
    """Implicit VR, where pydicom takes the sign of the pixels; a Modality LUT gives unsigned values (C.11.1.1)."""
    modality = lut_item(-2048, 16, (32768 + np.arange(4096)).tolist())
    voi = lut_item(0, 16, np.arange(4096).tolist())
    voi.add_new("LUTDescriptor", "US", [4096, 32768, 16])
    elements = {"ModalityLUTSequence": [modality], "VOILUTSequence": [voi]}
    explicit = read(film(12, signed=True, **elements))
    implicit = read(film(12, signed=True, syntax=ImplicitVRLittleEndian, **elements))
    assert (explicit.lut == implicit.lut).all()
    assert [value_of(implicit.lut, v) for v in (-2048, 0, 2047)] == pytest.approx([0, 2048 / 4095, 1])


@pytest.mark.parametrize("second", [None, lut_item(0, 8, [0, 255])])
def test_voi_item_without_a_table(second: Dataset | None) -> None:
    explanation = Dataset()
    explanation.LUTExplanation = "NORMAL"
    items = [explanation] if second is None else [explanation, second]
    frame = read(film(12, VOILUTSequence=items, WindowCenter=2048, WindowWidth=4096))
    assert frame.lut[1] == pytest.approx(1 / 4095 if second is None else 1)
    assert frame.warnings == ("dicom_nonconformant",)


def test_modality_item_without_a_table_is_corrupt() -> None:
    item = Dataset()
    item.LUTExplanation = "UNITS"
    assert reason_of(lambda: read(film(12, ModalityLUTSequence=[item]))) == "corrupt"


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "1e308", "RescaleIntercept": "0"},  # to infinity, without a window
        {"RescaleSlope": "1e308", "RescaleIntercept": "0", "WindowCenter": "1e308", "WindowWidth": "1e308"},
        {"RescaleSlope": "-1e308", "WindowCenter": "1e308", "WindowWidth": "1e308", "VOILUTFunction": "SIGMOID"},
    ],
)
def test_a_display_that_is_no_number_is_never_shown(elements: dict[str, str]) -> None:
    try:
        frame = read(film(12, **elements))
    except InputError as error:
        frame = error
    assert frame.reason in ("corrupt", "constant") if isinstance(frame, InputError) else np.isfinite(frame.lut).all()


def test_an_infinite_range_is_corrupt() -> None:
    assert reason_of(lambda: read(film(12, RescaleSlope="1e308", RescaleIntercept="0"))) == "corrupt"


def test_short_lut_is_corrupt() -> None:
    assert reason_of(lambda: read(film(12, VOILUTSequence=[lut_item(0, 16, [0, 9], count=300)]))) == "corrupt"


def test_no_window_stretches_the_values_that_occur() -> None:
    cells = (1000 + RAMP).astype(np.uint16)
    frame = read(dataset(cells, 16))
    assert frame.warnings == ("no_window",)
    assert frame.lut[[0, 1000, 2023, 65535]].tolist() == [0, 0, 1, 1]


def test_no_window_of_signed_values() -> None:
    cells = (RAMP - 100).astype(np.int16)
    frame = read(dataset(cells, 16))
    assert [value_of(frame.lut, v) for v in (-200, -100, 923)] == [0, 0, 1]


def test_no_window_at_8_bits_is_the_full_range() -> None:
    frame = read(dataset((50 + RAMP % 100).astype(np.uint8), 8))
    assert frame.warnings == ()
    assert frame.lut[[0, 51, 255]].tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize(("width", "function"), [(0, "LINEAR"), (0.5, "LINEAR"), (-5, "SIGMOID"), (0, "LINEAR_EXACT")])
def test_impossible_window(width: float, function: str) -> None:
    frame = read(film(12, WindowCenter=5, WindowWidth=width, VOILUTFunction=function))
    assert frame.warnings == ("bad_window",)
    assert frame.lut[4092] == 1


def test_unknown_window_function_is_linear() -> None:
    frame = read(film(12, WindowCenter=100.5, WindowWidth=201, VOILUTFunction="LINEARISH"))
    assert frame.lut[[0, 100, 200]].tolist() == pytest.approx([0, 0.5, 1])
    assert frame.warnings == ("dicom_nonconformant",)


def test_slope_of_zero_is_ignored() -> None:
    frame = read(film(12, RescaleSlope=0, RescaleIntercept=0, WindowCenter=100.5, WindowWidth=201))
    assert frame.lut[[0, 100, 200]].tolist() == pytest.approx([0, 0.5, 1])
    assert frame.warnings == ("dicom_nonconformant",)


# Polarity


def test_monochrome1_is_inverted_after_the_window() -> None:
    lut = read(film(12, PhotometricInterpretation="MONOCHROME1", WindowCenter=100.5, WindowWidth=201)).lut
    assert lut[[0, 50, 100, 200, 4095]].tolist() == pytest.approx([1, 0.75, 0.5, 0, 0])


@pytest.mark.parametrize(
    ("photometric", "shape", "first", "codes"),
    [
        ("MONOCHROME2", "IDENTITY", 0, ()),
        ("MONOCHROME1", "INVERSE", 1, ()),
        ("MONOCHROME2", "INVERSE", 0, ("polarity_conflict",)),
        ("MONOCHROME1", "IDENTITY", 1, ("polarity_conflict",)),
    ],
)
def test_presentation_lut_shape_never_inverts_twice(
    photometric: str, shape: str, first: int, codes: tuple[str, ...]
) -> None:
    frame = read(film(8, PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    assert frame.lut[0] == first
    assert frame.warnings == codes


@settings(deadline=None)
@given(
    bits=st.integers(2, 16),
    signed=st.booleans(),
    slope=st.floats(0.01, 100),
    intercept=st.floats(-5000, 5000),
    center=st.floats(-2000, 2000),
    width=st.floats(1, 5000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_lut_is_monotone_and_monochrome1_is_its_negative(
    bits: int, signed: bool, slope: float, intercept: float, center: float, width: float, function: str
) -> None:
    ds = film(bits, signed, RescaleSlope=f"{slope:.6g}", RescaleIntercept=f"{intercept:.6g}", VOILUTFunction=function)
    ds.WindowCenter, ds.WindowWidth = f"{center:.6g}", f"{width:.6g}"

    def table(photometric: str) -> np.ndarray:
        ds.PhotometricInterpretation = photometric
        try:
            lut = read(ds).lut
        except InputError:  # the window misses the film
            return np.zeros(2**bits)
        assert lut.min() >= 0
        assert lut.max() <= 1
        return np.roll(lut, 2 ** (bits - 1)) if signed else lut

    plain, inverted = table("MONOCHROME2"), table("MONOCHROME1")
    assert (np.diff(plain) >= 0).all()
    if plain.any() and inverted.any():
        np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


# Padding: PS3.3 C.7.5.1.1.2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_part_of_the_statistics(photometric: str) -> None:
    cells = (1000 + RAMP).astype(np.uint16)
    cells[0] = 4095
    frame = read(dataset(cells, 12, PhotometricInterpretation=photometric, PixelPaddingValue=4095))
    assert (frame.display()[0] == 0).all()
    ends = frame.lut[[1032, 2023]].tolist()
    assert ends == ([1, 0] if photometric == "MONOCHROME1" else [0, 1])


def test_padding_range_either_way_round() -> None:
    for value, limit in ((0, 9), (9, 0)):
        frame = read(film(8, PixelPaddingValue=value, PixelPaddingRangeLimit=limit))
        assert frame.lut[[0, 9]].tolist() == [0, 0]
        assert frame.lut[10] == pytest.approx(10 / 255)


def test_signed_padding() -> None:
    cells = (RAMP - 500).astype(np.int16)
    cells[0] = -2000
    ds = dataset(cells, 16, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2000)
    lut = read(ds).lut
    assert [value_of(lut, v) for v in (-2000, -468, 523)] == [0, 1, 0]
    unsigned_vr = dataset(cells, 16, PhotometricInterpretation="MONOCHROME1")
    unsigned_vr.add_new("PixelPaddingValue", "US", 63536)
    assert (read(unsigned_vr).lut == lut).all()


def test_padding_outside_the_stored_range_is_ignored() -> None:
    frame = read(film(12, PixelPaddingValue=65535, WindowCenter=2048, WindowWidth=4096))
    assert frame.warnings == ("padding_ignored",)
    assert frame.lut[4095] == 1


def test_film_of_padding_alone() -> None:
    cells = np.full((SIDE, SIDE), 7, np.uint8)
    assert reason_of(lambda: read(dataset(cells, 8, PixelPaddingValue=7))) == "constant"


# Transfer syntaxes


def test_rle() -> None:
    ds = film(12, signed=True, WindowCenter=0, WindowWidth=4096)
    plain = read(ds)
    ds.compress(RLELossless)
    frame = read(ds)
    assert (frame.pixels == plain.pixels).all()
    assert (frame.lut == plain.lut).all()


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000(bits: int, signed: bool) -> None:
    ds = film(bits, signed, WindowCenter=0, WindowWidth=4096)
    plain = read(ds)
    ds.compress(JPEG2000Lossless)
    assert (read(ds).pixels == plain.pixels).all()


def test_jpeg_2000_of_more_bits_than_the_header_admits() -> None:
    ds = film(16, WindowCenter=2**15, WindowWidth=2**16)
    ds.compress(JPEG2000Lossless)
    ds.BitsStored, ds.HighBit = 12, 11
    frame = read(ds)
    assert frame.lut.shape == (65536,)
    assert frame.pixels.max() == 65535 // 64 * 64
    assert frame.warnings == ("dicom_nonconformant",)


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def encapsulated(codestreams: list[bytes], syntax: str, pixels: np.ndarray, **elements: Any) -> Dataset:
    ds = dataset(pixels, 8, syntax, **elements)
    ds.PixelData = encapsulate(codestreams)
    ds["PixelData"].is_undefined_length = True
    return ds


def test_jpeg_baseline() -> None:
    pixels = (RAMP // 4).astype(np.uint8)
    frame = read(encapsulated([jpeg(pixels)], JPEGBaseline8Bit, pixels))
    assert np.abs(frame.pixels.astype(int) - pixels).max() <= 3


def test_jpeg_of_8_bits_for_cells_of_16() -> None:
    """PS3.5 section 8.2.1 allows 16 bits allocated around a lossless JPEG of 8."""
    pixels = (RAMP % 256).astype(np.uint16)
    stream = imagecodecs.jpeg8_encode(pixels.astype(np.uint8), lossless=True, predictor=1)
    ds = encapsulated([stream], JPEGLosslessSV1, pixels)
    assert ds.BitsAllocated == 16
    assert (read(ds).pixels == pixels).all()


@pytest.mark.parametrize("colour", [False, True])
def test_the_codestream_tells_how_many_components_there_are(colour: bool) -> None:
    """PS3.5 section 8.2.1: where header and codestream differ, the codestream controls the decoding."""
    grey = (RAMP // 4).astype(np.uint8)
    stream = jpeg(np.dstack([grey] * 3) if colour else grey)
    elements = {} if colour else {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    frame = read(encapsulated([stream], JPEGBaseline8Bit, grey, **elements))
    assert np.abs(frame.pixels.astype(int) - grey).max() <= 3
    assert "dicom_nonconformant" in frame.warnings
    assert frame.lut[255] == 1


def test_jpeg_in_a_native_transfer_syntax() -> None:
    pixels = (RAMP // 4).astype(np.uint8)
    ds = encapsulated([jpeg(pixels)], JPEGBaseline8Bit, pixels)
    data = to_bytes(ds).replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.1\0\0\0")
    frame = decode_frame(data, "film")
    assert np.abs(frame.pixels.astype(int) - pixels).max() <= 3
    assert frame.warnings == ("dicom_nonconformant",)


def test_jpeg_2000_in_a_jpeg_syntax() -> None:
    pixels = (RAMP // 4).astype(np.uint8)
    stream = imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat="j2k")
    frame = read(encapsulated([stream], JPEGBaseline8Bit, pixels))
    assert (frame.pixels == pixels).all()
    assert frame.warnings == ("dicom_nonconformant",)


def test_a_single_frame_is_all_fragments_whatever_the_offset_table_says() -> None:
    pixels = (RAMP // 4).astype(np.uint8)
    stream = jpeg(pixels)
    ds = encapsulated([stream], JPEGBaseline8Bit, pixels)
    middle = len(stream) // 2
    fragments = [struct.pack("<I", 1234), stream[:middle], stream[middle:]]
    ds.PixelData = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(f)) + f for f in fragments)
    assert np.abs(read(ds).pixels.astype(int) - pixels).max() <= 3


def shipped(name: str, **elements: Any) -> Dataset:
    """One of pydicom's own files, as if it were a DX film."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom does not ship {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(str(path))
        ds.Modality, ds.SOPClassUID = "DX", DX
        ds.file_meta.MediaStorageSOPClassUID = DX
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_lossless_files_agree_with_the_plain_one(name: str) -> None:
    plain = read(shipped("MR_small.dcm"))
    frame = read(shipped(name))
    assert (frame.pixels == plain.pixels).all()
    assert (frame.lut == plain.lut).all()


@pytest.mark.parametrize(
    "name",
    [
        "JPGExtended.dcm",  # JPEG extended, 12 of 16 bits
        "JPEG2000.dcm",  # lossy, signed
        "693_J2KI.dcm",  # 14 bits stored in a codestream of other precision
        "J2K_pixelrep_mismatch.dcm",  # signed pixels in an unsigned codestream
    ],
)
def test_lossy_files_agree_with_pydicom(name: str) -> None:
    ds = shipped(name)
    frame = read(ds)
    bits, values = int(np.log2(len(frame.lut))), frame.pixels.astype(int)
    if ds.PixelRepresentation:
        values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    difference = 1 if name.startswith("JPG") else 0  # libraries may round the cosine transform either way
    assert np.abs(values - ds.pixel_array).max() <= difference


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm"])
def test_colour_becomes_luma(name: str) -> None:
    ds = shipped(name)
    frame = read(ds)
    assert "colour_converted" in frame.warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rgb = pydicom.pixels.pixel_array(ds)
    assert np.abs(frame.pixels - rgb @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert frame.lut.tolist() == pytest.approx((np.arange(256) / 255).tolist())


def test_deflated() -> None:
    ds = film(12, WindowCenter=2048, WindowWidth=4096)
    plain = read(ds)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert (read(ds).pixels == plain.pixels).all()


def test_deflated_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = film(12)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    read(ds)
    monkeypatch.setattr(header, "MAX_PIXELS", 100)
    assert reason_of(lambda: read(ds)) == "too_large"


@pytest.mark.parametrize(
    ("implicit", "little"),
    [(True, True), (False, True), (False, False)],
)
def test_without_preamble_and_meta(implicit: bool, little: bool) -> None:
    cells = RAMP.astype("<u2" if little else ">u2")
    ds = dataset(RAMP.astype(np.uint16), 12, WindowCenter=512, WindowWidth=1024)
    ds.PixelData = cells.tobytes()
    del ds.file_meta
    buffer = BytesIO()
    ds.save_as(buffer, implicit_vr=implicit, little_endian=little)
    frame = decode_frame(buffer.getvalue(), "film")
    assert (frame.pixels == RAMP).all()


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.94", "1.2.3.4"],  # MPEG2, JPEG XL, JPIP
)
def test_transfer_syntax_without_a_decoder(syntax: str) -> None:
    ds = encapsulated([b"\0\0"], syntax, RAMP.astype(np.uint8))
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = DX, "1.2.3"
    buffer = BytesIO(b"\0" * 128 + b"DICM")
    buffer.seek(132)
    pydicom.filewriter.write_file_meta_info(buffer, ds.file_meta)
    del ds.file_meta
    ds.save_as(body := BytesIO(), implicit_vr=False, little_endian=True)
    data = buffer.getvalue() + body.getvalue()
    with pytest.raises(InputError, match="convert it") as error:
        decode_frame(data, "film")
    assert error.value.reason == "unsupported_codec"
    assert syntax in error.value.message


def test_codec_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = film(12, WindowCenter=2048, WindowWidth=4096)
    ds.compress(JPEG2000Lossless)
    monkeypatch.setattr(decoder, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"JPEG 2000 .*pip install 'msloc-edge\[dicom\]'") as error:
        read(ds)
    assert error.value.reason == "unsupported_codec"


# Several frames


def several(count: int, **elements: Any) -> Dataset:
    stack = np.concatenate([(RAMP + i).astype(np.uint16) for i in range(count)])
    return dataset(stack, 12, Rows=SIDE, NumberOfFrames=count, WindowCenter=512, WindowWidth=1024, **elements)


def test_several_frames() -> None:
    with pytest.raises(InputError, match="5 frames; choose one with --frame N, N = 1 to 5") as error:
        read(several(5))
    assert error.value.reason == "multi_frame"
    for number in (1, 3, 5):
        assert (read(several(5), frame=number).pixels == RAMP + number - 1).all()
    for number in (0, 6, -1):
        assert reason_of(lambda n=number: read(several(5), frame=n)) == "option_invalid"
    assert reason_of(lambda: read(several(1), frame=2)) == "option_invalid"
    assert (read(several(1), frame=1).pixels == RAMP).all()


def test_several_compressed_frames() -> None:
    ds = several(3)
    ds.compress(RLELossless)
    assert (read(ds, frame=3).pixels == RAMP + 2).all()
    flat = [(RAMP // 4).astype(np.uint8), (255 - RAMP // 4).astype(np.uint8)]
    ds = encapsulated([jpeg(f) for f in flat], JPEGBaseline8Bit, flat[0], NumberOfFrames=2)
    assert np.abs(read(ds, frame=2).pixels.astype(int) - flat[1]).max() <= 3


# What it is


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "XA", "RF", "MG", "SR", "NM", "ECG"])
def test_other_modalities_are_refused(modality: str) -> None:
    assert reason_of(lambda: read(film(8, Modality=modality))) == "wrong_modality"


@pytest.mark.parametrize(
    "sop", ["1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.1.3.10"]
)
def test_classes_without_pixels_are_refused(sop: str) -> None:  # PDF, structured report, DICOMDIR
    assert reason_of(lambda: read(film(8, SOPClassUID=sop))) == "wrong_modality"


@pytest.mark.parametrize(
    ("elements", "codes"),
    [
        ({"Modality": "CR"}, ()),
        ({"Modality": "RG"}, ()),
        ({"Modality": None}, ("modality_missing",)),
        ({"Modality": ""}, ("modality_missing",)),
        ({"Modality": "OT"}, ("modality_missing",)),
        ({"PresentationIntentType": "FOR PROCESSING"}, ("for_processing",)),
        ({"SOPClassUID": DX + ".1"}, ("for_processing",)),
        ({"ViewPosition": "PA", "BodyPartExamined": "CHEST"}, ()),
        ({"ViewPosition": "LL"}, ("not_frontal",)),
        ({"ViewPosition": "LATERAL"}, ("not_frontal",)),
        ({"BodyPartExamined": "KNEE"}, ("not_chest",)),
        ({"BodyPartExamined": "PORT CHEST"}, ()),
        ({"BodyPartExamined": ""}, ()),
        ({"LUTLabel": "unused", "WindowCenter": "", "WindowWidth": ""}, ()),
    ],
)
def test_warnings_about_the_kind(elements: dict[str, Any], codes: tuple[str, ...]) -> None:
    assert read(film(8, **elements)).warnings == codes


def test_nonconformant_elements_warn_and_print_nothing() -> None:
    ds = film(8)
    data = to_bytes(ds).replace(b"DX", b"dx")  # CS is upper case
    assert decode_frame(data, "film").pixels.shape == (SIDE, SIDE)
    ds = film(8, NumberOfFrames=0)
    assert read(ds).pixels.shape == (SIDE, SIDE)
    bad = to_bytes(film(12, WindowCenter="100.5", WindowWidth=201)).replace(b"100.5 ", b"100,5 ")
    assert reason_of(lambda: decode_frame(bad, "film")) == "corrupt"


# Bad input


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelData": None}, "corrupt"),
        ({"Rows": None}, "corrupt"),
        ({"Rows": 0}, "too_small"),
        ({"Rows": 31}, "too_small"),
        ({"Rows": 20000, "Columns": 20000}, "too_large"),
        ({"Rows": 33}, "truncated"),
        ({"BitsStored": None}, "corrupt"),
        ({"PixelRepresentation": None}, "corrupt"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "unsupported_pixels"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "unsupported_pixels"),
        ({"BitsStored": 9}, "unsupported_pixels"),
        ({"HighBit": 6}, "unsupported_pixels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_pixels"),
        ({"PhotometricInterpretation": None}, "unsupported_pixels"),
        ({"SamplesPerPixel": 4}, "unsupported_pixels"),
        ({"FloatPixelData": b"\0" * 4}, "unsupported_pixels"),
        ({"WindowCenter": 5000, "WindowWidth": 10}, "constant"),
    ],
)
def test_bad_headers(elements: dict[str, Any], reason: str) -> None:
    assert reason_of(lambda: read(film(8, **elements))) == reason


def test_constant_film() -> None:
    assert reason_of(lambda: read(dataset(np.full((SIDE, SIDE), 9, np.uint8), 8))) == "constant"


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "liver_1frame.dcm", "CT_small.dcm"])
def test_other_objects(name: str) -> None:
    path = get_testdata_file(name, download=False)
    with pytest.raises(InputError) as error:
        read_frame(str(path))
    assert error.value.reason == "wrong_modality"


def every_cut(data: bytes) -> list[int]:
    return [*range(1, min(len(data), 700), 7), *range(700, len(data) - 1, max(1, len(data) // 60)), len(data) - 1]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, JPEGBaseline8Bit])
def test_a_cut_file_is_never_half_a_film(syntax: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    if syntax == JPEGBaseline8Bit:
        ds = encapsulated([jpeg(pixels)], syntax, pixels)
    else:
        ds = dataset(pixels, 8)
        if syntax != ExplicitVRLittleEndian:
            ds.compress(syntax)
    data = to_bytes(ds)
    decode_frame(data, "film")
    begin = data.index(b"\xe0\x7f\x10\x00")
    for cut in every_cut(data):
        if cut > len(data) - 8 and syntax != ExplicitVRLittleEndian:
            continue  # only the delimiter after the last frame is cut
        reason = reason_of(lambda n=cut: decode_frame(data[:n], "film"))
        assert reason in (("truncated",) if cut > begin + 12 else ("not_an_image", "truncated", "corrupt"))


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.98])
def test_a_cut_codestream_in_a_whole_file(keep: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    stream = jpeg(pixels)
    ds = encapsulated([stream[: int(keep * len(stream))]], JPEGBaseline8Bit, pixels)
    assert reason_of(lambda: read(ds)) == "truncated"
    ds = encapsulated([stream[: int(keep * len(stream))] + b"\xff\xd9"], JPEGBaseline8Bit, pixels)
    assert reason_of(lambda: read(ds)) in ("truncated", "corrupt")


@pytest.mark.parametrize("modality", ["SECRET^NAME", "Secret", "A" * 17])
def test_what_is_no_code_string_is_not_repeated(modality: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = film(8, Modality=modality)
    assert reason_of(lambda: read(ds)) == "wrong_modality"


def test_codestream_of_another_size_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (RAMP // 4).astype(np.uint8)
    ds = encapsulated([jpeg(np.tile(pixels, (4, 4)))], JPEGBaseline8Bit, pixels)
    with pytest.raises(InputError, match="32 x 32 pixels, as the header says, got 128 x 128") as error:
        read(ds)
    assert error.value.reason == "corrupt"


def test_damaged_codestream() -> None:
    ds = film(8)
    ds.compress(JPEG2000Lossless)
    data = bytearray(to_bytes(ds))
    at = data.index(b"\xff\x52")  # COD
    data[at + 2 : at + 14] = b"\xff" * 12
    assert reason_of(lambda: decode_frame(bytes(data), "film")) == "corrupt"


def test_rubbish_after_the_preamble() -> None:
    data = b"\0" * 128 + b"DICM" + bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    assert reason_of(lambda: decode_frame(data, "film")) in ("corrupt", "truncated")


@settings(deadline=None)
@given(st.data())
def test_flipped_bytes_never_escape_as_another_error(data: st.DataObject) -> None:
    ds = film(12, WindowCenter=2048, WindowWidth=4096, RescaleSlope=1, RescaleIntercept=0)
    raw = bytearray(to_bytes(ds)[:-1800])
    raw += bytes(1800)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(132, 800))] = data.draw(st.integers(0, 255))
    try:
        frame = decode_frame(bytes(raw), "film")
    except InputError:
        return
    assert frame.pixels.max() < len(frame.lut)


def test_nothing_of_the_patient_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    frame = read(film(8))
    assert "secret" not in repr((frame.name, frame.warnings)).lower()
    assert "secret" not in str(header._parse(to_bytes(film(8)))).lower()
    assert capfd.readouterr() == ("", "")


def test_a_script_sees_nothing_on_stderr(tmp_path: Path) -> None:
    ds = film(8)
    ds.compress(JPEG2000Lossless)
    data = bytearray(to_bytes(ds))
    at = data.index(b"\xff\x52")
    data[at + 2 : at + 14] = b"\xff" * 12
    (tmp_path / "a.dcm").write_bytes(data)
    code = """
from msloc_edge.imaging.reading import read_frame
from msloc_edge.errors import InputError
try:
    read_frame("a.dcm")
except InputError as error:
    print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("corrupt\n", "")


def test_threads_leave_pythons_warnings_as_they_were() -> None:
    data = [to_bytes(film(8, VOILUTFunction="X")), to_bytes(film(8)).replace(b"DX", b"dx")] * 20
    before = list(warnings.filters), warnings.showwarning
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda d: decode_frame(d, "film"), data))
    assert len({frame.warnings for frame in frames}) <= 2
    assert (list(warnings.filters), warnings.showwarning) == before


# Real films


def test_real_computed_radiograph(shared_data: Path) -> None:
    frame = read_frame(shared_data / "dicom" / "RG1_J2KI.dcm")
    assert frame.pixels.shape == (1955, 1841)
    assert frame.lut.shape == (2**15,)
    assert frame.warnings == ()
    assert frame.sha256.startswith("744d0137")
    # window 15000/30000, MONOCHROME1: 1 - ((x - 14999.5) / 29999 + 0.5)
    assert frame.lut[[803, 26512]].tolist() == pytest.approx([1 - 803 / 29999, 1 - 26512 / 29999], abs=1e-6)
    shown = frame.display()
    spine, lung = shown[600:1300, 880:960].mean(), shown[500:800, 450:600].mean()
    assert spine > lung + 0.1


def test_real_film_with_both_photometric_interpretations(shared_data: Path) -> None:
    """The two files hold the same codestream, byte for byte, and differ in PhotometricInterpretation alone.

    So one header is wrong about the film; read as the standard says, the displays are exact negatives.
    """
    plain = read_frame(shared_data / "dicom" / "cr_jpeg.dcm")
    inverted = read_frame(shared_data / "dicom" / "monochrome1_jpeg.dcm")
    assert (plain.pixels == inverted.pixels).all()
    np.testing.assert_allclose(plain.display() + inverted.display(), 1, atol=1e-6)
    assert plain.display()[400:600, 480:520].mean() > plain.display()[400:600, 250:350].mean()  # spine, lung
