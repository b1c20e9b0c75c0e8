"""The launchers of torch, with what Triton compiles for them: executed on tensors of the host, and compiled seldom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from shipped.jit import Launched, interpreted
from torch import Tensor
from triton import knobs

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.fuse_cams import launch as fuse_cams_launch
from msloc_edge.kernels.fuse_cams import reference as fuse_cams_reference
from msloc_edge.kernels.regions import launch as regions_launch
from msloc_edge.kernels.regions import reference as regions_reference
from msloc_edge.kernels.window_resize import launch as window_resize_launch
from msloc_edge.kernels.window_resize import reference as window_resize_reference

ERROR = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
"""RMS, relative, by the type that is stored."""

NETWORK = [(16, 24), (8, 12), (4, 6), (2, 3)]
CONTENT = torch.tensor([[3, 5, 20, 40], [0, 40, 99, 7]], dtype=torch.int32)
RAGGED = [(5, 7), (9, 13), (1, 1)]


@pytest.fixture
def launches() -> Iterator[list[Launched]]:
    """Of all kernels in a test; none of them has a race."""
    with interpreted() as found:
        yield found
    assert found
    assert [launched.executed.races for launched in found if launched.executed.races] == []


def drawn(grids: list[tuple[int, int]], dtype: torch.dtype, count: int = 3) -> tuple[list[Tensor], Tensor]:
    """Class maps of two films, and their relevance."""
    draw = torch.Generator().manual_seed(count)
    cams = [torch.randn(2, count, *grid, generator=draw).to(dtype) for grid in grids]
    return cams, torch.rand(count, len(grids), generator=draw)


def right_maps(cams: list[Tensor], relevance: Tensor, size: tuple[int, int]) -> Tensor:
    return fuse_cams_reference.fuse_cams([cam.double() for cam in cams], relevance.double(), size)


def rms(found: Tensor, right: Tensor) -> float:
    return float(((found.double() - right) ** 2).mean().sqrt() / (right**2).mean().sqrt())


@pytest.mark.parametrize("dtype", list(ERROR))
def test_maps_and_peaks_of_a_network_inside_the_film(dtype: torch.dtype, launches: list[Launched]) -> None:
    cams, relevance = drawn(NETWORK, dtype)
    found = fuse_cams_launch.fuse_cams(cams, relevance, (64, 96), content=CONTENT, peaks=True)
    right = right_maps(cams, relevance, (64, 96))
    values, places = fuse_cams_reference.peaks(right, CONTENT)
    assert [launched.compiled.name for launched in launches] == ["fuse_cams_strided_kernel", "fuse_cams_peaks_kernel"]
    assert rms(found.maps, right) <= ERROR[dtype]
    assert rms(found.values, values) <= ERROR[torch.float32]
    assert torch.equal(found.positions, places)


@pytest.mark.parametrize(
    ("strides", "size"), [((4,), (20, 12)), ((12, 4), (36, 72)), ((24, 8, 48), (48, 96)), ((32, 16), (96, 64))]
)
def test_maps_of_other_strides(strides: tuple[int, ...], size: tuple[int, int], launches: list[Launched]) -> None:
    """Also where the height is no multiple of 16, and where a stride does not divide 16."""
    cams, relevance = drawn([(size[0] // stride, size[1] // stride) for stride in strides], torch.float32)
    found = fuse_cams_launch.fuse_cams(cams, relevance, size)
    assert [launched.compiled.name for launched in launches] == ["fuse_cams_strided_kernel"]
    assert rms(found.maps, right_maps(cams, relevance, size)) <= ERROR[torch.float32]


@pytest.mark.parametrize("dtype", list(ERROR))
def test_all_outputs_of_maps_of_any_size(dtype: torch.dtype, launches: list[Launched]) -> None:
    cams, relevance = drawn(RAGGED, dtype)
    right = right_maps(cams, relevance, (63, 91))
    thresholds = torch.tensor([-0.1, 0.2, 0.4])
    found = fuse_cams_launch.fuse_cams(
        *(cams, relevance, (63, 91)), thresholds=thresholds, content=CONTENT, peaks=True, mask=True, index=True
    )
    limits = thresholds.expand(2, 3)
    index = fuse_cams_reference.color_index(right, limits).int()
    assert launches[0].compiled.name == "fuse_cams_kernel"
    assert rms(found.maps, right) <= ERROR[dtype]
    assert torch.equal(found.positions, fuse_cams_reference.peaks(right, CONTENT)[1])
    assert torch.equal(found.mask, fuse_cams_reference.mask(right, limits))
    assert torch.equal(found.index >= 128, index >= 128)
    assert (found.index.int() - index).abs().max() <= 1, "at the edge of a level float32 may be one off"


def test_one_stage_and_eight(launches: list[Launched]) -> None:
    for grids in ([(7, 9)], [(3 + n, 20 - 2 * n) for n in range(8)]):
        cams, relevance = drawn(grids, torch.float32)
        found = fuse_cams_launch.fuse_cams(cams, relevance, (33, 40))
        assert rms(found.maps, right_maps(cams, relevance, (33, 40))) <= ERROR[torch.float32]


FILMS = {
    2: (17, 16),
    4: (50, 40),
    8: (90, 100),
    16: (70, 230),
}
"""By the source columns that a pixel of an input of 16 x 16 takes at once: a film."""


@pytest.mark.parametrize("dtype", list(ERROR))
@pytest.mark.parametrize("taps", FILMS)
def test_films(taps: int, dtype: torch.dtype, launches: list[Launched]) -> None:
    geometry = Geometry.fit(FILMS[taps], (16, 16))
    assert window_resize_launch.taps_for(geometry) in (taps, 2 * taps)
    draw = np.random.default_rng(taps)
    for bits, kind in ((8, np.uint8), (12, np.uint16)):
        pixels = torch.from_numpy(draw.integers(0, 2**bits, FILMS[taps]).astype(kind))
        table = torch.from_numpy(draw.random(2**bits, np.float32))
        found = window_resize_launch.window_resize(pixels, table, geometry, dtype=dtype)
        right = window_resize_reference.window_resize(pixels, table, geometry, torch.float64)
        assert rms(found, right) <= ERROR[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [(5, 1), (7, 3), (9, 30), (3, 140)])
def test_regions(size: tuple[int, int], dtype: torch.dtype, launches: list[Launched]) -> None:
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    thresholds = torch.tensor([-0.5, 0.0, 0.5])
    content = torch.tensor([[0, 0, *size], [1, -2, 2, 100]], dtype=torch.int32)
    for window in (content, None):
        found = regions_launch.regions(maps, thresholds, window, 200)
        counts, table = regions_reference.regions(maps, thresholds, window, 200)
        assert torch.equal(found.counts, counts)
        for b, j in np.ndindex(*counts.shape):
            rows = found.table[b, j, : counts[b, j]]
            assert torch.equal(rows[rows[:, 0].argsort()], table[b, j, : counts[b, j]])


def forms(launches: list[Launched], kernel: str) -> set[str]:
    """Hashes of what was compiled for a kernel."""
    return {launched.compiled.hash for launched in launches if launched.compiled.name == kernel}


def test_films_of_other_sizes_need_no_other_kernel(launches: list[Launched]) -> None:
    """Where numbers are 1, multiples of 16, or neither, Triton would compile anew, in the latency of a film."""
    table = torch.rand(256)
    for height, width in ((97, 80), (96, 83), (101, 96), (112, 95), (90, 90), (80, 80), (99, 101), (96, 96)):
        for size in ((16, 16), (16, 17)):
            pixels = torch.zeros((height, width), dtype=torch.uint8)
            window_resize_launch.window_resize(pixels, table, Geometry.fit((height, width), size))
    assert len(launches) == 16
    assert len(forms(launches, "window_resize_kernel")) == 1


def test_maps_of_other_sizes_need_no_other_kernel(launches: list[Launched]) -> None:
    """But those of up to 16 columns, whose turns are shorter."""
    for height, width in ((16, 20), (17, 32), (1, 17), (32, 31)):
        for max_regions in (1, 64, 5):
            regions_launch.regions(torch.zeros(1, 1, height, width), torch.zeros(1), None, max_regions)
    assert len(forms(launches, "runs_kernel")) == len(forms(launches, "regions_kernel")) == 1


def test_other_numbers_of_classes_need_no_other_kernel(launches: list[Launched]) -> None:
    cams, relevance = drawn(NETWORK, torch.float32)
    for count in (1, 2, 16):
        fuse_cams_launch.fuse_cams(cams, relevance, (64, 96), torch.zeros(2, count, dtype=torch.int32), peaks=True)
    assert len(forms(launches, "fuse_cams_strided_kernel")) == len(forms(launches, "fuse_cams_peaks_kernel")) == 1


def test_every_launch_fuses_products_and_sums(launches: list[Launched], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Triton does not by itself, as from 3.10 on."""
    monkeypatch.setattr(knobs.language, "default_fp_fusion", False)
    for grids, size in ((NETWORK, (64, 96)), (RAGGED, (20, 20))):
        fuse_cams_launch.fuse_cams(*drawn(grids, torch.float32), size, peaks=True)
    film = torch.zeros((40, 40), dtype=torch.uint8)
    window_resize_launch.window_resize(film, torch.rand(256), Geometry.fit((40, 40), (16, 16)))
    regions_launch.regions(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    assert {launched.compiled.name for launched in launches} == {
        *("fuse_cams_strided_kernel", "fuse_cams_kernel", "fuse_cams_peaks_kernel"),
        *("window_resize_kernel", "runs_kernel", "regions_kernel"),
    }
    assert all(launched.compiled.metadata.enable_fp_fusion for launched in launches)
