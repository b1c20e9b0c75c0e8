"""DICOM through the C library built with DCMTK: table, pixels and findings are those of msloc_edge.imaging.dicom."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from msloc_edge.errors import InputError
from msloc_edge.imaging.dicom import decode_dicom
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer

SIDE = 32
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
WARNINGS = {
    "polarity_suspect": 1,
    "no_window": 2,
    "bad_window": 4,
    "not_frontal": 8,
    "not_chest": 16,
    "for_processing": 32,
    "modality_missing": 64,
    "dicom_nonconformant": 128,
}


@pytest.fixture(scope="module")
def dcmtk(capi: Any, structs: dict[str, Any]) -> Path:
    """The build folder of a library with DCMTK."""
    if not structs["has_dcmtk"]():
        pytest.skip("libmsloc_edge cannot be built with DCMTK here: no libdcmtk-dev")
    return capi.build


@pytest.fixture(scope="session")
def cases(structs: dict[str, Any]) -> Path:
    """The collected cases; a test that needs them is skipped where they are not."""
    folder: Path = structs["ROOT"].parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"the cases are not here: {folder}")
    return folder


@pytest.fixture
def reader(dcmtk: Path, edge: Any) -> Any:
    """An open localizer of that library."""
    return edge


def dataset(pixels: np.ndarray, bits: int, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A DX image of these cells; `elements` are set last, None removes one."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3", "DX"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    for keyword, value in elements.items():
        delattr(ds, keyword) if value is None else setattr(ds, keyword, value)
    return ds


def film(bits: int, signed: bool = False, **elements: Any) -> Dataset:
    """A film of stored values from the lowest up, evenly spaced."""
    count = min(2**bits, SIDE * SIDE)
    values = (RAMP % count) * (2**bits // count) - (2 ** (bits - 1) if signed else 0)
    return dataset(values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"), bits, **elements)


def lut_item(first: int, bits: int, entries: list[int] | bytes, count: int | None = None) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [(len(entries) if count is None else count) % 2**16, first, bits]
    if first < 0:
        item.add_new("LUTDescriptor", "SS", list(item.LUTDescriptor))
    item.add_new("LUTData", "OW" if isinstance(entries, bytes) else "US", entries)
    return item


def written(ds: Dataset, folder: Path) -> Path:
    path = folder / "film.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def table_of(dcmtk: Path, path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """The first line that the library's reader prints, its table and its samples."""
    program = dcmtk / "tests" / "capi" / "msloc_dicom_table"
    line, _, rest = subprocess.run([program, path], capture_output=True, check=True).stdout.partition(b"\n")
    if not line[:1].isdigit():
        return line.decode(), np.empty(0), np.empty(0)
    width, height, bits, warnings = map(int, line.split())
    lut, samples = np.frombuffer(rest[: 4 << bits], np.float32), np.frombuffer(rest[4 << bits :], np.uint16)
    return str(warnings), lut, samples.reshape(height, width)


