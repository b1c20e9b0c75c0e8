"""The level of a map, against the regions that the runtime finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msloc_edge.maps.regions import regions
from msloc_edge.train.calibration.observe import region_level


@pytest.mark.parametrize(
    ("min_area", "level"),
    [(1, 9), (2, 5), (3, 4), (4, 3), (5, 1), (12, 0), (13, -np.inf)],
)
def test_level_by_hand(min_area: int, level: float) -> None:
    # 9 is alone; 5 and 5 touch by their corners, then 4, then 3; 1 joins them with 9.
    found = np.array([[9, 1, 5, 0], [0, 0, 4, 5], [0, 0, 3, 0]], np.float32)
    assert region_level(found, min_area) == level


@given(
    seed=st.integers(0, 10_000),
    steps=st.sampled_from([3, 20, 1000]),
    min_area=st.sampled_from([1, 2, 5, 16, 60]),
)
def test_a_map_has_a_region_exactly_below_its_level(seed: int, steps: int, min_area: int) -> None:
    found = np.random.default_rng(seed).integers(0, steps, (9, 11)).astype(np.float32)
    level = region_level(found, min_area)
    for threshold in np.unique(found):
        has = any(region.area >= min_area for region in regions(found, float(threshold)))
        assert has == (threshold < level)
