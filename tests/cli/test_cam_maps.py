"""examples/cam_maps.py as a reader runs it: maps of other libraries, of the reader's own network, and their figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msloc_edge.train.phantom import generate, write_png

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("library", "package"), [("torch-cam", "torchcam.methods"), ("pytorch-grad-cam", "pytorch_grad_cam")]
)
def test_maps_of_other_libraries_are_scored(
    msloc: Callable[..., Any], tmp_path: Path, library: str, package: str
) -> None:
    pytest.importorskip(package, reason=f"{library} is not installed: docs/dependencies.md")
    shutil.copy(ROOT / "tests" / "export" / "networks.py", tmp_path / "mynets.py")
    for number in range(2):
        write_png(generate(number, 64, ("Mass",)), tmp_path / f"{number}.png")
    cut = cv2.imread(str(tmp_path / "1.png"), cv2.IMREAD_UNCHANGED)[:48]
    cv2.imwrite(str(tmp_path / "1.png"), cut)  # a map of a square input goes back to the shape of its film
    options = ["mynets:resnet", "layer4", "MAPS", "0=Big Heart", "1=Water", "--size", "64", "--library", library]
    script = [sys.executable, str(ROOT / "examples" / "cam_maps.py"), *options, "--films", "0.png", "1.png"]
    ran = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    shapes = [np.load(tmp_path / "MAPS" / f"{number}.png" / "Big_Heart.npy").shape for number in range(2)]
    assert shapes == [(64, 64), (48, 64)]
    (tmp_path / "films.csv").write_text("image,Big Heart,Water\n0.png,1,0\n1.png,0,1\n")
    (tmp_path / "boxes.csv").write_text("image,label,x,y,w,h\n0.png,Big Heart,0,0,64,64\n1.png,Water,0,0,64,48\n")
    data = ("--data", f"csv:{tmp_path / 'films.csv'}", "--boxes", tmp_path / "boxes.csv", "--resamples", 0)
    assert msloc("eval", "--heatmaps", tmp_path / "MAPS", *data, "--out", tmp_path / "out", "-q").code == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["run"]["problems"] == []
    assert {label: row["value"] for label, row in found["pointing"]["per_class"].items()} == {
        "Big Heart": 1.0,
        "Water": 1.0,
    }
