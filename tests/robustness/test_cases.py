"""Cases that broke the product once, from public reports and made by hand: their right values (../shared/cases)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msloc_edge.errors import InputError
from msloc_edge.imaging.reading import frame_from_array, read_frame


def test_tables_of_fewer_bits_than_declared(cases: Path) -> None:
    folder = cases / "01-voi-lut-entries-narrower-than-declared"
    right = np.load(folder / "right_display_MONOCHROME2.npy")
    np.testing.assert_allclose(read_frame(folder / "MONOCHROME2.dcm").display(), right, atol=1e-6)


def test_rle_keeps_whole_cells(cases: Path) -> None:
    rle, native = (read_frame(cases / "02-rle-highbit" / f"{kind}_12_15.dcm") for kind in ("rle", "native"))
    assert (rle.pixels == native.pixels).all()
    assert (rle.lut == native.lut).all()


def test_a_palette_image_is_its_file(cases: Path) -> None:
    path = cases / "04-pil-palette" / "film.png"
    assert (frame_from_array(Image.open(path)).pixels == read_frame(path).pixels).all()


def test_8_bits_in_16_as_jpeg(cases: Path) -> None:
    lossless, plain = (read_frame(cases / "09-8-bits-in-16-jpeg" / f"{kind}.dcm") for kind in ("lossless", "plain"))
    assert (lossless.pixels == plain.pixels).all()


@pytest.mark.parametrize("kind", ["header_1_codestream_3", "header_3_codestream_1"])
def test_the_codestream_tells_the_components(cases: Path, kind: str) -> None:
    frame = read_frame(cases / "11-components-differ" / f"{kind}.dcm")
    assert "dicom_nonconformant" in frame.warnings
    assert frame.pixels.dtype == np.uint8
    np.testing.assert_allclose(frame.display(), frame.pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "codes"),
    [
        ("13-wrong-basic-offset/film.dcm", ()),
        ("17-voi-item-without-lut/film.dcm", ("dicom_nonconformant",)),
        ("17-voi-item-without-lut/explanation_only.dcm", ("dicom_nonconformant",)),
    ],
)
def test_12_bits_under_a_full_window(cases: Path, file: str, codes: tuple[str, ...]) -> None:
    frame = read_frame(cases / file)
    np.testing.assert_allclose(frame.display(), frame.pixels / 4095, atol=1e-6)
    assert frame.warnings == codes


def test_jpeg_in_a_native_syntax(cases: Path) -> None:
    frame = read_frame(cases / "12-native-syntax-jpeg-inside" / "film.dcm")
    assert frame.warnings == ("dicom_nonconformant",)
    assert np.ptp(frame.pixels) > 100


def test_first_mapped_values_of_the_wrong_sign(cases: Path) -> None:
    folder = cases / "18-voi-first-value-signed-vr"
    film = read_frame(folder / "film.dcm")
    np.testing.assert_allclose(film.display(), (film.pixels.astype(int) - 40000) / 16383, atol=1e-4)
    implicit, explicit = (read_frame(folder / f"{kind}.dcm") for kind in ("conforming_implicit", "same_explicit"))
    assert (implicit.display() == explicit.display()).all()


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("half_eoi.jpg", "truncated"),
        ("dcm_jpeg_early_eoi.dcm", "truncated"),
        ("rle_panic_1.dcm", "corrupt"),
        ("rle_panic_rgb16.dcm", "corrupt"),
        ("jp2_box_length_0.dcm", "corrupt"),
        ("jp2_decoy_real16000.dcm", "corrupt"),
        ("jpeg_dhp65535.dcm", "unsupported_pixels"),
        ("png_p_120MP.png", "too_large"),
        ("nan_from_window.dcm", "corrupt"),
        ("nan_rescale_no_window.dcm", "corrupt"),
    ],
)
def test_hostile_files_are_refused(cases: Path, file: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        read_frame(cases / "hostile" / file)
    assert error.value.reason == reason


def test_no_name_in_the_error(cases: Path) -> None:
    path = cases / "hostile" / "phi_in_error.dcm"
    with pytest.raises(InputError) as error:
        read_frame(path)
    assert "^" not in error.value.message
    assert len(error.value.message) < len(str(path)) + 150
