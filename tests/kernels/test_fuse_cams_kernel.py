"""The Triton form of fuse_cams against the reference in float64: in Triton's interpreter, and on a GPU if there is one.

Triton reads TRITON_INTERPRET when it is imported, so that the interpreted tests run in a process of their own; with the
variable set they run in this one. The interpreter takes about a millisecond an operation: shapes are small.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from msloc_edge.cuda.compiled import TileRule
from msloc_edge.kernels.fuse_cams import reference

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86-64 only")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the process of test_in_the_interpreter")

LIMITS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of the RMS ratio. A result rounded to bfloat16 is off by up to 2**-9 of itself."""

SPREAD = 3.0
"""Standard deviation of the drawn maps."""

POISON = {torch.uint8: 0xFF, torch.int32: -1, torch.int64: -1} | dict.fromkeys(LIMITS, float("nan"))
"""What results hold before they are written."""

GUARD = 64
"""Elements behind every result, which nobody may write."""

SHAPES = [
    ([(8, 8), (4, 4), (2, 2), (1, 1)], (16, 16)),  # like the network's own, halved again and again
    ([(7, 5), (3, 9)], (17, 11)),  # odd, no whole factor; three tiles of rows
    ([(1, 1), (1, 6), (5, 1)], (9, 13)),
    ([(33, 20), (64, 64)], (10, 7)),  # smaller than the maps
    ([(12, 8)], (6, 4)),  # exactly half
    ([(6, 9)], (6, 9)),  # not resized at all
    ([(3, 3)], (1, 1)),
    ([(2, 3)], (3, 300)),  # several tiles of columns
]


def ratio(found: Tensor, expected: Tensor) -> float:
    """RMS of the error over RMS of the expected values; terms that cancel do not count as a small expectation."""
    assert found.shape == expected.shape
    error, scale = (float(x.double().square().mean().sqrt()) for x in (found.double() - expected, expected))
    return error / max(scale, SPREAD / 10)


