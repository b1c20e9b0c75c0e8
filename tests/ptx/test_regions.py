"""The PTX of regions that ships, executed: every form of every device against the reference."""

from __future__ import annotations

from functools import cache

import pytest
from shipped import Outcome, Shipped, of_variant
from shipped.regions import Case, run

from msloc_edge.kernels.aot.build import DEVICES

DTYPES = ("fp16", "fp32")

SPIRALS = ("#######.", "......#.", "#.###.#.", "#.#.#.#.", "#.#...#.", "#.#####.", "#.......", "########")
COMB = ("#.#.#.#", "###.###", ".#...#.", ".#####.", ".......", "##.....", "..##...")

EDGES = ((0, 33, 3, 20), (1, 65, 2, 20), (0, 97, 2, 20), (0, 5, 3, 141))
"""Content that begins and ends at columns of each of the four pixels that a thread has of a turn."""

CASES = {
    "spirals": Case(SPIRALS),
    "two films": Case(COMB, batch=2, content=((1, 0, 5, 6), (-2, 2, 7, 99))),
    "peaks below 0, and 0 itself": Case(COMB, threshold=-4.5),
    "nothing inside": Case(COMB, content=((5, 0, 0, 7),)),
    "more than the table has": Case(COMB, max_regions=1),
    "nothing": Case(("." * 9,) * 3),
    "all": Case(("#" * 9,) * 3),
    "two turns along x": Case(size=(17, 150), batch=2, wanted=2, content=((3, 5, 10, 140), (0, 0, 17, 150))),
    "edges in every part of a turn": Case(("#" * 150,) * 3, batch=4, content=EDGES),
    "two turns along y": Case(size=(520, 9)),
}


@cache
def outcomes(runs: Shipped, regions: Shipped, case: Case) -> tuple[Outcome, Outcome]:
    """Devices whose PTX differs in its header alone share what was executed."""
    return run(runs, regions, case)


@pytest.mark.parametrize("sm", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_regions(case: str, dtype: str, sm: int) -> None:
    forms = of_variant(f"regions.runs.{dtype}", sm), of_variant("regions.regions.fp32", sm)
    for found in outcomes(*forms, CASES[case]):
        assert found.right, found
