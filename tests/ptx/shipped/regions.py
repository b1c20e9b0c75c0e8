"""Cases of regions: the runs of maps, and the table of their regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from interpreter import Memory
from numpy.typing import NDArray

from msloc_edge.kernels.regions import reference

from .forms import Outcome, Shipped, exact, written

COLUMNS = reference.COLUMNS


@dataclass(frozen=True, slots=True)
class Case:
    """What is in a launch's maps.

    rows         one map as a drawing, # is above the threshold; None: smooth noise of `size`
    threshold    of the first map of a film; others have higher ones
    content      of each film: top, left, height, width; None: all
    max_regions  rows of a table
    """

    rows: tuple[str, ...] | None = None
    size: tuple[int, int] = (0, 0)
    batch: int = 1
    wanted: int = 1
    threshold: float = 0.0
    content: tuple[tuple[int, int, int, int], ...] | None = None
    max_regions: int = 64


def maps_of(case: Case, dtype: type[np.floating]) -> NDArray[np.floating]:
    """The maps [B, J, H, W]; of a drawing, with values that differ, NaN and 0 among those that exceed nothing."""
    if case.rows:
        over = np.array([[character == "#" for character in row] for row in case.rows])
        values = np.arange(over.size).reshape(over.shape) * 7 % 11 + 1.0
        under = np.select([values == 3, values == 5], [np.nan, 0.0], -values)  # 0 is the threshold
        drawn = np.where(over, values, under).astype(dtype)
        return np.broadcast_to(drawn, (case.batch, case.wanted, *over.shape)).copy()
    draw, (height, width) = np.random.default_rng(sum(case.size)), case.size
    coarse = torch.from_numpy(draw.normal(size=(case.batch, case.wanted, 2 + height // 5, 2 + width // 5)))
    smooth = torch.nn.functional.interpolate(coarse, case.size, mode="bilinear", align_corners=False)
    return smooth.numpy().astype(dtype)


def run(runs_form: Shipped, regions_form: Shipped, case: Case) -> tuple[Outcome, Outcome]:
    """Run both kernels, one after the other; the error of both is that of the table."""
    memory = Memory()
    maps = maps_of(case, runs_form.numpy_type)
    batch, wanted, height, width = maps.shape
    thresholds = np.linspace(case.threshold, case.threshold + 0.25, wanted).astype(np.float32)
    content = np.array(case.content or [(0, 0, height, width)] * batch, np.int32)
    sizes = {"B": batch, "J": wanted, "H": height, "W": width, "max_regions": case.max_regions}
    inputs = {"maps": maps, "thresholds": thresholds, "content": content}
    scratch = runs_form.empty(memory, "runs", (4 * -(-width // 2) + 1) * height * batch * wanted, np.int32)
    first = runs_form.launch(
        memory,
        {**sizes, **{name: runs_form.put(memory, name, array) for name, array in inputs.items()}, "runs": scratch},
    )
    counts = regions_form.empty(memory, "counts", batch * wanted, np.int32)
    table = regions_form.empty(memory, "table", batch * wanted * case.max_regions * COLUMNS, np.int32)
    second = regions_form.launch(memory, {**sizes, "runs": scratch, "counts": counts, "table": table})
    right = [torch.from_numpy(array) for array in inputs.values()]
    error = max(_error(memory[counts], memory[table], *right, case.max_regions), written(memory, counts))
    return Outcome(error, 0.0, maps.size, first), Outcome(error, 0.0, maps.size, second)


def _error(
    counts: NDArray[np.int32], table: NDArray[np.int32], maps: torch.Tensor, thresholds: torch.Tensor,
    content: torch.Tensor, max_regions: int,
) -> float:  # fmt: skip
    right_counts, right_table = (
        found.numpy() for found in reference.regions(maps, thresholds, content, maps.shape[2] * maps.shape[3])
    )
    error = exact(counts, right_counts)
    found = table.reshape(-1, max_regions, COLUMNS)
    for count, rows, expected in zip(
        right_counts.ravel(), found, right_table.reshape(len(found), -1, COLUMNS), strict=True
    ):
        kept = {tuple(row) for row in rows[: min(count, max_regions)].tolist()}
        all_of_them = {tuple(row) for row in expected[:count].tolist()}
        if len(kept) != min(count, max_regions) or not kept <= all_of_them:
            return float("inf")
    return error
