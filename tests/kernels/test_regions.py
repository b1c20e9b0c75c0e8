"""Connected regions: the reference against a flood fill, the Triton kernels against the reference, the host's reader.

The kernels run in Triton's interpreter, in a process of its own (see test_fuse_cams_kernel.py), and on a GPU if there
is one. The interpreter takes milliseconds for each row of a map: shapes are small.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from msloc_edge.kernels.regions import reference, table
from msloc_edge.maps import Region
from msloc_edge.maps import regions as on_the_cpu

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86-64 only")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the process of test_in_the_interpreter")
once = pytest.mark.skipif(INTERPRETED, reason="needs no interpreter")

POISON = -0x5A5A5A5B
"""What results and scratch memory hold before they are written."""

GUARD = 64
"""Elements behind them, which nobody may write."""

DRAWN = {
    "one region by corners": ["#.#.#", ".#.#.", "#.#.#"],
    "corners touch, both ways": ["##...", "..##.", "##..."],
    "a gap of one": ["##.##", "##.##", ".....", "#.###"],
    "a comb": ["#.#.#.#", "#.#.#.#", "#.#.#.#", "#######"],
    "combs of combs": ["#.#.#.#", "###.###", ".#...#.", ".#####."],
    "a spiral": [
        "#######",
        "......#",
        "#####.#",
        "#...#.#",
        "#.###.#",
        "#.....#",
        "#######",
    ],
    "two spirals": ["#######.", "......#.", "#.###.#.", "#.#.#.#.", "#.#...#.", "#.#####.", "#.......", "########"],
    "rings": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"],
    "a zigzag down": ["#......", ".#.....", "..#....", ".#.....", "#......", ".#.....", "..#...."],
    "joined only by the last row": ["#.....#", "#.....#", "#.#.#.#", "#.#.#.#", "#######"],
    "joined from the right": ["....#", "...#.", "..#..", ".#..#", "#..#.", "..#..", "#####"],
}
"""# is above the threshold."""


def pixels_of(drawing: Sequence[str]) -> Tensor:
    """A map [1, 1, H, W] whose values differ: 1 and more above the threshold, below 0 elsewhere."""
    over = torch.tensor([[character == "#" for character in row] for row in drawing])
    values = torch.arange(over.numel()).view(over.shape) * 7 % 11 + 1.0
    return torch.where(over, values, -values)[None, None]


def by_first(counts: Tensor, entries: Tensor) -> list[list[list[list[int]]]]:
    """The rows [B][J] that a table holds, in reading order."""
    max_regions = entries.shape[2]
    return [
        [sorted(entries[b, j, : min(count, max_regions)].tolist()) for j, count in enumerate(row)]
        for b, row in enumerate(counts.tolist())
    ]


