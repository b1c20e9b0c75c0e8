"""The PTX of fuse_cams that ships, executed: every form of every device against the reference in float64."""

from __future__ import annotations

from functools import cache

import pytest
from shipped import Outcome, Shipped, of_variant
from shipped.fuse_cams import Case, run, run_peaks

from msloc_edge.kernels.aot.build import DEVICES

DTYPES = ("fp16", "fp32")
NAN, INFINITE = float("nan"), float("inf")

STRIDED = {
    "one tile": Case((32, 64), 32),
    "two films": Case((64, 96), 16, batch=2, count=3),
    "a second tile of columns, cut": Case((96, 288), 32),
    "made anew every 32 rows, a second tile of rows, cut": Case((160, 64), 128),
    "NaN": Case((64, 96), 32, spoilt=(0, NAN)),
    "infinite": Case((64, 96), 32, spoilt=(2, -INFINITE)),
}

WANTED = {
    "two films": Case((32, 64), 16, batch=2, count=3, classes=((2, 2), (0, 1))),
    "no such class": Case((64, 96), 64, batch=2, count=3, classes=((-1, 1), (3, 2**31 - 1))),
}

LOCATED = {
    "one tile": Case((32, 64), 32),
    "films beside each other and above": Case((64, 96), 16, batch=2, content=((0, 17, 64, 50), (9, 0, 41, 96))),
    "a second tile, a film of one row and one of one pixel": Case(
        (96, 288), 32, batch=2, content=((70, 0, 1, 288), (95, 287, 1, 1))
    ),
    "NaN": Case((64, 96), 32, spoilt=(0, NAN), content=((3, 5, 50, 80),)),
    "flat": Case((32, 64), 16, flat=True, content=((3, 5, 20, 31),)),
}

GENERAL = {
    "odd": Case((37, 51), 8, grids=((9, 13), (5, 7), (3, 4), (1, 1)), batch=2, count=3, classes=((0, 2), (1, 1))),
    "maps as large, and larger": Case((23, 131), 16, grids=((23, 131), (29, 140), (2, 1), (1, 3))),
    "no such class": Case((61, 128), 128, grids=((16, 32), (8, 16), (4, 8), (2, 4)), classes=((1, -1, 5),)),
    "one pixel": Case((1, 1), 8, grids=((1, 1), (2, 2), (3, 3), (1, 2))),
    "a stage of one column, a warp less": Case((9, 96), 8, grids=((1, 1), (3, 2), (1, 3), (2, 2))),
    "three stages of one column": Case((9, 7), 8, grids=((2, 3), (3, 1), (1, 1), (2, 1))),
    "at the threshold": Case((9, 5), 8, grids=((3, 2), (1, 1), (2, 2), (1, 1)), flat=True),
    "divisions too small": Case((37, 51), 8, grids=((9, 13), (5, 7), (3, 4), (1, 1)), ulps=-2),
    "divisions too large": Case((37, 51), 8, grids=((9, 13), (5, 7), (3, 4), (1, 1)), ulps=2),
}


@cache
def outcome(form: Shipped, peaks: Shipped, case: Case) -> Outcome:
    """Devices whose PTX differs in its header alone share what was executed."""
    return run(form, peaks, case)


def check(name: str, sm: int, case: Case) -> None:
    found = outcome(of_variant(name, sm), of_variant("fuse_cams.peaks.fp32", sm), case)
    assert found.right, found


@pytest.mark.parametrize("sm", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", STRIDED)
def test_maps(case: str, dtype: str, sm: int) -> None:
    check(f"fuse_cams.maps.{dtype}", sm, STRIDED[case])


@pytest.mark.parametrize("sm", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", WANTED)
def test_wanted_maps(case: str, dtype: str, sm: int) -> None:
    check(f"fuse_cams.wanted.{dtype}", sm, WANTED[case])


@pytest.mark.parametrize("sm", DEVICES)
@pytest.mark.parametrize("case", LOCATED)
def test_maps_with_their_peaks(case: str, sm: int) -> None:
    check("fuse_cams.located.fp32", sm, LOCATED[case])


@pytest.mark.parametrize("sm", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", GENERAL)
def test_findings(case: str, dtype: str, sm: int) -> None:
    check(f"fuse_cams.findings.{dtype}", sm, GENERAL[case])


@pytest.mark.parametrize("parts", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("sm", DEVICES)
def test_peaks(parts: int, sm: int) -> None:
    found = run_peaks(of_variant("fuse_cams.peaks.fp32", sm), 3, parts)
    assert found.right, found
