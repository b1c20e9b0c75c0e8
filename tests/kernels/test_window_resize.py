"""window_resize: the torch reference against the CPU path, the kernel (interpreted; on CUDA) against the reference."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.reading import read_frame
from msloc_edge.kernels.window_resize.reference import axis_weights
from msloc_edge.kernels.window_resize.reference import window_resize as reference
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

launch = pytest.importorskip("msloc_edge.kernels.window_resize.launch", reason="Triton is not installed")

AREA, BILINEAR = 1e-5, 5e-5
"""OpenCV against the reference, of brightness in [0, 1]; it has coordinates of up to 512 in float32, within 3e-5."""

KERNEL = {torch.float32: 2e-6, torch.float16: 2**-11 + 2e-6, torch.bfloat16: 2**-8 + 2e-6}
"""The kernel against the reference, by dtype of the input: half a unit in the last place below 1, and the sums."""

GUARD = 64
"""Elements after the end of an output, which must stay as they were."""

SIZES = [
    ((37, 30), (12, 12)),  # a fraction of a pixel at every edge
    ((24, 32), (6, 8)),  # whole factors
    ((23, 37), (19, 13)),
    ((20, 300), (7, 9)),  # a window of more columns than the kernel takes at a time
    ((16, 159), (2, 10)),  # ... of 16 or 17
    ((200, 11), (9, 40)),  # ... and of many rows; letterbox on the left and the right
    ((17, 11), (16, 13)),  # hardly smaller
    ((12, 8), (12, 8)),  # the same size
    ((5, 4), (17, 20)),  # enlarged
    ((8, 4), (16, 8)),
    ((1, 13), (10, 10)),
    ((1, 90), (8, 8)),
    ((1, 1), (5, 6)),
    ((13, 1), (1, 1)),
    ((1, 1), (1, 1)),
    ((3, 2), (5, 300)),  # more output columns than a program has
]
"""(image, input), each (height, width)."""

Kernel = Callable[[torch.Tensor, torch.Tensor, Geometry, torch.dtype], torch.Tensor]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """The launcher in Triton's interpreter, which only a process that starts with its switch has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            yield lambda *film: guarded(
                lambda *arguments: process.submit(launch.window_resize, *arguments).result(), *film
            )


def guarded(
    run: Callable[..., torch.Tensor], pixels: torch.Tensor, table: torch.Tensor, geometry: Geometry, dtype: torch.dtype
) -> torch.Tensor:
    """What `run` writes into an output full of NaN, which must end where it ends."""
    count = geometry.input_height * geometry.input_width
    memory = torch.full((count + GUARD,), math.nan, dtype=dtype, device=pixels.device).share_memory_()
    run(pixels, table, geometry, memory[:count].view(1, 1, geometry.input_height, geometry.input_width))
    assert memory[count:].isnan().all()
    return memory[:count].view(1, 1, geometry.input_height, geometry.input_width)