def check(maps: Tensor, thresholds: Tensor, content: Tensor | None = None, max_regions: int = 64) -> None:
    """Every number of every region, as the reference has it; of more than `max_regions`, that many different ones."""
    from msloc_edge.kernels.regions.launch import regions

    found = regions(maps, thresholds, content, max_regions)
    cpu = None if content is None else content.cpu()
    counts, entries = reference.regions(maps.cpu(), thresholds.cpu(), cpu, prod(maps.shape[2:]))
    assert torch.equal(found.counts.cpu(), counts)
    assert found.table.shape == (*maps.shape[:2], max_regions, 8)
    expected, rows = by_first(counts, entries), by_first(found.counts, found.table.cpu())
    for expected_of_film, of_film in zip(expected, rows, strict=True):
        for all_rows, kept in zip(expected_of_film, of_film, strict=True):
            if len(all_rows) <= max_regions:
                assert kept == all_rows
            else:
                assert len(kept) == max_regions == len({tuple(row) for row in kept} & {tuple(row) for row in all_rows})


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results and scratch memory start as nonsense, and what lies behind them must stay so."""
    buffers: list[tuple[Tensor, int]] = []

    def empty(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        buffers.append((torch.full((prod(shape) + GUARD,), POISON, dtype=dtype, device=device), prod(shape)))
        return buffers[-1][0][: prod(shape)].view(*shape)

    monkeypatch.setattr(torch, "empty", empty)
    yield
    assert all(bool((buffer[used:] == POISON).all()) for buffer, used in buffers)


@once
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The reference


def flood_fill(values: np.ndarray, over: np.ndarray) -> list[list[int]]:
    """Rows of a table, the slow and plain way."""
    todo, width = {(int(y), int(x)) for y, x in np.argwhere(over)}, values.shape[1]
    found = []
    while todo:
        region, edge = [], [todo.pop()]
        while edge:
            y, x = edge.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            edge += near
        ys, xs = zip(*region, strict=True)
        highest = np.float32(max(float(values[place]) for place in region)) + np.float32(0)
        box = [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        found.append([min(y * width + x for y, x in region), *box, len(region), int(highest.view(np.int32)), 0])
    return sorted(found)


@once
@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    content=st.tuples(st.integers(-2, 8), st.integers(-2, 8), st.integers(0, 14), st.integers(0, 14)),
    threshold=st.sampled_from([-np.inf, -0.5, 0.0, 0.5, np.inf, np.nan]),
)
def test_the_reference_is_a_flood_fill(
    seed: int, shape: tuple[int, int], content: tuple[int, int, int, int], threshold: float
) -> None:
    values = np.random.default_rng(seed).choice(
        np.array([-np.inf, -1, -0.25, -0.0, 0, 0.3, 2, np.inf, np.nan], np.float32), shape
    )
    top, left, height, width = content
    rows, columns = np.indices(shape)
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    counts, entries = reference.regions(
        torch.from_numpy(values)[None, None],
        torch.tensor([threshold], dtype=torch.float32),
        torch.tensor([content], dtype=torch.int32),
        values.size,
    )
    expected = flood_fill(values, (values > np.float32(threshold)) & inside)
    assert counts.tolist() == [[len(expected)]]
    assert entries[0, 0, : len(expected)].tolist() == expected
    assert not entries[0, 0, len(expected) :].any()


@once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": torch.zeros(3, 8, 9)}, r"float16 maps of shape \[B, J, H, W\], got \(3, 8, 9\)"),
        ({"maps": torch.zeros(2, 3, 8, 9, dtype=torch.float64)}, r"got \(2, 3, 8, 9\) torch.float64"),
        ({"maps": torch.zeros(2, 3, 0, 9)}, r"\[B, J, H, W\], got \(2, 3, 0, 9\)"),
        ({"thresholds": torch.zeros(2)}, r"float32 thresholds of shape \(3,\), got \(2,\)"),
        ({"thresholds": torch.zeros(3, dtype=torch.float64)}, "got .* torch.float64"),
        ({"content": torch.zeros(1, 4, dtype=torch.int32)}, r"int32 content of shape \(2, 4\), got \(1, 4\)"),
        ({"content": torch.zeros(2, 4)}, r"got \(2, 4\) torch.float32"),
        ({"max_regions": 0}, "at least one row, got 0"),
    ],
)
def test_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    from msloc_edge.kernels.regions import launch

    arguments = {"maps": torch.zeros(2, 3, 8, 9), "thresholds": torch.zeros(3), **changes}
    for regions in (reference.regions, launch.regions):
        with pytest.raises(ValueError, match=message):
            regions(**arguments)


@once
def test_what_does_not_fit_the_kernels() -> None:
    from msloc_edge.kernels.regions.launch import Regions, regions

    maps, thresholds = torch.zeros(2, 3, 8, 9), torch.zeros(3)
    counts, entries = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3, 5, 8, dtype=torch.int32)
    with pytest.raises(ValueError, match="contiguous tensors on one device"):
        regions(maps.mT, thresholds)
    with pytest.raises(ValueError, match=r"results of shapes \[\(2, 3\), \(2, 3, 64, 8\)\], got .*\(2, 3, 5, 8\)"):
        regions(maps, thresholds, out=Regions(counts, entries))
    with pytest.raises(ValueError, match="results of shapes"):
        regions(maps, thresholds, max_regions=5, out=Regions(counts.long(), entries))
    with pytest.raises(ValueError, match="smaller or fewer maps"):
        regions(torch.zeros(1).expand(1, 1, 2**15, 2**15), torch.zeros(1))
    with pytest.raises(ValueError, match="smaller or fewer maps"):
        regions(torch.zeros(1).expand(2**16, 1, 1, 1), torch.zeros(1))


# The host's reader


def entry(*numbers: int, peak: float) -> list[int]:
    return [*numbers, int(np.float32(peak).view(np.int32)), 0]


@once
def test_rows_are_sorted_and_nothing_past_the_count_is_read() -> None:
    max_regions = 3
    entries = np.full((1, 4, max_regions, 8), POISON, np.int32)
    entries[0, 1, :3] = [
        entry(40, 4, 4, 8, 8, 16, peak=-1.5),
        entry(9, 1, 1, 2, 2, 1, peak=2.5),
        entry(3, 3, 0, 4, 1, 1, peak=2.5),
    ]
    entries[0, 2, 0] = entry(0, 0, 0, 8, 8, 64, peak=np.inf)
    found = table.rows(np.array([[0, 3, 1, 4]], np.int32), entries)
    assert found == [
        [
            [],
            [Region(3, 3, 0, 4, 1, 1, 2.5), Region(9, 1, 1, 2, 2, 1, 2.5), Region(40, 4, 4, 8, 8, 16, -1.5)],
            [Region(0, 0, 0, 8, 8, 64, np.inf)],
            None,
        ]
    ]


@once
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_rows_of_no_map(shape: tuple[int, int]) -> None:
    assert table.rows(np.zeros(shape, np.int32), np.zeros((*shape, 64, 8), np.int32)) == [[]] * shape[0]


@once
def test_the_reader_needs_no_engine() -> None:
    script = "import sys, msloc_edge.kernels.regions.table; assert not {'torch', 'triton'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True)


@once
@settings(max_examples=50)
@given(seed=st.integers(0, 2**31), levels=st.integers(2, 9), threshold=st.sampled_from([-0.5, 0.0, 0.25]))
def test_regions_of_the_reference_are_those_of_the_cpu(seed: int, levels: int, threshold: float) -> None:
    coarse = np.random.default_rng(seed).normal(size=(9, 7))
    values = np.kron(np.round(coarse * levels) / levels, np.ones((4, 5))).astype(np.float32)  # equal peaks, too
    found = reference.regions(torch.from_numpy(values)[None, None], torch.tensor([threshold]), max_regions=values.size)
    assert table.rows(*(part.numpy() for part in found)) == [[on_the_cpu(values, threshold)]]


# The kernels


@interpreted
@pytest.mark.parametrize("quarters", [0, 1])
def test_drawings(quarters: int) -> None:
    """All of them one below the other, a row between: the interpreter takes no longer for more rows at a time."""
    turned = [pixels_of(drawing).rot90(quarters, (2, 3)) for drawing in DRAWN.values()]
    widest = max(drawing.shape[3] for drawing in turned)
    padded = [F.pad(drawing, (0, widest - drawing.shape[3], 0, 1), value=-1.0) for drawing in turned]
    check(torch.cat(padded, dim=2), torch.zeros(1))


@interpreted
@pytest.mark.parametrize("shape", [(1, 1), (1, 13), (11, 1), (5, 4), (4, 5)])
def test_shapes(shape: tuple[int, int]) -> None:
    rows, columns = np.indices(shape)
    board = torch.from_numpy((rows + columns) % 2).float()
    noise = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
    check(torch.stack([board, noise, noise])[None], torch.tensor([0.5, 0.5, -1.0]))


@interpreted
@pytest.mark.parametrize(("columns", "rows"), [(4, 4), (1, 2)])
def test_maps_of_several_turns(columns: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from msloc_edge.kernels.regions import launch

    monkeypatch.setattr(launch, "MAX_COLUMNS", columns)
    monkeypatch.setattr(launch, "ROWS", rows)
    noise = torch.from_numpy(np.random.default_rng(rows).random((1, 1, 6, 9), np.float32))
    check(noise, torch.tensor([0.4]))
    falling = torch.arange(33.0, 0, -1).view(1, 1, 3, 11)  # the peak lies turns before the end of its run
    check(falling, torch.tensor([4.0]))


@interpreted
@pytest.mark.parametrize("max_regions", [1, 3])
def test_more_regions_than_the_table_holds(max_regions: int) -> None:
    dots = pixels_of(["#.#.#.#", "#.#.#.#", ".......", "#.#.###", "#.#..#."])
    check(torch.cat([-dots.abs(), dots.abs(), dots], dim=1), torch.zeros(3), max_regions=max_regions)


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_values_that_are_not_finite() -> None:
    nan, inf = float("nan"), float("inf")
    values = [[1.0, nan, 1.0, inf, -inf, 2.0], [nan, nan, -inf, inf, nan, -1.0], [-0.0, 0.0, nan, -2.0, -inf, inf]]
    maps = torch.tensor(values).expand(1, 7, 3, 6).contiguous()
    check(maps, torch.tensor([0.5, -inf, inf, nan, -1.5, 0.0, 1e30]))


@interpreted
def test_negative_peaks() -> None:
    values = torch.tensor([[-3.0, -1.5, -9.0, -0.0, -9.0], [-2.0, -2.5, -9.0, -4.0, -1e-42]])
    check(values[None, None].clone(), torch.tensor([-5.0]))


@interpreted
def test_only_the_content() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 1, 6, 7))).half()
    places = [[0, 0, 6, 7], [1, 2, 3, 4], [0, 3, 6, 1], [5, 0, 1, 7], [2, 2, 0, 4], [2, 2, 3, 0], [-2, -1, 5, 30]]
    check(maps, torch.tensor([-0.25]), torch.tensor(places, dtype=torch.int32))


@interpreted
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4)])
def test_no_map(shape: tuple[int, int, int, int]) -> None:
    check(torch.zeros(shape), torch.zeros(shape[1]))


@interpreted
def test_results_of_the_caller() -> None:
    from msloc_edge.kernels.regions.launch import Regions, regions

    out = Regions(torch.full((1, 1), POISON, dtype=torch.int32), torch.full((1, 1, 4, 8), POISON, dtype=torch.int32))
    for drawing in (["##.", "..#", "..."], ["...", "...", "..."], ["#.#", "...", "#.#"]):  # one after the other
        maps = pixels_of(drawing)
        assert regions(maps, torch.zeros(1), max_regions=4, out=out) is out
        expected = reference.regions(maps, torch.zeros(1), max_regions=4)
        assert by_first(out.counts, out.table) == by_first(*expected)


@interpreted
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 17)),
    threshold=st.floats(-1.5, 1.5, width=32),
    smooth=st.booleans(),
)
def test_any_map(seed: int, shape: tuple[int, int], threshold: float, smooth: bool) -> None:
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 1, *(-(-side // 3) if smooth else side for side in shape)), generator=source)
    maps = F.interpolate(coarse, shape, mode="bilinear")
    check(maps, torch.tensor([threshold]))


@interpreted
@pytest.mark.parametrize("seed", range(2))
def test_regions_are_those_of_the_cpu(seed: int) -> None:
    from msloc_edge.kernels.regions.launch import regions

    coarse = torch.randn(1, 1, 4, 5, generator=torch.Generator().manual_seed(seed))
    maps = F.interpolate(coarse, (19, 23), mode="bilinear")
    found = regions(maps, torch.tensor([0.25]))
    assert table.rows(found.counts.numpy(), found.table.numpy()) == [[on_the_cpu(maps[0, 0].numpy(), 0.25)]]


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    """At real size, and again from a CUDA graph: a race would show as another table."""
    from msloc_edge.kernels.regions.launch import Regions, regions

    source = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 14, 24, 24, generator=source)
    maps = F.interpolate(coarse, (512, 512), mode="bilinear").to(dtype)
    maps[0, 0] = torch.randn(512, 512, generator=source)
    maps[0, 1] = (torch.arange(512) % 2).float()  # a comb: all of its teeth are joined by the last row
    maps[0, 1, -1] = 1.0
    maps[1, 1] = (torch.arange(512)[:, None] + torch.arange(512)) % 2
    thresholds = torch.linspace(-0.5, 2.0, 14)
    content = torch.tensor([[0, 0, 512, 512], [30, 7, 450, 499]], dtype=torch.int32)
    on_device = [tensor.cuda() for tensor in (maps, thresholds, content)]
    for max_regions in (64, 100_000):
        check(*on_device, max_regions=max_regions)
    out = Regions(
        torch.full((2, 14), POISON, dtype=torch.int32, device="cuda"),
        torch.full((2, 14, 100_000, 8), POISON, dtype=torch.int32, device="cuda"),
    )
    found = regions(*on_device, max_regions=100_000)
    expected = by_first(found.counts.cpu(), found.table.cpu())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        regions(*on_device, max_regions=100_000, out=out)
    for _ in range(20):
        out.counts.fill_(POISON)
        out.table.fill_(POISON)
        graph.replay()
        assert by_first(out.counts.cpu(), out.table.cpu()) == expected
