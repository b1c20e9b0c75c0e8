"""The letterbox: points and boxes there and back over all sizes, and where brightness ends up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msloc_edge.imaging.geometry import Geometry

side = st.integers(1, 6000)
size = st.tuples(side, side)
fraction = st.floats(0, 1)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    return Geometry.fit(draw(size), draw(size))


@given(geometries(), st.lists(st.tuples(fraction, fraction), min_size=1, max_size=8))
def test_points_come_back(geometry: Geometry, fractions: list[tuple[float, float]]) -> None:
    points = np.array(fractions) * (geometry.image_width, geometry.image_height)
    back = np.array([geometry.to_image(x, y) for x, y in geometry.to_input(points)])
    assert back == pytest.approx(points, abs=1e-6)


@given(geometries())
def test_the_film_covers_its_content_and_nothing_else(geometry: Geometry) -> None:
    corners = np.array([[0, 0], [geometry.image_width, geometry.image_height]], float)
    rows, columns = geometry.content
    assert geometry.to_input(corners) == pytest.approx(
        np.array([[columns.start, rows.start], [columns.stop, rows.stop]]), abs=1e-6
    )
    assert 0 <= rows.start < rows.stop <= geometry.input_height
    assert 0 <= columns.start < columns.stop <= geometry.input_width


@given(geometries())
def test_the_film_is_centred_and_as_large_as_fits(geometry: Geometry) -> None:
    assert (geometry.width, geometry.height) == (geometry.input_width, geometry.height) or (
        geometry.height == geometry.input_height
    )
    assert 0 <= geometry.input_width - geometry.width - 2 * geometry.left <= 1
    assert 0 <= geometry.input_height - geometry.height - 2 * geometry.top <= 1


@given(geometries())
def test_the_aspect_is_kept_within_half_a_pixel(geometry: Geometry) -> None:
    scale = min(geometry.input_width / geometry.image_width, geometry.input_height / geometry.image_height)
    assert abs(geometry.width - geometry.image_width * scale) <= 0.5 + 1e-9 or geometry.width == 1
    assert abs(geometry.height - geometry.image_height * scale) <= 0.5 + 1e-9 or geometry.height == 1


@given(geometries(), st.lists(st.tuples(fraction, fraction, fraction, fraction), max_size=5))
def test_boxes_come_back(geometry: Geometry, fractions: list[tuple[float, float, float, float]]) -> None:
    whole = np.array([geometry.image_width, geometry.image_height], float)
    corners = np.sort(np.array(fractions).reshape(-1, 2, 2) * whole, axis=1)
    sent = np.stack([geometry.to_input(pair) for pair in corners]) if len(corners) else corners
    boxes = np.concatenate([sent[:, 0], sent[:, 1] - sent[:, 0]], axis=1)
    back = np.array([geometry.box_to_image(*box) for box in boxes]).reshape(-1, 4)
    assert back.shape == (len(fractions), 4)
    assert back[:, :2] == pytest.approx(corners[:, 0], abs=1e-6)
    assert back[:, 2:] == pytest.approx(corners[:, 1] - corners[:, 0], abs=1e-6)


@given(
    geometries(), st.lists(st.tuples(*[st.floats(-9000, 9000)] * 2, *[st.floats(0, 9000)] * 2), min_size=1, max_size=5)
)
def test_boxes_are_clipped_to_the_image(geometry: Geometry, boxes: list[tuple[float, float, float, float]]) -> None:
    x, y, w, h = np.array([geometry.box_to_image(*box) for box in boxes]).T
    assert min(x.min(), y.min(), w.min(), h.min()) >= 0
    assert (x + w <= geometry.image_width * (1 + 1e-12)).all()
    assert (y + h <= geometry.image_height * (1 + 1e-12)).all()


@given(geometries())
def test_a_record_makes_the_same_geometry(geometry: Geometry) -> None:
    record = geometry.to_dict()
    assert Geometry(**record) == geometry
    assert all(type(value) is int for value in record.values())


def test_by_hand() -> None:
    geometry = Geometry.fit((40, 80), (64, 64))
    assert geometry == Geometry(80, 40, 64, 64, left=0, top=16, width=64, height=32)
    assert geometry.scale == (0.8, 0.8)
    assert geometry.to_input(np.array([[20.0, 10.0]])).tolist() == [[16, 24]]
    assert geometry.to_image(16, 24) == (20, 10)
    # half of it in the letterbox's black band, above the film
    assert geometry.box_to_image(0, 8, 8, 16) == (0, 0, 10, 10)


@pytest.mark.parametrize("sizes", [((0, 5), (5, 5)), ((5, 0), (5, 5)), ((5, 5), (0, 5)), ((5, 5), (5, -1))])
def test_sizes_below_one_raise(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Geometry.fit(*sizes)


@pytest.mark.parametrize("shape", [(50, 40), (40, 51), (40,), (40, 50, 1)])
def test_a_film_of_another_shape_raises(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected an image of \(40, 50\)"):
        Geometry.fit((40, 50), (64, 64)).letterbox(np.zeros(shape, np.float32))


small = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(small, small, st.floats(0.05, 1))
@settings(max_examples=60)
def test_a_constant_film_stays_constant_in_its_area(
    image: tuple[int, int], model_input: tuple[int, int], value: float
) -> None:
    geometry = Geometry.fit(image, model_input)
    output = geometry.letterbox(np.full(image, value, np.float32))
    assert output.shape == model_input
    assert output.dtype == np.float32
    averaged = image[0] * image[1] / (geometry.width * geometry.height)  # OpenCV adds them up one by one in float32
    rounding = float(averaged * np.finfo(np.float32).eps)
    assert output[geometry.content] == pytest.approx(value, abs=1e-5, rel=rounding)
    output[geometry.content] = 0
    assert not output.any()


def soft_edge(length: int, start: int, width: int) -> np.ndarray:
    """1 from `start` on, 0 elsewhere, blurred evenly over 9 pixels: sharp steps alias by up to 0.08 when enlarged."""
    line = np.zeros(length)
    line[start : start + width] = 1
    return np.convolve(line, np.ones(9) / 9, "same")


@given(
    st.tuples(st.integers(60, 400), st.integers(60, 400)),
    st.tuples(st.integers(60, 400), st.integers(60, 400)),
    st.tuples(fraction, fraction),
)
@settings(max_examples=80)
def test_a_bright_square_lands_where_to_input_says(
    image: tuple[int, int], model_input: tuple[int, int], at: tuple[float, float]
) -> None:
    geometry = Geometry.fit(image, model_input)
    edge = 20  # image pixels a side; as far from the border, so that nothing is clamped there
    assume(min(geometry.scale) * edge >= 4)
    y, x = (20 + int(f * (length - 60)) for f, length in zip(at, image, strict=True))
    film = np.outer(soft_edge(image[0], y, edge), soft_edge(image[1], x, edge)).astype(np.float32)
    output = geometry.letterbox(film).astype(np.float64)
    centres = np.indices(output.shape) + 0.5
    row, column = (float((axis * output).sum() / output.sum()) for axis in centres)
    expected = geometry.to_input(np.array([[x + edge / 2, y + edge / 2]]))[0]
    assert (column, row) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("pixels", "limit"),
    [(512, 1e-6), (500, 0.02), (1000, 0.01)],  # whole factors are exact; a part of a square is left at others
)
def test_a_fine_checkerboard_reduces_to_its_mean(pixels: int, limit: float) -> None:
    board = (np.indices((pixels, pixels)).sum(axis=0) % 2).astype(np.float32)
    output = Geometry.fit(board.shape, (64, 64)).letterbox(board)
    assert np.abs(output - 0.5).max() <= limit
