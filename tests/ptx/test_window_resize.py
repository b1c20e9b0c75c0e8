"""The PTX of window_resize that ships, executed: every form of every device against the reference in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from shipped import Outcome, Shipped, of_variant
from shipped.window_resize import Case, run

from msloc_edge.kernels.aot.build import DEVICES

DTYPES = ("fp16", "fp32")

SHRINK = {
    "shrinks": Case((40, 30), (8, 8), 8),
    "two programs a row, letterbox above": Case((37, 150), (20, 70), 5),
    "letterbox beside, whole programs in it": Case((61, 13), (7, 66), 8),
    "windows wider than a turn": Case((23, 301), (9, 9), 8),
    "as large, with stray bits": Case((9, 9), (9, 9), 7, stray=True),
    "one pixel": Case((1, 1), (1, 1), 1),
    "begins in the fourth part of a program": Case((16, 200), (8, 200), 8),
    "ends in the third": Case((16, 40), (8, 200), 5),
    "an input that ends in the second": Case((48, 48), (24, 24), 7),
    "in the third": Case((20, 80), (10, 40), 8),
    "in the fourth": Case((9, 110), (9, 56), 8),
    "the division too small": Case((40, 30), (8, 8), 8, ulps=-2),
    "the division too large": Case((40, 30), (8, 8), 8, ulps=2),
}
ENLARGE = {
    "enlarges": Case((5, 7), (16, 24), 8),
    "letterbox above": Case((2, 5), (30, 10), 7),
    "without a letterbox": Case((4, 6), (16, 24), 5),
    "two programs a row, with stray bits": Case((3, 2), (9, 200), 5, stray=True),
    "an input that ends in the second half of a program": Case((5, 30), (9, 80), 8),
    "one pixel": Case((1, 1), (3, 5), 1),
}
DEEP = {8: 12, 5: 16, 7: 10, 1: 2}
"""Bits of a film of 8 or fewer -> of the one of 16 that is tried in its place."""


@cache
def outcome(form: Shipped, case: Case) -> Outcome:
    """Devices whose PTX differs in its header alone share what was executed."""
    return run(form, case)


@pytest.mark.parametrize("sm", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", ["u8", "u16"])
@pytest.mark.parametrize(("way", "case"), [*(("shrink", c) for c in SHRINK), *(("enlarge", c) for c in ENLARGE)])
def test_film(way: str, case: str, pixels: str, dtype: str, sm: int) -> None:
    film = {"shrink": SHRINK, "enlarge": ENLARGE}[way][case]
    if pixels == "u16":
        film = replace(film, bits=DEEP[film.bits])
    found = outcome(of_variant(f"window_resize.{pixels}-{way}.{dtype}", sm), film)
    assert found.right, found
