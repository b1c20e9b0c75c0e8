"""The films of a run: what is in them, the cache they come from, and patients that no two splits share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from msloc_edge.cli.export import PARITY_SEED
from msloc_edge.model import ModelConfig
from msloc_edge.train import TrainConfig, films, loop
from msloc_edge.train.config import MAX_FILMS
from msloc_edge.train.films import TEST_SEED, PhantomFilms, cache_dir
from msloc_edge.train.phantom import FINDINGS, generate

FIRST, COUNT, SIZE = 500, 18, 64  # two chunks, of 16 and of 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(autouse=True)
def module_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSLOC_CACHE", str(folder))


def load(first: int = FIRST, count: int = COUNT, size: int = SIZE) -> PhantomFilms:
    return PhantomFilms(first, count, size, Progress(disable=True))


@pytest.fixture(scope="module")
def made(folder: Path) -> PhantomFilms:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSLOC_CACHE", str(folder))
        return load()


def test_films_are_the_phantoms_of_their_seeds(made: PhantomFilms) -> None:
    assert len(made) == COUNT
    assert made.pixels.shape == (COUNT, SIZE, SIZE)
    assert made.pixels.dtype == np.uint8
    assert isinstance(made.pixels, np.memmap)
    assert made.labels.shape == (COUNT, len(FINDINGS))
    for index, seed in enumerate(range(FIRST, FIRST + COUNT)):
        phantom = generate(seed, SIZE)
        assert np.array_equal(made.pixels[index], np.round(phantom.display() * 255))
        assert made.labels[index].tolist() == [float(name in phantom.labels) for name in FINDINGS]


def test_masks_come_back_from_the_seed(made: PhantomFilms) -> None:
    for index in range(COUNT):
        masks = made.masks(index)
        assert masks.shape == (len(FINDINGS), SIZE, SIZE)
        assert masks.dtype == np.bool_
        assert masks.any(axis=(1, 2)).tolist() == (made.labels[index] > 0.5).tolist()
        expected = np.zeros_like(masks)
        for region in generate(FIRST + index, SIZE).regions:
            expected[FINDINGS.index(region.label)] |= region.mask
        assert np.array_equal(masks, expected)


def test_films_are_made_once(made: PhantomFilms, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(file.name for file in (folder / "films").iterdir())
    assert len(files) == 2  # pixels and labels; nothing half-made
    monkeypatch.setattr(films, "_make", refuse)
    again = load()
    assert np.array_equal(again.pixels, made.pixels)
    assert np.array_equal(again.labels, made.labels)
    assert sorted(file.name for file in (folder / "films").iterdir()) == files


@pytest.mark.parametrize("other", [{"first": FIRST + 1}, {"count": COUNT - 1}, {"size": 96}])
def test_other_films_are_made_anew(made: PhantomFilms, other: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "_make", refuse)
    with pytest.raises(AssertionError, match="made again"):
        load(**other)


def test_another_generator_makes_them_anew(made: PhantomFilms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "_make", refuse)
    monkeypatch.setattr(films, "_generator_version", lambda: "another")
    with pytest.raises(AssertionError, match="made again"):
        load()


def test_a_failure_leaves_no_file(folder: Path, made: PhantomFilms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "_MAKERS", 1)
    before = sorted((folder / "films").iterdir())
    with pytest.raises(ValueError, match="expected sides of 64"):
        load(count=1, size=32)
    assert sorted((folder / "films").iterdir()) == before


def refuse(*_: object) -> None:
    raise AssertionError("films were made again")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "a"))
    assert cache_dir() == tmp_path / "a"
    monkeypatch.delenv("MSLOC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_dir() == tmp_path / "b" / "msloc-edge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "msloc-edge"


def config(**values: int) -> TrainConfig:
    return TrainConfig(ModelConfig(FINDINGS, size=64), **values)


def patients(run: TrainConfig, out: Path) -> list[range]:
    """The seeds that a run trains and validates on, as loop.fit asks for them."""
    asked: list[range] = []

    def record(first_seed: int, count: int, size: int, progress: Progress) -> None:
        asked.append(range(first_seed, first_seed + count))
        if len(asked) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PhantomFilms", record)
        with pytest.raises(KeyboardInterrupt):
            loop.fit(run, out, quiet=True)
    return asked


def test_splits_share_no_patient(tmp_path: Path) -> None:
    most = MAX_FILMS - 1
    splits = [range(TEST_SEED, TEST_SEED + most), range(PARITY_SEED, PARITY_SEED + most)]
    for seed in (0, 1, 250, 10_000):
        training, validation = patients(config(seed=seed, films=most, val_films=most), tmp_path / str(seed))
        assert len(training) == len(validation) == most
        splits += [training, validation] if seed == 0 else [training]
    ends = sorted((split.start, split.stop) for split in splits)
    assert ends[0][0] >= 0
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ends))


def test_sizes_of_progressive_resizing() -> None:
    large = TrainConfig(ModelConfig(FINDINGS, size=512), epochs=10)
    assert [large.size_at(epoch) for epoch in range(10)] == [128] * 5 + [256] * 3 + [512] * 2
    odd = TrainConfig(ModelConfig(FINDINGS, size=608), epochs=4)
    assert [odd.size_at(epoch) for epoch in range(4)] == [128, 128, 288, 288]
    assert [config(epochs=3).size_at(epoch) for epoch in range(3)] == [64] * 3  # never above the model's own
    plain = TrainConfig(ModelConfig(FINDINGS, size=512), epochs=3, progressive=False)
    assert [plain.size_at(epoch) for epoch in range(3)] == [512] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"films": 0}, "films of at least 1, got 0"),
        ({"val_films": 0}, "val_films of at least 1"),
        ({"films": 1_000_000}, "fewer than 1000000 films"),
        ({"val_films": 1_000_000}, "fewer than 1000000 films"),
        ({"seed": -1}, "seed of at least 0, got -1"),
        ({"epochs": 0}, "epochs of at least 1"),
        ({"batch": -1}, "batch of at least 1, got -1"),
        ({"lr": 0.0}, "learning rate above 0"),
        ({"data": "nih"}, "data to be 'phantom', got 'nih'"),
    ],
)
def test_config_refuses(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_config_survives_json() -> None:
    run = config(seed=3, films=10)
    assert TrainConfig.from_dict(run.to_dict()) == run
