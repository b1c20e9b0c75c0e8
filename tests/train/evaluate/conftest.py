"""A small collection of films on disk: six films of four patients, 64 x 48 pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msloc_edge.train.data import Collection, Record, open_collection

ROWS = """image,patient,view,sex,age,Mass,Nodule
a.png,p1,PA,F,30,1,0
b.png,p1,PA,F,31,1,0
c.png,p2,AP,M,50,1,1
d.png,p3,AP,M,70,0,0
e.png,p3,PA,M,71,0,1
sub/f.png,p4,PA,F,,0,
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """films.csv beside its pictures."""
    (tmp_path / "sub").mkdir()
    rng = np.random.default_rng(0)
    for row in ROWS.splitlines()[1:]:
        cv2.imwrite(str(tmp_path / row.split(",")[0]), rng.integers(0, 255, (48, 64), np.uint8))
    (tmp_path / "films.csv").write_text(ROWS)
    return tmp_path / "films.csv"


@pytest.fixture
def collection(table: Path) -> Collection:
    return open_collection(f"csv:{table}", "all")


@pytest.fixture
def records(collection: Collection) -> tuple[Record, ...]:
    return collection.records