WINDOW = {"WindowCenter": 300, "WindowWidth": 500}
FILMS = {
    **{f"{bits} bits {'signed' if s else ''}": film(bits, s) for bits in (8, 10, 12, 16) for s in (False, True)},
    **{f"syntax {syntax}": film(12, syntax=syntax, **WINDOW) for syntax in SYNTAXES},
    **{f"8 bits, syntax {syntax}": film(8, syntax=syntax) for syntax in SYNTAXES},
    **{name: film(12, VOILUTFunction=name, **WINDOW) for name in ("LINEAR", "LINEAR_EXACT", "SIGMOID", "LINEARISH")},
    "first of several windows": film(12, WindowCenter=[100.5, 2000], WindowWidth=[201, 4000]),
    "impossible window": film(12, WindowCenter=5, WindowWidth=0.5),
    "rescale": film(12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=0.5, WindowWidth=2001),
    "negative slope": film(12, RescaleSlope=-1, RescaleIntercept=4095),
    "slope of 0": film(12, RescaleSlope=0, RescaleIntercept=0, **WINDOW),
    "MONOCHROME1": film(12, PhotometricInterpretation="MONOCHROME1", **WINDOW),
    "MONOCHROME1, signed": film(16, True, PhotometricInterpretation="MONOCHROME1"),
    "modality LUT": film(12, ModalityLUTSequence=[lut_item(10, 16, [100, 200, 400])], **WINDOW),
    "modality LUT from -2": film(12, True, ModalityLUTSequence=[lut_item(-2, 12, [0, 1000, 2000, 3000])]),
    "VOI LUT": film(12, VOILUTSequence=[lut_item(100, 8, [0, 51, 255])], **WINDOW),
    "VOI LUT, OW": film(12, VOILUTSequence=[lut_item(100, 8, bytes([0, 0, 51, 0, 255, 0]), count=3)]),
    "VOI LUT, packed": film(12, VOILUTSequence=[lut_item(100, 8, bytes([0, 51, 255, 0]), count=3)]),
    "VOI LUT, wide": film(12, VOILUTSequence=[lut_item(0, 8, (np.arange(4096) // 16).tolist())]),
    "VOI LUT, 12 bits as 16": film(12, VOILUTSequence=[lut_item(0, 16, [0, 1000, 4095])]),
    "VOI LUT, 10 bits as 8": film(12, VOILUTSequence=[lut_item(0, 8, [0, 100, 700])]),
    "VOI LUT from 40000, signed": film(16, VOILUTSequence=[lut_item(40000 - 2**16, 16, list(range(16384)))]),
    "padding": film(12, PixelPaddingValue=0, PixelPaddingRangeLimit=200),
    "padding, signed": film(12, True, PixelPaddingValue=-2048),
    "overlay bits": dataset((RAMP | 0xF000).astype(np.uint16), 12, **WINDOW),
    "high bit": dataset(((RAMP << 4) | 10).astype(np.uint16), 12, HighBit=15, **WINDOW),
    "8 bits in 16": dataset((RAMP % 256).astype(np.uint16), 8),
    "no window": dataset((1000 + RAMP).astype(np.uint16), 16),
    "lateral": film(12, ViewPosition="LL", BodyPartExamined="SKULL", **WINDOW),
    "for processing": film(12, PresentationIntentType="FOR PROCESSING", **WINDOW),
    "no modality": film(12, Modality=None, **WINDOW),
}


@pytest.mark.filterwarnings("ignore")  # the writer objects to what some films hold on purpose
@pytest.mark.parametrize("name", FILMS)
def test_table_and_pixels(name: str, dcmtk: Path, tmp_path: Path) -> None:
    path = written(FILMS[name], tmp_path)
    warnings, lut, samples = table_of(dcmtk, path)
    expected = decode_dicom(path.read_bytes(), "film")
    np.testing.assert_array_equal(samples, expected.pixels)
    np.testing.assert_allclose(lut, expected.lut, atol=1e-6)
    assert int(warnings) == sum(WARNINGS.get(code, 0) for code in expected.warnings)


def test_run_length_encoding(dcmtk: Path, tmp_path: Path) -> None:
    ds = film(12, **WINDOW)
    ds.compress(RLELossless)
    path = written(ds, tmp_path)
    _, lut, samples = table_of(dcmtk, path)
    np.testing.assert_array_equal(samples, RAMP * 4)
    np.testing.assert_allclose(lut, decode_dicom(path.read_bytes(), "film").lut, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"Modality": "CT"}, "wrong_modality", "wrong_modality"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_pixels", "unsupported_pixels"),
        ({"BitsStored": 13, "HighBit": 30}, "unsupported_pixels", "unsupported_pixels"),
        ({"PixelData": b"\0" * 10}, "unreadable", "truncated"),
        ({"PixelData": None}, "unreadable", "corrupt"),
        ({"Rows": 31}, "too_small", "too_small"),
        ({"Rows": 65000, "Columns": 65000}, "too_large", "too_large"),
        ({"VOILUTSequence": [lut_item(0, 16, [0, 9], count=300)]}, "unreadable", "corrupt"),
    ],
)
def test_refused(change: dict[str, Any], status: str, reason: str, dcmtk: Path, tmp_path: Path) -> None:
    path = written(film(12, **change), tmp_path)
    assert table_of(dcmtk, path)[0] == status
    with pytest.raises(InputError) as error:
        decode_dicom(path.read_bytes(), "film")
    assert error.value.reason == reason


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [31, 65000])
def test_a_refused_size_is_audited(
    rows: int, dcmtk: Path, capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any]
) -> None:
    path = written(film(12, Rows=rows, Columns=64000), tmp_path)
    audit: list[dict[str, Any]] = []
    audit_fn = structs["AuditFn"](lambda _, line: audit.append(json.loads(line)))
    with capi.open(bundle, audit=audit_fn) as handle, pytest.raises(structs["StatusError"]):
        handle.call("localize_dicom", str(path).encode(), None)
    assert [line["image"] for line in audit] == [{"width": 64000, "height": rows}]


@pytest.mark.parametrize("data", [b"", b"PNG", b"\0" * 128 + b"DICM" + b"\xff" * 500])
def test_no_dicom_at_all(data: bytes, reader: Any, tmp_path: Path, structs: dict[str, Any]) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(data)
    with pytest.raises(structs["StatusError"]) as error:
        reader.call("localize_dicom", str(path).encode(), None)
    assert error.value.status == "unreadable"


NAMES = ("ZWEIFEL", "ERIKA", "MUSTERARZT", "PID4711")


