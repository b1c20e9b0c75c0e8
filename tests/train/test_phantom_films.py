"""Phantoms as films of a run: what is in them, the cache they come from, and seeds that no two splits share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from msloc_edge._files import cache_folder
from msloc_edge.cli.export_films import PARITY_SEED
from msloc_edge.train.config import MAX_FILMS
from msloc_edge.train.data import Films, phantoms, sources, training_films, validation_films
from msloc_edge.train.data.phantoms import TEST_SEED, phantom_films
from msloc_edge.train.phantom import FINDINGS, generate

FIRST, COUNT, SIDE = 500, 18, 64  # two chunks, of 16 and of 2
SILENT = Progress(disable=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(autouse=True)
def module_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSLOC_CACHE", str(folder))


def load(first: int = FIRST, count: int = COUNT, side: int = SIDE) -> Films:
    return phantom_films(first, count, side, SILENT)


@pytest.fixture(scope="module")
def made(folder: Path) -> Films:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSLOC_CACHE", str(folder))
        return load()


def test_films_are_the_phantoms_of_their_seeds(made: Films) -> None:
    assert (len(made), made.side, made.classes) == (COUNT, SIDE, FINDINGS)
    assert made.pixels.shape == (COUNT, SIDE, SIDE)
    assert made.pixels.dtype == np.uint8
    assert isinstance(made.pixels, np.memmap)
    assert made.labels.shape == (COUNT, len(FINDINGS))
    assert made.names == made.patients == tuple(f"phantom {seed}" for seed in range(FIRST, FIRST + COUNT))
    for index, seed in enumerate(range(FIRST, FIRST + COUNT)):
        phantom = generate(seed, SIDE)
        assert np.array_equal(made.pixels[index], np.round(phantom.display() * 255))
        assert made.labels[index].tolist() == [float(name in phantom.labels) for name in FINDINGS]


def test_findings_that_phantoms_lack_are_unknown(made: Films) -> None:
    classes = ("Hernia", FINDINGS[3], FINDINGS[0])
    other = phantom_films(FIRST, COUNT, SIDE, SILENT, classes)
    assert other.classes == classes
    normal = ~made.labels.any(axis=1)
    assert 0 < np.count_nonzero(normal) < COUNT
    assert np.isnan(other.labels[~normal, 0]).all()
    assert not other.labels[normal].any()  # a phantom without a finding has none of those that phantoms lack, either
    assert np.array_equal(other.labels[:, 1:], made.labels[:, [3, 0]])


def test_masks_come_back_from_the_seed(made: Films) -> None:
    assert made.masks is not None
    for index in range(COUNT):
        masks = made.masks(index)
        assert set(masks) == {label for label, value in zip(FINDINGS, made.labels[index], strict=True) if value}
        regions = generate(FIRST + index, SIDE).regions
        for label, mask in masks.items():
            assert (mask.shape, mask.dtype) == ((SIDE, SIDE), np.bool_)
            assert np.array_equal(mask, np.any([r.mask for r in regions if r.label == label], axis=0))


def test_films_are_made_once(made: Films, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(file.name for file in (folder / "films").iterdir())
    assert len(files) == 2  # pixels and labels; nothing half-made
    monkeypatch.setattr(phantoms, "_make", refuse)
    again = load()
    assert np.array_equal(again.pixels, made.pixels)
    assert np.array_equal(again.labels, made.labels)
    assert sorted(file.name for file in (folder / "films").iterdir()) == files


@pytest.mark.parametrize("other", [{"first": FIRST + 1}, {"count": COUNT - 1}, {"side": 96}])
def test_other_films_are_made_anew(made: Films, other: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantoms, "_make", refuse)
    with pytest.raises(AssertionError, match="made again"):
        load(**other)


def test_another_generator_makes_them_anew(made: Films, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantoms, "_make", refuse)
    monkeypatch.setattr(phantoms, "_generator_version", lambda: "another")
    with pytest.raises(AssertionError, match="made again"):
        load()


def test_a_failure_leaves_no_file(folder: Path, made: Films) -> None:
    before = sorted((folder / "films").iterdir())
    with pytest.raises(ValueError, match="expected sides of 64"):
        load(count=1, side=32)
    assert sorted((folder / "films").iterdir()) == before


def refuse(*_: object) -> None:
    raise AssertionError("films were made again")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("MSLOC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "msloc-edge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "msloc-edge"


def test_splits_share_no_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[range] = []
    monkeypatch.setattr(sources, "phantom_films", lambda first, count, *_: asked.append(range(first, first + count)))
    most = MAX_FILMS - 1
    splits = [range(TEST_SEED, TEST_SEED + most), range(PARITY_SEED, PARITY_SEED + most)]
    for seed in (0, 1, 250, 10_000):
        training_films(("phantom",), FINDINGS, 64, most, seed, SILENT)
    validation_films(("phantom",), FINDINGS, 64, most, SILENT)
    assert [len(split) for split in asked] == [most] * 5
    ends = sorted((split.start, split.stop) for split in [*splits, *asked])
    assert ends[0][0] >= 0
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ends))
