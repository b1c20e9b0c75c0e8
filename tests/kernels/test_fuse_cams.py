"""fuse_cams: the torch reference against bilinear interpolation written out, the CPU form against the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.kernels.fuse_cams.reference import fuse_cams as fuse_torch
from msloc_edge.maps.fuse import fuse_cams as fuse_numpy

DOUBLE, SINGLE = 1e-13, 1e-5
"""Limits of the RMS ratio in float64 and in float32, where a coordinate up to 64 is rounded to 2**-18."""

SPREAD = 3.0
"""Standard deviation of the drawn maps."""

SHAPES = [
    ([(16, 16), (8, 8), (4, 4), (2, 2)], (64, 64)),  # the network's own
    ([(24, 40), (12, 20), (6, 10), (3, 5)], (96, 160)),
    ([(7, 5), (3, 9)], (31, 17)),  # odd, no whole factor
    ([(1, 1), (1, 6), (5, 1)], (9, 13)),
    ([(33, 20), (64, 64)], (10, 7)),  # smaller than the maps
    ([(12, 8)], (6, 4)),  # exactly half
    ([(6, 9)], (6, 9)),  # not resized at all
    ([(3, 3)], (1, 1)),
]


def ratio(found: np.ndarray, expected: np.ndarray) -> float:
    """RMS of the error over RMS of the expected values; terms that cancel do not count as a small expectation."""
    assert found.shape == expected.shape
    error, scale = (float(np.sqrt(np.mean(x**2))) for x in (found - expected, expected))
    return error / max(scale, SPREAD / 10)


def upsampled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres, coordinates clamped to the map, one pixel after the other."""
    (h, w), (height, width) = image.shape, size
    out = np.empty(size)
    for i in range(height):
        y = min(max((i + 0.5) * h / height - 0.5, 0.0), h - 1.0)
        top, fy = int(y), y - int(y)
        bottom = min(top + 1, h - 1)
        for j in range(width):
            x = min(max((j + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            left, fx = int(x), x - int(x)
            right = min(left + 1, w - 1)
            upper = (1 - fx) * image[top, left] + fx * image[top, right]
            lower = (1 - fx) * image[bottom, left] + fx * image[bottom, right]
            out[i, j] = (1 - fy) * upper + fy * lower
    return out


def fused(
    cams: Sequence[np.ndarray], relevance: np.ndarray, size: tuple[int, int], classes: Sequence[int]
) -> np.ndarray:
    """M_k of one image from [K, h, w] maps, in float64."""
    cams, relevance = [c.astype(np.float64) for c in cams], relevance.astype(np.float64)
    return np.stack([sum(relevance[k, s] * upsampled(c[k], size) for s, c in enumerate(cams)) for k in classes])


def draw(shapes: Sequence[tuple[int, int]], classes: int, batch: int, seed: int = 0) -> tuple[list, np.ndarray]:
    """Maps [B, K, h, w] and relevance [K, S], float64."""
    rng = np.random.default_rng(seed)
    cams = [rng.normal(0, SPREAD, (batch, classes, *shape)) for shape in shapes]
    return cams, rng.dirichlet(np.ones(len(shapes)), classes)


@pytest.mark.parametrize(("shapes", "size"), SHAPES)
@pytest.mark.parametrize("classes", [1, 3])
def test_reference_against_interpolation_written_out(shapes: list, size: tuple[int, int], classes: int) -> None:
    cams, relevance = draw(shapes, classes, batch=2)
    expected = np.stack([fused([c[b] for c in cams], relevance, size, range(classes)) for b in range(2)])
    for dtype, limit in ((torch.float64, DOUBLE), (torch.float32, SINGLE)):
        tensors = [torch.from_numpy(c).to(dtype) for c in cams]
        found = fuse_torch(tensors, torch.from_numpy(relevance).to(dtype), size)
        assert found.dtype == dtype
        assert ratio(found.double().numpy(), expected) < limit


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_cpu_form_against_reference(shapes: list, size: tuple[int, int], classes: int, seed: int) -> None:
    cams, relevance = draw(shapes, classes, batch=1, seed=seed)
    expected = fuse_torch([torch.from_numpy(c) for c in cams], torch.from_numpy(relevance), size)[0].numpy()
    found = fuse_numpy(
        [c[0].astype(np.float32) for c in cams], relevance.astype(np.float32), size, range(classes)
    ).dense()
    assert found.dtype == np.float32
    assert ratio(found, expected) < SINGLE


def test_class_subsets() -> None:
    cams, relevance = draw([(8, 6), (4, 3)], classes=5, batch=2)
    tensors, weights = [torch.from_numpy(c) for c in cams], torch.from_numpy(relevance)
    whole = fuse_torch(tensors, weights, (32, 24))
    wanted = torch.tensor([[4, 0, 4], [1, 2, 3]])  # in any order, repeated, different per image
    some = fuse_torch(tensors, weights, (32, 24), wanted)
    assert ratio(some.numpy(), torch.stack([whole[0, wanted[0]], whole[1, wanted[1]]]).numpy()) < DOUBLE
    single = [c.astype(np.float32) for c in cams]
    for b in range(2):
        found = fuse_numpy([c[b] for c in single], relevance.astype(np.float32), (32, 24), wanted[b].tolist()).dense()
        assert ratio(found, some[b].numpy()) < SINGLE


def test_inputs_need_not_be_contiguous() -> None:
    cams, relevance = draw([(8, 6), (4, 3)], classes=3, batch=2)
    expected = fused([c[1] for c in cams], relevance, (16, 12), range(3))
    channels_last = [torch.from_numpy(c).contiguous(memory_format=torch.channels_last) for c in cams]
    turned = torch.from_numpy(np.asfortranarray(relevance))
    assert not channels_last[0].is_contiguous()
    assert not turned.is_contiguous()
    assert ratio(fuse_torch(channels_last, turned, (16, 12))[1].numpy(), expected) < DOUBLE
    strided = [np.asfortranarray(c[1].astype(np.float32)) for c in cams]
    assert not strided[0][0].flags.c_contiguous
    before = [c.copy() for c in strided]
    found = fuse_numpy(strided, np.asfortranarray(relevance.astype(np.float32)), (16, 12), range(3)).dense()
    assert ratio(found, expected) < SINGLE
    assert all(np.array_equal(a, b) for a, b in zip(strided, before, strict=True))


def test_no_class_asked_for() -> None:
    """A normal film asks for no map: every form gives an empty stack of the right size."""
    cams, relevance = draw([(8, 6), (4, 3)], classes=3, batch=2)
    tensors, none = [torch.from_numpy(c) for c in cams], torch.empty(2, 0, dtype=torch.long)
    assert fuse_torch(tensors, torch.from_numpy(relevance), (32, 24), none).shape == (2, 0, 32, 24)
    single = [c[0].astype(np.float32) for c in cams]
    assert fuse_numpy(single, relevance.astype(np.float32), (32, 24), []).dense().shape == (0, 32, 24)


def test_no_image() -> None:
    cams = [torch.zeros(0, 3, 8, 6), torch.zeros(0, 3, 4, 3)]
    relevance = torch.full((3, 2), 0.5)
    assert fuse_torch(cams, relevance, (32, 24)).shape == (0, 3, 32, 24)
    assert fuse_torch(cams, relevance, (32, 24), torch.empty(0, 2, dtype=torch.long)).shape == (0, 2, 32, 24)


def test_whole_factors_keep_the_mean() -> None:
    cams, relevance = draw([(16, 8), (8, 4), (4, 2), (2, 1)], classes=3, batch=1)
    found = fuse_torch([torch.from_numpy(c) for c in cams], torch.from_numpy(relevance), (64, 32))[0].numpy()
    means = np.stack([c[0].mean(axis=(1, 2)) for c in cams], axis=1)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), (relevance * means).sum(axis=1), atol=1e-13)


@pytest.mark.parametrize(
    ("relevance", "second", "classes", "message"),
    [
        ((3, 1), (2, 3, 4, 3), None, r"relevance of shape \(3, 2\), got \(3, 1\)"),
        ((2, 3), (2, 3, 4, 3), None, r"relevance of shape \(3, 2\), got \(2, 3\)"),
        ((3, 2), (2, 4, 4, 3), None, r"maps of shape \[2, 3, h, w\]"),
        ((3, 2), (1, 3, 4, 3), None, r"maps of shape \[2, 3, h, w\]"),
        ((3, 2), (2, 3, 4, 3), (1, 2), r"classes of shape \[2, J\], got \(1, 2\)"),
        ((3, 2), (2, 3, 4, 3), (2,), r"classes of shape \[2, J\], got \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit(relevance: tuple, second: tuple, classes: tuple | None, message: str) -> None:
    wanted = None if classes is None else torch.zeros(classes, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        fuse_torch([torch.zeros(2, 3, 8, 6), torch.zeros(second)], torch.ones(relevance), (32, 24), wanted)