def drawn(shape: tuple[int, int], bits: int, seed: int = 0) -> Frame:
    """Noise through a table of noise: neighbours differ as much as they can."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 2**bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)
    return Frame(pixels, draw.random(2**bits, np.float32))


def phantom(size: int | tuple[int, int]) -> Frame:
    film = generate(50, size)
    return Frame(film.stored, replace(film, stored=np.arange(2**12, dtype=np.uint16)).display())


def tensors(frame: Frame) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.ascontiguousarray(frame.pixels)), torch.from_numpy(frame.lut)


def assert_as_on_the_cpu(frame: Frame, input_size: tuple[int, int]) -> None:
    geometry = Geometry.fit(frame.pixels.shape, input_size)
    found = reference(*tensors(frame), geometry)
    assert found.shape == (1, 1, *input_size)
    assert found.dtype == torch.float32
    limit = BILINEAR if geometry.width > frame.pixels.shape[1] or geometry.height > frame.pixels.shape[0] else AREA
    assert np.abs(found[0, 0].numpy() - geometry.letterbox(frame.display())).max() <= limit


def assert_as_the_reference(kernel: Kernel, frame: Frame, input_size: tuple[int, int], dtype: torch.dtype) -> None:
    geometry = Geometry.fit(frame.pixels.shape, input_size)
    expected = reference(*tensors(frame), geometry, torch.float64)
    found = kernel(*tensors(frame), geometry, dtype)
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() <= KERNEL[dtype]  # a NaN that is left over is not
    outside = torch.ones_like(found, dtype=torch.bool)
    outside[0, 0][geometry.content] = False
    assert not found[outside].any()


@pytest.mark.parametrize(("image", "size"), SIZES)
def test_reference_on_noise(image: tuple[int, int], size: tuple[int, int]) -> None:
    assert_as_on_the_cpu(drawn(image, 12), size)


@settings(max_examples=100)
@given(
    image=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    bits=st.sampled_from([8, 10, 12, 16]),
    seed=st.integers(0, 2**31),
)
def test_reference_on_noise_of_any_size(image: tuple[int, int], size: tuple[int, int], bits: int, seed: int) -> None:
    assert_as_on_the_cpu(drawn(image, bits, seed), size)


@pytest.mark.parametrize("image", [64, 200, (128, 96), (90, 150), (701, 577), (1500, 1250)])
@pytest.mark.parametrize("size", [(64, 64), (256, 256), (160, 224)])
def test_reference_on_phantoms(image: int | tuple[int, int], size: tuple[int, int]) -> None:
    assert_as_on_the_cpu(phantom(image), size)


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1100, 1100)])
def test_reference_on_real_films(shared_data: Path, size: tuple[int, int]) -> None:
    films = [
        *sorted((shared_data / "dicom").glob("*.dcm")),
        *sorted((shared_data / "nih" / "images").glob("*.jpg"))[:4],
    ]
    assert len(films) > 4
    for film in films:
        assert_as_on_the_cpu(read_frame(film), size)


@pytest.mark.parametrize("enlarge", [False, True])
def test_weights_of_an_output_pixel_add_up_to_one(enlarge: bool) -> None:
    weights = axis_weights(*((7, 19) if enlarge else (19, 7)), enlarge)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights), dtype=torch.float64))


def test_weights_by_hand() -> None:
    assert axis_weights(5, 2, False).tolist() == [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]
    assert axis_weights(2, 4, True).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


@pytest.mark.parametrize(("image", "size"), SIZES)
def test_kernel_at_every_size(kernel: Kernel, image: tuple[int, int], size: tuple[int, int]) -> None:
    assert_as_the_reference(kernel, drawn(image, 12), size, torch.float32)


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        *((bits, torch.float32) for bits in (1, 7, 8, 10, 12, 16)),
        *((bits, dtype) for bits in (8, 12) for dtype in (torch.float16, torch.bfloat16)),
    ],
)
def test_kernel_at_every_depth(kernel: Kernel, bits: int, dtype: torch.dtype) -> None:
    assert_as_the_reference(kernel, drawn((20, 17), bits), (5, 6), dtype)


@settings(max_examples=10)
@given(
    image=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    size=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    bits=st.sampled_from([8, 10, 16]),
    dtype=st.sampled_from(list(KERNEL)),
    seed=st.integers(0, 2**31),
)
def test_kernel_on_noise_of_any_size(
    kernel: Kernel, image: tuple[int, int], size: tuple[int, int], bits: int, dtype: torch.dtype, seed: int
) -> None:
    assert_as_the_reference(kernel, drawn(image, bits, seed), size, dtype)


def test_kernel_on_a_film(kernel: Kernel) -> None:
    assert_as_the_reference(kernel, phantom((150, 110)), (24, 24), torch.float32)


@pytest.mark.parametrize("image", [(40, 30), (4, 3)])
def test_bits_may_travel_as_int16(kernel: Kernel, image: tuple[int, int]) -> None:
    pixels, table = tensors(drawn(image, 16))
    signed = pixels.view(torch.int16)
    assert (signed < 0).any()
    geometry = Geometry.fit(image, (8, 8))
    expected = reference(pixels, table, geometry)
    assert torch.equal(reference(signed, table, geometry), expected)
    assert (kernel(signed, table, geometry, torch.float32) - expected).abs().max() <= KERNEL[torch.float32]


def test_bits_beyond_the_table_are_not_looked_at(kernel: Kernel) -> None:
    """No reader makes such pixels; on a device they would be read from somebody else's memory."""
    pixels, table = tensors(drawn((9, 9), 10))
    geometry = Geometry.fit((9, 9), (4, 4))
    stray = (pixels.to(torch.int32) + 0xA400).to(torch.uint16)
    expected = kernel(pixels, table, geometry, torch.float32)
    assert torch.equal(kernel(stray, table, geometry, torch.float32), expected)
    assert torch.equal(reference(stray, table, geometry), reference(pixels, table, geometry))


