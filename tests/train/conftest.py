"""Small collections of films, and the command line in this process."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from msloc_edge.train.data import phantoms

NIH_HEADER = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"),
    *("View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
)


@pytest.fixture(scope="session", autouse=True)
def one_maker() -> Iterable[None]:
    """To start a process costs more than to make so few phantoms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantoms, "_MAKERS", 1)
        yield


@pytest.fixture(scope="session")
def msloc() -> Callable[..., int]:
    """Runs `msloc-edge ARGUMENTS` in this process, and gives its exit status."""
    from msloc_edge.cli import main

    def run(*arguments: object) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["msloc-edge", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        assert isinstance(code, int)
        return code

    return run


def write_film(path: Path, seed: int, side: int = 64) -> None:
    """A picture with something on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    film = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    assert cv2.imwrite(str(path), cv2.GaussianBlur(film, (0, 0), 2))


@dataclass
class Release:
    """A release in NIH's form that is made by hand: film name -> labels; the patient is the name's first part."""

    folder: Path
    train_val: Mapping[str, str]
    test: Mapping[str, str] = field(default_factory=dict)
    boxes: Iterable[tuple[object, ...]] = ()
    table: str = "Data_Entry_2017_v2020.csv"
    images: str = "images"
    suffix: str = ".png"
    rows: Iterable[tuple[object, ...]] = ()

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        films = {**self.train_val, **self.test}
        for seed, name in enumerate(films):
            write_film(self.folder / self.images / Path(name).with_suffix(self.suffix).name, seed)
        with (self.folder / self.table).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(NIH_HEADER)
            for name, labels in films.items():
                writer.writerow((name, labels, 0, name.split("_")[0], "057Y", "F", "PA", 64, 64, 0.1, 0.1))
            writer.writerows(self.rows)
        (self.folder / "train_val_list.txt").write_text("\n".join(self.train_val) + "\n")
        (self.folder / "test_list.txt").write_text("\n".join(self.test) + "\n")
        if self.boxes:
            with (self.folder / "BBox_List_2017.csv").open("w", newline="") as file:
                file.write("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
                csv.writer(file).writerows((*box, "", "", "") for box in self.boxes)
        return self.folder


@pytest.fixture(scope="session")
def release() -> type[Release]:
    """A maker of small releases: release(folder, {film: labels}, ...).write()."""
    return Release


@pytest.fixture(scope="session")
def picture() -> Callable[..., None]:
    """Writes a picture: picture(path, seed, side=64)."""
    return write_film
