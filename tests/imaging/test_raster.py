"""PNG, JPEG, TIFF and arrays to Frame; what is refused, and that nothing is ever half a film."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from msloc_edge.errors import InputError
from msloc_edge.imaging import raster
from msloc_edge.imaging.reading import decode_frame, frame_from_array, read_frame
from msloc_edge.types import Frame

SIDE = 40
RAMP8 = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 251).astype(np.uint8)
RAMP16 = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 40).astype(np.uint16)
NOISE16 = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 4), dtype=np.uint16)
FULL8 = (np.arange(256) / 255).tolist()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return saved(Image.fromarray(pixels), "PNG")


def png_of(depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG of SIDE x SIDE written by hand; `rows` are the filtered scan lines."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_of(pixels: np.ndarray, order: str = "<", photometric: int = 1, sample_format: int = 1, bits: int = 0) -> bytes:
    """An uncompressed TIFF written by hand: one strip, the tags in order."""
    body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    height, width = pixels.shape[:2]
    depth = bits or 8 * pixels.itemsize
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, depth),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, len(body)),
        (339, 3, sample_format),
    ]
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value))
        for tag, kind, value in tags
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return (
        magic
        + struct.pack(order + "I", 8 + len(body))
        + body
        + struct.pack(order + "H", len(tags))
        + entries
        + b"\0\0\0\0"
    )


def cv2_bytes(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


def luma_of(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., :3] @ np.array([0.299, 0.587, 0.114])


def error_of(call: Callable[[], Any]) -> InputError:
    with pytest.raises(InputError) as error:
        call()
    return error.value


def reason_of(data: bytes, frame: int | None = None) -> str:
    error = error_of(lambda: decode_frame(data, "film", frame=frame))
    assert "film" in error.message
    assert error.message.endswith(".")
    return error.reason


# What is read


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_8_bit_grey(kind: str) -> None:
    data = saved(Image.fromarray(RAMP8), kind)
    frame = decode_frame(data, "a film")
    assert frame.pixels.dtype == np.uint8
    assert (frame.pixels == RAMP8).all()
    assert frame.lut.dtype == np.float32
    assert frame.lut.tolist() == pytest.approx(FULL8)
    assert (frame.name, frame.sha256, frame.warnings) == ("a film", hashlib.sha256(data).hexdigest(), ())


@pytest.mark.parametrize(
    "data",
    [
        png(RAMP16),
        tiff_of(RAMP16),
        tiff_of(RAMP16, ">"),
        saved(Image.fromarray(RAMP16), "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(RAMP16), "TIFF", compression="tiff_adobe_deflate"),
        saved(Image.fromarray(RAMP16), "TIFF", big_tiff=True),
    ],
    ids=["png", "little-endian", "big-endian", "lzw", "deflate", "bigtiff"],
)
def test_16_bit_grey(data: bytes) -> None:
    frame = decode_frame(data, "film")
    assert frame.pixels.dtype == np.uint16
    assert frame.pixels.dtype.isnative
    assert (frame.pixels == RAMP16).all()
    assert frame.lut.shape == (65536,)
    assert frame.lut[[0, 13107, 65535]].tolist() == pytest.approx([0, 0.2, 1])
    assert frame.warnings == ()


def test_jpeg_baseline_and_progressive() -> None:
    smooth = np.tile(np.arange(SIDE, dtype=np.uint8) * 6, (SIDE, 1))
    for progressive in (False, True):
        frame = decode_frame(saved(Image.fromarray(smooth), "JPEG", quality=95, progressive=progressive), "film")
        assert np.abs(frame.pixels.astype(int) - smooth).max() <= 3
        assert frame.warnings == ()


def test_white_is_zero() -> None:
    """TIFF photometric 0: the display is inverted, whichever of Pillow or the table does it."""
    eight, sixteen = (
        decode_frame(tiff_of(RAMP8, photometric=0), "film"),
        decode_frame(tiff_of(RAMP16, photometric=0), "film"),
    )
    np.testing.assert_allclose(eight.display(), 1 - RAMP8 / 255, atol=1e-6)
    np.testing.assert_allclose(sixteen.display(), 1 - RAMP16 / 65535, atol=1e-6)


def test_12_bit_tiff() -> None:
    values = (np.arange(SIDE * SIDE) * 2).reshape(-1, 2)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], axis=1)
    data = tiff_of(packed.astype(np.uint8).reshape(SIDE, -1), bits=12)
    data = data.replace(struct.pack("<HHIHH", 256, 3, 1, SIDE * 3 // 2, 0), struct.pack("<HHIHH", 256, 3, 1, SIDE, 0))
    frame = decode_frame(data, "film")
    assert (frame.pixels.ravel() == values.ravel()).all()
    assert frame.lut.shape == (4096,)
    assert frame.lut[-1] == 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_8_bit_colour_becomes_luma(kind: str, mode: str) -> None:
    colour = (NOISE16[..., : len(mode)] >> 8).astype(np.uint8)
    frame = decode_frame(saved(Image.fromarray(colour), kind), "film")
    assert frame.pixels.dtype == np.uint8
    assert np.abs(frame.pixels - luma_of(colour)).max() <= 0.51
    assert frame.warnings == ("colour_converted",)


@pytest.mark.parametrize("kind", [".png", ".tif"])
def test_16_bit_colour_becomes_luma_of_16_bits(kind: str) -> None:
    frame = decode_frame(cv2_bytes(kind, NOISE16[..., 2::-1]), "film")
    assert frame.pixels.dtype == np.uint16
    assert np.abs(frame.pixels - luma_of(NOISE16)).max() <= 6  # fixed-point weights
    assert frame.warnings == ("colour_converted",)


def test_16_bit_colour_with_alpha() -> None:
    opaque = decode_frame(cv2_bytes(".png", NOISE16[..., 2::-1]), "film")
    frame = decode_frame(cv2_bytes(".png", NOISE16[..., [2, 1, 0, 3]]), "film")
    assert (frame.pixels == opaque.pixels).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_stored_as_colour_stays_exact(depth: int) -> None:
    grey = RAMP8 if depth == 8 else NOISE16[..., 0]
    frame = decode_frame(cv2_bytes(".png", np.dstack([grey] * 3)), "film")
    assert (frame.pixels == grey).all()


def test_alpha_is_dropped() -> None:
    frame = decode_frame(png(np.dstack([RAMP8, 255 - RAMP8])), "film")
    assert (frame.pixels == RAMP8).all()
    assert frame.warnings == ()
    deep = np.dstack([RAMP16, NOISE16[..., 3]])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    frame = decode_frame(png_of(16, 4, rows), "film")
    assert (frame.pixels == RAMP16).all()
    assert frame.warnings == ()


@pytest.mark.parametrize("transparent", [False, True])
def test_palette_is_expanded(transparent: bool) -> None:
    image = Image.fromarray(RAMP8 % 4).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 255, 255, 255])
    frame = decode_frame(saved(image, "PNG", **({"transparency": b"\0\x80\xff\xff"} if transparent else {})), "film")
    assert [int(frame.pixels[0, i]) for i in range(4)] == [0, 76, 150, 255]
    assert frame.warnings == ("colour_converted",)


def test_few_bits_of_grey_are_scaled_up() -> None:
    rows = (b"\0" + b"\x1b" * (SIDE // 4)) * SIDE  # 0, 1, 2, 3
    assert decode_frame(png_of(2, 0, rows), "film").pixels[0, :4].tolist() == [0, 85, 170, 255]


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6
    tall = np.vstack([RAMP8, RAMP8])
    for kind in ("JPEG", "PNG", "TIFF"):
        frame = decode_frame(saved(Image.fromarray(tall), kind, exif=exif), "film")
        assert frame.pixels.shape == tall.shape
        assert frame.warnings == ("exif_orientation_ignored",)


def test_narrow_range() -> None:
    assert decode_frame(png(RAMP16 // 8), "film").warnings == ("narrow_range",)
    assert decode_frame(png(RAMP8 // 8), "film").warnings == ()


def test_pages() -> None:
    pages = [Image.fromarray(RAMP8 // i) for i in (1, 2, 3)]
    for kind in ("TIFF", "PNG"):
        data = saved(pages[0], kind, save_all=True, append_images=pages[1:])
        error = error_of(lambda d=data: decode_frame(d, "film"))
        assert error.reason == "multi_frame"
        assert "3 frames; choose one with --frame N" in error.message
        for number in (1, 2, 3):
            assert (decode_frame(data, "film", frame=number).pixels == RAMP8 // number).all()
        for number in (0, 4):
            assert reason_of(data, number) == "option_invalid"


def test_pages_of_16_bit_colour() -> None:
    ok, data = cv2.imencodemulti(".tif", [NOISE16[..., :3], NOISE16[..., 1:]])
    assert ok
    first, second = (decode_frame(data.tobytes(), "film", frame=number).pixels for number in (1, 2))
    assert (first != second).any()
    assert np.abs(second - luma_of(NOISE16[..., :0:-1])).max() <= 6


# Arrays


def test_arrays() -> None:
    for pixels in (RAMP8, RAMP16, RAMP16.astype(">u2")):
        frame = frame_from_array(pixels)
        assert (frame.pixels == pixels).all()
        assert frame.pixels.dtype.isnative
        assert (frame.name, frame.sha256) == ("array", "")
    assert np.shares_memory(frame_from_array(RAMP8).pixels, RAMP8)
    assert frame_from_array(RAMP8.T).pixels.flags.c_contiguous
    colour = frame_from_array(NOISE16[..., :3], "named")
    assert colour.name == "named"
    assert np.abs(colour.pixels - luma_of(NOISE16)).max() <= 6
    assert colour.warnings == ("colour_converted",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays(dtype: type) -> None:
    pixels = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)
    frame = frame_from_array(pixels)
    assert frame.pixels.dtype == np.uint16
    np.testing.assert_allclose(frame.display(), pixels, atol=1 / 131069)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((SIDE, SIDE), np.nan), "unsupported_pixels"),
        (np.where(RAMP8 == 7, np.inf, 0.5), "unsupported_pixels"),
        (RAMP8.astype(float), "unsupported_pixels"),
        (RAMP8.astype(np.int16), "unsupported_pixels"),
        (RAMP8 > 3, "unsupported_pixels"),
        (NOISE16, "unsupported_pixels"),
        (RAMP8[0], "unsupported_pixels"),
        (RAMP8[None, None], "unsupported_pixels"),
        (np.zeros((0, 5), np.uint8), "too_small"),
        (RAMP8[:31], "too_small"),
        (np.broadcast_to(np.uint8(0), (20000, 20000)), "too_large"),
        (np.full((SIDE, SIDE), 3, np.uint8), "constant"),
    ],
)
def test_refused_arrays(pixels: np.ndarray, reason: str) -> None:
    assert error_of(lambda: frame_from_array(pixels)).reason == reason


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "PA", "I;16"])
def test_pil_images_are_their_files(mode: str, tmp_path: Path) -> None:
    colour = Image.fromarray((NOISE16[..., :3] >> 8).astype(np.uint8))
    image = Image.fromarray(NOISE16[..., 0]) if mode == "I;16" else colour.convert(mode)
    if mode == "P":
        image.putpalette([level for i in range(256) for level in (255 - i, i // 2, i // 3)])
    image.save(tmp_path / "film.tif" if mode == "PA" else tmp_path / "film.png")
    path = next(tmp_path.iterdir())
    ours, theirs = frame_from_array(Image.open(path), "film"), decode_frame(path.read_bytes(), "film")
    assert (ours.pixels == theirs.pixels).all()
    assert (ours.lut == theirs.lut).all()
    assert ours.warnings == theirs.warnings


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_pil_images_of_other_colour_spaces(mode: str) -> None:
    rgb = Image.fromarray(np.dstack([RAMP8, RAMP8[::-1], RAMP8.T])).convert(mode)
    expected = luma_of(np.asarray(rgb.convert("RGB")))
    assert np.abs(frame_from_array(rgb).pixels - expected).max() <= 0.51


@pytest.mark.parametrize("mode", ["1", "LAB", "CMYK"])
def test_pil_images_that_are_refused(mode: str) -> None:
    assert error_of(lambda: frame_from_array(Image.new(mode, (SIDE, SIDE)))).reason == "unsupported_pixels"


def test_a_pil_image_whose_file_is_cut() -> None:
    data = png(NOISE16[..., 0])
    assert error_of(lambda: frame_from_array(Image.open(BytesIO(data[: len(data) // 2])))).reason == "truncated"


# What is refused


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.dcm"  # content decides, not the name
    path.write_bytes(png(RAMP8))
    assert read_frame(path).name == str(path)
    assert read_frame(str(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert error_of(lambda: read_frame(tmp_path / "none.png")).reason == "missing"
    assert error_of(lambda: read_frame(tmp_path)).reason == "unreadable"
    assert error_of(lambda: read_frame("a\0b")).reason == "unreadable"
    assert error_of(lambda: read_frame("x" * 5000)).reason == "unreadable"
    (tmp_path / "empty.png").touch()
    assert error_of(lambda: read_frame(tmp_path / "empty.png")).reason == "truncated"

    def denied(*_: object) -> int:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(os, "open", denied)
    error = error_of(lambda: read_frame(path))
    assert error.reason == "unreadable"
    assert "Permission denied" in error.message


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (saved(Image.fromarray(RAMP8), "BMP"), "a BMP image"),
        (saved(Image.fromarray(RAMP8), "GIF"), "a GIF image"),
        (saved(Image.fromarray(RAMP8), "WEBP"), "a WebP image"),
        (saved(Image.fromarray(RAMP8), "JPEG2000"), "a JPEG 2000 image"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"\x1f\x8b....", "a gzip archive"),
        (b"hello, world" * 40, "something else"),
        (b"\x08\0\xff\xff\0\0\0\0" * 40, "something else"),
        (b"\x89", "something else"),
    ],
)
def test_other_formats_are_named(data: bytes, named: str) -> None:
    error = error_of(lambda: decode_frame(data, "film"))
    assert error.reason == "not_an_image"
    assert "expected PNG, JPEG, TIFF or DICOM, got " + named in error.message


def resized(data: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "_decode", lambda *_: pytest.fail("decoded"))
    error = error_of(lambda: decode_frame(resized(png(RAMP8), 60000, 60000), "film"))
    assert error.reason == "too_large"
    assert "60000 x 60000" in error.message
    assert (
        reason_of(
            tiff_of(RAMP8)
            .replace(struct.pack("<HHI", 257, 3, 1) + b"\x28\0", b"\x01\x01\3\0\1\0\0\0\xff\xff")
            .replace(struct.pack("<HHI", 256, 3, 1) + b"\x28\0", b"\x00\x01\3\0\1\0\0\0\xff\xff")
        )
        == "too_large"
    )
    jpeg = saved(Image.fromarray(RAMP8), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    assert reason_of(jpeg[:at] + b"\xff\xf0\xff\xf0" + jpeg[at + 4 :]) == "too_large"


def test_pillows_own_bomb_limit_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for kind in ("PNG", "JPEG", "TIFF"):  # above it a warning, which is an error here, above twice of it an error
        data = saved(Image.fromarray(RAMP8[:, :36]), kind)
        assert decode_frame(data, "film").pixels.shape == (40, 36)


def test_sizes() -> None:
    assert reason_of(resized(png(RAMP8), 0, 40)) in ("too_small", "corrupt")
    assert reason_of(png(RAMP8[:31])) == "too_small"
    assert reason_of(png(RAMP8 * 0)) == "constant"


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(RAMP8).convert("1"), "PNG"),
        saved(Image.fromarray(RAMP8).convert("1"), "TIFF"),
        saved(Image.fromarray(RAMP8).convert("CMYK"), "JPEG"),
        saved(Image.fromarray(RAMP8).convert("CMYK"), "TIFF"),
        saved(Image.fromarray(RAMP8.astype(np.float32)), "TIFF"),
        saved(Image.fromarray(RAMP8.astype(np.int32)), "TIFF"),
        tiff_of(RAMP16.astype(np.int16), sample_format=2),
        tiff_of(RAMP16.astype(np.float64), sample_format=3),
        tiff_of(RAMP16.astype(np.uint32)),
        tiff_of(RAMP16, ">", photometric=0),
    ],
    ids=["1-bit", "1-bit-tiff", "cmyk", "cmyk-tiff", "float", "int32", "int16", "float64", "uint32", "be-inverted"],
)
def test_unsupported_pixels(data: bytes) -> None:
    assert reason_of(data) == "unsupported_pixels"


def whole_files() -> dict[str, bytes]:
    grey, colour = NOISE16[..., 0], (NOISE16[..., :3] >> 8).astype(np.uint8)
    return {
        "png": png(grey),
        "png-colour": png(colour),
        "png-colour-16": cv2_bytes(".png", NOISE16[..., :3]),
        "jpeg": saved(Image.fromarray(colour[..., 0]), "JPEG"),
        "jpeg-progressive": saved(Image.fromarray(colour), "JPEG", progressive=True),
        "tiff": saved(Image.fromarray(grey), "TIFF"),
        "tiff-tags-last": tiff_of(grey),
        "tiff-lzw": saved(Image.fromarray(grey), "TIFF", compression="tiff_lzw"),
        "tiff-colour-16": cv2_bytes(".tif", NOISE16[..., :3]),
        "bigtiff": saved(Image.fromarray(grey), "TIFF", big_tiff=True),
    }


@pytest.mark.parametrize("kind", whole_files())
def test_a_cut_file_is_never_half_a_film(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = whole_files()[kind]
    whole = decode_frame(data, "film").pixels
    cuts = [*range(8, 400, 5), *range(400, len(data), max(1, len(data) // 50)), len(data) - 2, len(data) - 1]
    for cut in cuts:
        try:
            outcome = decode_frame(data[:cut], "film").pixels
        except InputError as error:
            outcome = error
        if isinstance(outcome, InputError):
            assert outcome.reason == "truncated", (cut, outcome)
        else:  # only what carries no pixels was cut
            assert cut > len(data) - 16
            assert (outcome == whole).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", whole_files())
def test_damage_never_escapes_as_another_error(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = whole_files()[kind]
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(4, min(len(data), 600), rng.integers(1, 5)):
            damaged[at] = rng.integers(256)
        try:
            frame = decode_frame(bytes(damaged), "film")
        except InputError:
            continue
        assert frame.pixels.max() < len(frame.lut)
    if not kind.startswith("tiff"):  # libtiff itself prints what is wrong with compressed data
        assert capfd.readouterr() == ("", "")


def test_damaged_png_is_corrupt() -> None:
    for data in (whole_files()["png"], whole_files()["png-colour-16"]):
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0xFF
        assert reason_of(bytes(damaged)) == "corrupt"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_half_a_jpeg_with_its_end_put_back(progressive: bool, keep: float) -> None:
    data = saved(Image.fromarray(NOISE16[..., 0].astype(np.uint8)), "JPEG", progressive=progressive)
    first = data.index(b"\xff\xda") + 10
    cut = first + int(keep * (len(data) - first))
    assert reason_of(data[:cut] + b"\xff\xd9") in ("truncated", "corrupt")
    assert reason_of(data[:cut] + data[cut + 60 :]) in ("truncated", "corrupt") if keep < 0.9 else True


def test_names_are_printed_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "film\n[missing] forged.png\x1b[2J\u202e"
    message = error_of(lambda: read_frame(path)).message
    assert message.isprintable()
    assert "film\\n[missing] forged.png" in message


def test_jpeg_padded_after_a_cut_that_keeps_its_thumbnail() -> None:
    exif = b"Exif\0\0" + b"\xff\xd8\xff\xda thumbnail \xff\xd9"
    data = saved(Image.fromarray(NOISE16[..., 0].astype(np.uint8)), "JPEG", exif=exif)
    assert decode_frame(data, "film").pixels.shape == (SIDE, SIDE)
    assert reason_of(data[: len(data) // 2] + bytes(len(data))) == "truncated"


def test_rows_that_are_missing_inside_a_whole_png() -> None:
    row = b"\0" + NOISE16[0, :, :3].astype(">u2").tobytes()
    assert reason_of(png_of(16, 2, row * 20)) == "truncated"
    assert reason_of(png_of(16, 0, (b"\0" + NOISE16[0, :, 0].astype(">u2").tobytes()) * 20)) == "truncated"


def test_import_is_light() -> None:
    heavy = ("cv2", "PIL", "pydicom", "torch")
    code = f"import sys, msloc_edge.imaging.reading\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Real films


def test_real_jpeg(shared_data: Path) -> None:
    path = next(iter(sorted((shared_data / "nih").rglob("*.jpg"))), None) or next(
        iter(sorted((shared_data / "nih").rglob("*.png")))
    )
    frame = read_frame(path)
    assert isinstance(frame, Frame)
    assert frame.pixels.shape == (512, 512)
    assert 0.2 < frame.display().mean() < 0.8