def test_no_damage_brings_a_name_out(
    dcmtk: Path, capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Every byte of the header, so every length of it, is damaged in turn: no sentence, log or audit has a name."""
    named = {"PatientName": "Zweifel^Erika", "ReferringPhysicianName": "Musterarzt", "PatientID": "PID4711"}
    pixels = np.full((SIDE, SIDE), 7, np.uint16)  # a constant one: what is read is refused before the network
    path = written(dataset(pixels, 12, **named, **WINDOW), tmp_path)
    whole = path.read_bytes()
    assert all(name in whole.upper() for name in map(str.encode, NAMES))
    said: list[str] = []
    log = structs["LogFn"](lambda _, level, line: said.append(line.decode()))
    audit = structs["AuditFn"](lambda _, line: said.append(line.decode()))
    statuses = Counter[str]()
    with capi.open(bundle, log=log, audit=audit) as handle:
        for at in range(132, whole.index(b"\xe0\x7f\x10\x00") + 12):
            for value in (0, 32, 255):
                path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
                try:
                    handle.call("localize_dicom", str(path).encode(), None)
                except structs["StatusError"] as error:
                    statuses[error.status] += 1
                    said.append(error.sentence)
    assert statuses["constant"] > 300
    assert statuses["unreadable"] > 30
    assert statuses["internal"] == 0
    everything = ("".join(said) + "".join(capfd.readouterr())).upper()
    assert not [name for name in NAMES if name in everything]


@pytest.mark.parametrize(
    ("file", "status"),
    [
        ("hostile/rle_panic_rgb16.dcm", "unsupported_pixels"),
        ("hostile/jp2_box_length_0.dcm", "unsupported_codec"),
        ("hostile/jp2_decoy_real16000.dcm", "unsupported_codec"),
        ("hostile/dcm_jpeg_early_eoi.dcm", "unreadable"),
        ("hostile/jpeg_dhp65535.dcm", "unreadable"),
        ("hostile/nan_from_window.dcm", "bad_window"),
        ("hostile/nan_rescale_no_window.dcm", "bad_window"),
        ("hostile/phi_in_error.dcm", "wrong_modality"),
    ],
)
def test_hostile_films(file: str, status: str, reader: Any, cases: Path, structs: dict[str, Any]) -> None:
    with pytest.raises(structs["StatusError"]) as error:
        reader.call("localize_dicom", str(cases / file).encode(), None)
    assert error.value.status == status


@pytest.mark.parametrize("file", ["film.dcm", "explanation_only.dcm"])
def test_a_voi_item_without_its_table_is_passed_over(file: str, dcmtk: Path, cases: Path) -> None:
    path = cases / "17-voi-item-without-lut" / file
    line, lut, samples = table_of(dcmtk, path)
    frame = decode_dicom(path.read_bytes(), "film")
    np.testing.assert_array_equal(samples, frame.pixels)
    np.testing.assert_allclose(lut, frame.lut, atol=1e-6)
    assert "dicom_nonconformant" in frame.warnings
    assert int(line.split()[-1]) & WARNINGS["dicom_nonconformant"]


@pytest.mark.parametrize("number", [4000180, 4000181, 4000182])
def test_findings_of_the_examples(number: int, reader: Any, bundle: Path, structs: dict[str, Any]) -> None:
    path = structs["ROOT"] / "examples" / "dicom" / f"phantom{number}.dcm"
    reader.call("localize_dicom", str(path).encode(), byref(structs["request"](all_classes=1)))
    with Localizer(bundle, "openvino", all_classes=True) as python:
        for k, expected in enumerate(python.localize(path).findings):
            found = reader.finding(k)
            assert found.score == pytest.approx(expected.score, abs=1e-5)
            assert expected.peak is not None
            assert (found.peak_x, found.peak_y) == pytest.approx((expected.peak.x, expected.peak.y))
            assert agreement(reader.boxes(k)[:, :4], array_of(expected.boxes)) >= 0.99


@pytest.mark.parametrize("name", ["cr_jpeg", "monochrome1_jpeg"])
def test_real_films_in_jpeg(name: str, dcmtk: Path, reader: Any, bundle: Path, shared_data: Path) -> None:
    path = shared_data / "dicom" / f"{name}.dcm"
    _, lut, samples = table_of(dcmtk, path)
    frame = decode_dicom(path.read_bytes(), "film")
    assert np.abs(samples.astype(int) - frame.pixels).max() <= 1  # what two decoders of JPEG may differ by
    np.testing.assert_allclose(lut, frame.lut, atol=1e-6)
    reader.call("localize_dicom", str(path).encode(), None)
    with Localizer(bundle, "openvino") as python:
        for k, expected in enumerate(python.localize(path).findings):
            assert reader.finding(k).score == pytest.approx(expected.score, abs=2e-3)


def test_jpeg_2000_has_no_decoder(reader: Any, shared_data: Path, structs: dict[str, Any]) -> None:
    with pytest.raises(structs["StatusError"], match="JPEG 2000") as error:
        reader.call("localize_dicom", str(shared_data / "dicom" / "RG1_J2KI.dcm").encode(), None)
    assert error.value.status == "unsupported_codec"
