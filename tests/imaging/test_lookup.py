"""Windowing by a table: OpenCV and numpy give the same, whatever the depth and the layout."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from msloc_edge._lookup import look_up


@pytest.fixture(params=["this OpenCV", "OpenCV 4"])
def opencv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older one has no tables for 16 bits."""
    if request.param == "OpenCV 4":
        own = cv2.LUT

        def older(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
            if len(table) != 256:
                raise cv2.error("(-215:Assertion failed) lut.total() == 256")
            return np.asarray(own(pixels, table))

        monkeypatch.setattr(cv2, "LUT", older)


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize("bits", [1, 7, 8, 10, 12, 16])
def test_every_depth(bits: int) -> None:
    draw = np.random.default_rng(bits)
    table = draw.random(2**bits, np.float32)
    pixels = draw.integers(0, 2**bits, (37, 53)).astype(np.uint8 if bits <= 8 else np.uint16)
    for layout in (pixels, pixels[::2, 1::3], np.asfortranarray(pixels)):
        found = look_up(table, layout)
        assert found.dtype == np.float32
        assert np.array_equal(found, table[layout])


@pytest.mark.usefixtures("opencv")
def test_one_row_and_one_pixel() -> None:
    table = np.linspace(0, 1, 4096, dtype=np.float32)
    for shape in ((1, 1), (1, 9), (9, 1)):
        pixels = np.full(shape, 4095, np.uint16)
        assert np.array_equal(look_up(table, pixels), np.ones(shape, np.float32))