@pytest.mark.parametrize(
    ("width", "taps"), [(10, 2), (20, 2), (21, 4), (30, 4), (39, 8), (59, 8), (80, 8), (117, 16), (999, 16)]
)
def test_the_kernel_takes_a_window_at_once_up_to_16_columns(width: int, taps: int) -> None:
    assert launch.taps_for(Geometry(width, 30, 10, 10, 0, 0, 10, 10)) == taps


GEOMETRY = Geometry.fit((6, 5), (4, 4))
FILM = torch.zeros(6, 5, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("pixels", "table", "output", "geometry", "message"),
    [
        (torch.zeros(5, 6, dtype=torch.uint8), 256, None, GEOMETRY, r"pixels of shape \(6, 5\).*got \(5, 6\)"),
        (torch.zeros(6, 5), 256, None, GEOMETRY, "uint8, uint16 or int16, got .* torch.float32"),
        (torch.zeros(5, 6, dtype=torch.uint8).T, 256, None, GEOMETRY, "not contiguous"),
        (FILM, 255, None, GEOMETRY, r"2\*\*bits entries, at most 256, got shape \(255,\)"),
        (FILM, 512, None, GEOMETRY, "at most 256"),
        (FILM, 0, None, GEOMETRY, "at most 256"),
        (FILM, torch.zeros(256, dtype=torch.float64), None, GEOMETRY, "table of float32"),
        (FILM, 256, torch.zeros(1, 1, 4, 5), GEOMETRY, r"output of shape \(1, 1, 4, 4\)"),
        (FILM, 256, torch.zeros(1, 1, 4, 4).double(), GEOMETRY, "got .* torch.float64"),
        (FILM, 256, torch.zeros(1, 1, 4, 4, device="meta"), GEOMETRY, "on one device"),
        (FILM, 256, None, replace(GEOMETRY, left=2), "film inside the input"),
        (FILM, 256, None, replace(GEOMETRY, top=-1), "film inside the input"),
        (FILM, 256, None, replace(GEOMETRY, width=9), "shrinks or grows along both axes"),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    pixels: torch.Tensor, table: int | torch.Tensor, output: torch.Tensor | None, geometry: Geometry, message: str
) -> None:
    entries = torch.zeros(table) if isinstance(table, int) else table
    with pytest.raises(ValueError, match=message):
        launch.window_resize(pixels, entries, geometry, output)


def test_a_film_beyond_32_bits() -> None:
    pixels = torch.empty((2**16, 2**15), dtype=torch.uint8, device="meta")  # of no memory
    geometry = Geometry.fit((2**16, 2**15), (8, 8))
    with pytest.raises(ValueError, match="32-bit positions"):
        launch.window_resize(pixels, torch.zeros(256, device="meta"), geometry)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter takes hours for a real film")
@pytest.mark.parametrize("dtype", list(KERNEL))
@pytest.mark.parametrize(
    ("image", "bits"), [((3000, 2500), 12), ((2022, 2022), 10), ((1024, 1024), 8), ((400, 300), 16)]
)
def test_kernel_on_cuda(image: tuple[int, int], bits: int, dtype: torch.dtype) -> None:
    def on_cuda(pixels: torch.Tensor, table: torch.Tensor, geometry: Geometry, kind: torch.dtype) -> torch.Tensor:
        return guarded(launch.window_resize, pixels.cuda(), table.cuda(), geometry, kind).cpu()

    for size in ((256, 256), (512, 512)):
        assert_as_the_reference(on_cuda, drawn(image, bits), size, dtype)
