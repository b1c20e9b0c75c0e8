"""Maps as files: the absolute colour scale by hand, and what is written."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from msloc_edge._files import atomic_write
from msloc_edge.render.heatmap import color_index, write_heatmap


@pytest.mark.parametrize(
    ("threshold", "values", "expected"),
    [
        # floor(128 M / t): t itself is 128, 2 t and all above is 255, no evidence is 0
        (2.0, [-5, 0, 1, 1.999, 2, 3, 3.99, 4, 100], [0, 0, 64, 127, 128, 192, 255, 255, 255]),
        (0.5, [0.25, 0.5, 0.75, 1.0], [64, 128, 192, 255]),
        # without a ratio one logit is the unit: t is still 128
        (0.0, [-1, -0.5, 0, 0.5, 1], [0, 64, 128, 192, 255]),
        (-3.0, [-4, -3.5, -3, -2.5, -2], [0, 64, 128, 192, 255]),
        (1e-40, [-1, 0, 1], [0, 0, 255]),
        (1.0, [np.nan, -np.inf, np.inf], [0, 0, 255]),
        (np.inf, [0, 1e30], [0, 0]),
        (np.nan, [0, 1], [0, 0]),
    ],
)
def test_color_index_by_hand(threshold: float, values: list[float], expected: list[int]) -> None:
    index = color_index(np.array(values, np.float32), threshold)
    assert index.dtype == np.uint8
    assert index.tolist() == expected


def test_color_index_reaches_128_exactly_where_the_map_reaches_its_threshold() -> None:
    for threshold in (0.1, 1 / 3, 1.7, 123.4):
        near = np.float32(threshold)
        values = np.array([np.nextafter(near, -np.inf), near, np.nextafter(near, np.inf)], np.float32)
        assert ((color_index(values, threshold) >= 128) == (values >= threshold)).all()


def test_color_index_of_an_empty_map() -> None:
    assert color_index(np.zeros((0, 4), np.float32), 1.0).shape == (0, 4)


def test_heatmap_files(make_result, tmp_path: Path) -> None:
    result = make_result((80, 100), {"Effusion": (10, 10, 20, 20), "Nodule": (60, 50, 20, 20)})
    npy, png = tmp_path / "a.npy", tmp_path / "a.png"
    write_heatmap(result, {"Effusion": 3.0, "Nodule": 6.0}, npy, png)

    maps = np.load(npy)
    assert maps.dtype == np.float32
    assert maps.shape == (2, result.geometry.height, result.geometry.width) == (2, 51, 64)
    np.testing.assert_array_equal(maps[0], result.maps["Effusion"])
    np.testing.assert_array_equal(maps[1], result.maps["Nodule"])
    grey = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (51, 64)
    assert grey.dtype == np.uint8
    assert set(np.unique(grey).tolist()) == {0, 64, 128}  # outside, Nodule at half its threshold, Effusion at its own
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a.png"]


def test_heatmap_without_localized_classes(make_result, tmp_path: Path) -> None:
    write_heatmap(make_result((80, 100)), {}, tmp_path / "a.npy", tmp_path / "a.png")
    assert np.load(tmp_path / "a.npy").shape == (0, 51, 64)
    assert not cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED).any()


def test_atomic_write_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)  # a name that leaves no room for a suffix
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == [path.name]


def test_atomic_write_keeps_what_was_there_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_atomic_write_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "missing" / "a.json", b"")