def draw(
    shapes: Sequence[tuple[int, int]],
    classes: int = 1,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[list[Tensor], Tensor]:
    """Maps [B, K, h, w] and relevance [K, S]."""
    rng = np.random.default_rng(seed)
    cams = [torch.from_numpy(rng.normal(0, SPREAD, (batch, classes, *shape))).to(dtype) for shape in shapes]
    return cams, torch.from_numpy(rng.dirichlet(np.ones(len(shapes)), classes)).float()


def doubled(cams: Sequence[Tensor], relevance: Tensor, size: tuple[int, int], classes: Tensor | None = None) -> Tensor:
    return reference.fuse_cams([cam.double() for cam in cams], relevance.double(), size, classes)


def check_everything(
    cams: Sequence[Tensor], relevance: Tensor, size: tuple[int, int], classes: Tensor | None = None
) -> None:
    """All results of one launch: the maps against the reference, the others against these very maps."""
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    expected = doubled(cams, relevance, size, classes)
    thresholds = torch.linspace(1.0, -1.0, len(relevance), device=relevance.device)
    found = fuse_cams(
        cams, relevance, size, classes, thresholds, dtype=torch.float32, peaks=True, mask=True, index=True
    )
    maps, values, positions, mask, index = astuple(found)
    assert ratio(maps, expected) < LIMITS[torch.float32]

    flat = maps.flatten(2).cpu().numpy()
    places = flat.argmax(axis=2)
    assert np.array_equal(values.cpu().numpy(), flat.max(axis=2))
    assert np.array_equal(positions.cpu().numpy(), np.stack([places // size[1], places % size[1]], axis=2))

    limits = thresholds.expand(len(maps), -1) if classes is None else thresholds[classes]
    over = (maps >= limits[:, :, None, None]).cpu().numpy()
    bits = np.unpackbits(mask.cpu().numpy(), axis=2, count=size[0], bitorder="little")
    assert np.array_equal(bits, over)
    assert torch.equal(mask, reference.mask(maps, limits))  # the bits past the last row are 0

    assert np.array_equal(index.cpu().numpy() >= 128, over)
    levels = reference.color_index(maps, limits)
    assert int((levels.int() - index.int()).abs().max()) <= 1  # a float32 product at the edge of a level
    assert float((levels != index).float().mean()) < 0.01


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results start as NaN or 0xFF, and what lies behind them must keep that."""
    buffers: list[tuple[Tensor, int]] = []

    def empty(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        buffers.append((torch.full((prod(shape) + GUARD,), POISON[dtype], dtype=dtype, device=device), prod(shape)))
        return buffers[-1][0][: prod(shape)].view(*shape)

    monkeypatch.setattr(torch, "empty", empty)
    yield
    for buffer, used in buffers:
        behind = buffer[used:]
        poison = torch.full_like(behind, POISON[behind.dtype])
        torch.testing.assert_close(behind, poison, rtol=0, atol=0, equal_nan=True)


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@interpreted
@pytest.mark.parametrize(("shapes", "size"), SHAPES)
def test_all_results(shapes: list[tuple[int, int]], size: tuple[int, int]) -> None:
    check_everything(*draw(shapes), size)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cams, relevance = draw([(7, 5), (3, 9)], dtype=dtype)
    found = fuse_cams(cams, relevance, (9, 11)).maps
    assert found is not None
    assert found.dtype == dtype
    assert ratio(found, doubled(cams, relevance, (9, 11))) < LIMITS[dtype]


@interpreted
@pytest.mark.parametrize("stages", range(1, 9))
def test_number_of_stages(stages: int) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cams, relevance = draw([(s, 9 - s) for s in range(1, stages + 1)])
    found = fuse_cams(cams, relevance, (5, 6)).maps
    assert found is not None
    assert ratio(found, doubled(cams, relevance, (5, 6))) < LIMITS[torch.float32]


@interpreted
@pytest.mark.parametrize("rows", [8, 32])
def test_rows_of_a_program(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from msloc_edge.kernels.fuse_cams import launch

    monkeypatch.setattr(launch, "GENERAL_TILE", TileRule((rows,), 0))
    check_everything(*draw([(5, 3), (40, 2)]), (35, 4))


STRIDED = [
    ([(4, 8), (2, 4)], (16, 32)),  # the finest possible: 4 and 8 pixels a cell
    ([(3, 5)], (12, 20)),  # odd grids
    ([(6, 66), (1, 11), (3, 33)], (24, 264)),  # 4, 24 and 8 pixels; two tiles of columns, of rows; a row of cells
    ([(1, 2)] * 8, (8, 16)),
]


@interpreted
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("shapes", "size"), STRIDED)
def test_cells_of_whole_strides(shapes: list[tuple[int, int]], size: tuple[int, int], dtype: torch.dtype) -> None:
    """The strided kernel: the maps against the reference, the peaks against these very maps, both also alone."""
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams, strides_of

    cams, relevance = draw(shapes, classes=2, batch=2, dtype=dtype)
    assert strides_of(cams, size)
    classes = torch.tensor([[1], [0]])
    content = torch.tensor([[0, 1, size[0], size[1] - 1], [3, 2, 4, 5]])
    both = fuse_cams(cams, relevance, size, classes, content=content, dtype=torch.float32, peaks=True)
    maps, values, positions = astuple(both)[:3]
    assert ratio(maps, doubled(cams, relevance, size, classes)) < LIMITS[torch.float32]
    for image, (top, left, height, width) in enumerate(content.tolist()):
        inside = maps[image, 0, top : top + height, left : left + width]
        at = [int(inside.argmax()) // width + top, int(inside.argmax()) % width + left]
        assert positions[image, 0].tolist() == at
        assert values[image, 0] == inside.max()
    alone = fuse_cams(cams, relevance, size, classes, content=content, maps=False, peaks=True)
    assert torch.equal(alone.positions, positions)  # type: ignore[arg-type]
    stored = fuse_cams(cams, relevance, size, classes).maps
    assert stored is not None
    assert stored.dtype == dtype
    assert ratio(stored, maps.double()) < LIMITS[dtype]


@interpreted
@pytest.mark.parametrize("size", [(8, 12), (16, 16)])  # the general kernel, and the strided one
def test_peaks_within_the_content(size: tuple[int, int]) -> None:
    """A higher pixel beside it does not count, be it in a program that has no pixel inside or in one that has."""
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cam = torch.zeros(1, 1, 4, 4)
    cam[0, 0, 0, 0], cam[0, 0, 3, 3] = 9.0, -1.0
    bottom, right = size
    content = torch.tensor([[bottom - 1, right - 2, 1, 2]])
    values, positions = astuple(fuse_cams([cam], torch.ones(1, 1), size, content=content, peaks=True))[1:3]
    whole = doubled([cam], torch.ones(1, 1), size)[0, 0, -1, -2:]
    assert positions[0, 0].tolist() == [bottom - 1, right - 2]
    np.testing.assert_allclose(values[0, 0], whole.max(), rtol=1e-6)


@interpreted
def test_what_the_strided_kernel_is_for() -> None:
    from msloc_edge.kernels.fuse_cams.launch import strides_of

    def maps(*shapes: tuple[int, int]) -> list[Tensor]:
        return [torch.zeros(1, 1, *shape) for shape in shapes]

    assert strides_of(maps((128, 128), (16, 16)), (512, 512)) == (4, 32)
    for shapes, size in (
        ([(8, 8)], (16, 16)),  # 2 pixels
        ([(4, 4)], (24, 24)),  # 6 pixels
        ([(4, 4)], (16, 32)),  # not square
        ([(4, 4)], (17, 17)),
        ([(4, 4), (5, 5)], (16, 16)),
        ([(4, 1)], (16, 4)),  # one column
        ([(32, 32)], (16, 16)),
    ):
        assert strides_of(maps(*shapes), size) == ()


@interpreted
def test_class_subsets() -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cams, relevance = draw([(4, 3), (2, 2)], classes=5, batch=2)
    check_everything(cams, relevance, (6, 5), torch.tensor([[4, 0, 4], [1, 2, 3]]))  # in any order, repeated
    found = fuse_cams(cams, relevance, (6, 5), torch.tensor([[5, 1], [-1, 1]])).maps
    assert found is not None
    assert found[:, 0].isnan().all()  # no such class
    assert found[:, 1].isfinite().all()


@interpreted
def test_inputs_need_not_be_contiguous() -> None:
    cams, relevance = draw([(4, 3), (2, 2)], classes=2, batch=2)
    channels_last = [cam.contiguous(memory_format=torch.channels_last) for cam in cams]
    turned = relevance.T.contiguous().T
    classes = torch.tensor([[1, 0], [0, 1]]).T
    assert not any(x.is_contiguous() for x in (*channels_last, turned, classes))
    check_everything(channels_last, turned, (6, 5), classes)


@interpreted
def test_maps_need_not_be_stored() -> None:
    from msloc_edge.kernels.fuse_cams.launch import Fused, fuse_cams

    cams, relevance = draw([(4, 3), (2, 2)])
    whole = fuse_cams(cams, relevance, (6, 5), None, torch.ones(1), peaks=True, mask=True)
    lean = fuse_cams(cams, relevance, (6, 5), None, torch.ones(1), maps=False, peaks=True, mask=True)
    assert lean.maps is None
    assert lean.index is None
    for name in ("values", "positions", "mask"):
        assert torch.equal(getattr(whole, name), getattr(lean, name))
    assert fuse_cams(cams, relevance, (6, 5), maps=False) == Fused()


@interpreted
@pytest.mark.parametrize(
    ("batch", "classes", "shape"), [(0, None, (0, 3)), (2, torch.zeros(2, 0), (2, 0)), (0, torch.zeros(0, 2), (0, 2))]
)
def test_no_map(batch: int, classes: Tensor | None, shape: tuple[int, int]) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cams, relevance = draw([(4, 3), (2, 2)], classes=3, batch=batch)
    found = fuse_cams(cams, relevance, (9, 5), classes, torch.ones(3), peaks=True, mask=True, index=True)
    maps, values, positions, mask, index = astuple(found)
    assert maps.shape == index.shape == (*shape, 9, 5)
    assert values.shape == shape
    assert positions.shape == (*shape, 2)
    assert mask.shape == (*shape, 2, 5)


@interpreted
@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, (0, 0)),  # all equal
        ({(9, 1): 2.0, (2, 140): 2.0, (9, 0): 2.0}, (2, 140)),  # another row, another tile of columns
        ({(3, 130): 2.0, (3, 1): 2.0}, (3, 1)),
        ({(0, 0): -0.0}, (0, 0)),  # equal to 0.0
    ],
)
def test_first_of_equal_peaks(values: dict[tuple[int, int], float], place: tuple[int, int]) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cam = torch.zeros(1, 1, 10, 150)
    for where, value in values.items():
        cam[0, 0][where] = value
    found = fuse_cams([cam], torch.ones(1, 1), (10, 150), peaks=True)
    values, positions = astuple(found)[1:3]
    assert tuple(positions[0, 0].tolist()) == place
    assert values[0, 0] == cam[0, 0][place]


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity in the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_shows(value: float) -> None:
    """It spoils its neighbours and their columns down to the end of the program's rows, and is the peak as NaN."""
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    (cam,), relevance = draw([(5, 6)])
    cam[0, 0, 2, 3] = value
    found = fuse_cams([cam], relevance, (10, 12), peaks=True)
    maps, values, positions = astuple(found)[:3]
    expected = doubled([cam], relevance, (10, 12))
    assert not maps[~expected.isfinite()].isfinite().any()
    assert maps[0, 0, :, :4].isfinite().all()
    assert maps[0, 0, 8:].isfinite().all()  # the next program's
    assert values.isnan().all()
    flat = maps.flatten().numpy().argmax()  # numpy's first NaN
    assert positions.flatten().tolist() == [flat // 12, flat % 12]


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity in the interpreter
@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf"), 1e-30, 0.0, -1.5, 0.3, 3e38])
def test_thresholds_and_values_of_every_kind(threshold: float) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams
    from msloc_edge.render.heatmap import color_index

    limit = np.float32(threshold)
    edge = limit if np.isfinite(limit) else np.float32(7)
    below = float(np.nextafter(edge, np.float32(-np.inf)))
    for value in (0.0, -0.0, float(edge), below, 1.0, -1.0, 0.15, -2.5, float("nan"), 1e30, -1e30):
        cam = torch.full((1, 1, 1, 1), value)
        found = fuse_cams([cam], torch.ones(1, 1), (1, 2), None, torch.tensor([threshold]), mask=True, index=True)
        _, _, _, mask, index = astuple(found)
        assert mask.flatten().tolist() == [int(np.float32(value) >= limit)] * 2
        expected = color_index(cam.numpy(), float(limit)).item()
        assert index.flatten().tolist() in ([expected] * 2, [expected - 1] * 2, [expected + 1] * 2)


@interpreted
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relevance": torch.ones(2, 3)}, r"relevance of shape \(3, 2\), got \(2, 3\)"),
        ({"cams": [torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 4)]}, r"maps of shape \[2, 3, h, w\]"),
        ({"classes": torch.zeros(1, 2)}, r"classes of shape \[2, J\], got \(1, 2\)"),
        ({"classes": torch.zeros(2)}, r"classes of shape \[2, J\], got \(2,\)"),
        ({"content": torch.zeros(1, 4)}, r"content of shape \(2, 4\), got \(1, 4\)"),
        ({"mask": True}, r"thresholds of shape \(3,\), got None"),
        ({"index": True, "thresholds": torch.zeros(2)}, r"thresholds of shape \(3,\), got \(2,\)"),
        ({"dtype": torch.uint8}, "float16 or bfloat16, got torch.uint8"),
        ({"size": (0, 4)}, "at least one row and column"),
        ({"size": (2**22, 4)}, "smaller maps"),
    ],
)
def test_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cams = [torch.zeros(2, 3, 8, 6), torch.zeros(2, 3, 4, 3)]
    with pytest.raises(ValueError, match=message):
        fuse_cams(**({"cams": cams, "relevance": torch.ones(3, 2), "size": (32, 24)} | changes))


@interpreted
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=2),
    size=st.tuples(st.integers(1, 10), st.integers(1, 40)),
    seed=st.integers(0, 2**31),
)
def test_any_shape(shapes: list[tuple[int, int]], size: tuple[int, int], seed: int) -> None:
    check_everything(*draw(shapes, seed=seed), size)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize(
    ("shapes", "size"), [*SHAPES, ([(128, 128), (64, 64), (32, 32), (16, 16)], (512, 512)), ([(94, 79)], (3000, 2500))]
)
@pytest.mark.parametrize("dtype", LIMITS)
def test_on_a_gpu(shapes: list[tuple[int, int]], size: tuple[int, int], dtype: torch.dtype) -> None:
    from msloc_edge.kernels.fuse_cams.launch import fuse_cams

    cams, relevance = draw(shapes, classes=14, batch=2, dtype=dtype)
    cams, relevance = [cam.cuda() for cam in cams], relevance.cuda()
    check_everything(cams, relevance, size)
    check_everything(cams, relevance, size, torch.tensor([[13, 0, 13], [1, 2, 3]], device="cuda"))
    found = fuse_cams(cams, relevance, size).maps  # where every cell is a whole stride, by the strided kernel
    assert found is not None
    assert ratio(found, doubled(cams, relevance, size)) < LIMITS[dtype]
    maps, values, positions = astuple(fuse_cams(cams, relevance, size, dtype=torch.float32, peaks=True))[:3]
    places = maps.flatten(2).cpu().numpy().argmax(axis=2)
    assert np.array_equal(values.cpu().numpy(), maps.flatten(2).cpu().numpy().max(axis=2))
    assert np.array_equal(positions.cpu().numpy(), np.stack([places // size[1], places % size[1]], axis=2))
