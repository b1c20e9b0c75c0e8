"""Worklists: who is chosen, what a reader gets, and that `calibrate` and `eval` take the answers."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from msloc_edge.errors import InputError, OutputError
from msloc_edge.score.dataset import FILMS, Dataset
from msloc_edge.score.worklist import write_worklist

SCRIPT = Path(sys.executable).with_name("msloc-edge")


@pytest.fixture
def dataset(scored: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(Path(shutil.copytree(scored, tmp_path / "scores")))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def images(path: Path) -> list[str]:
    return [row["image"] for row in read(path)]


def frame_of(dataset: Dataset) -> pandas.DataFrame:
    return pandas.read_parquet(dataset.folder / FILMS).sort_values("sha256")


def test_a_list_shows_the_film_and_nothing_of_the_model(dataset: Dataset) -> None:
    path, _ = write_worklist(dataset, "random", 100)
    assert path == dataset.folder / "worklists" / "random-100" / "worklist.csv"
    rows = read(path)
    assert list(rows[0]) == ["image", "patient", *dataset.classes]
    assert {row[label] for row in rows for label in dataset.classes} == {""}
    frame = frame_of(dataset)
    assert [row["image"] for row in rows] == frame["input"].tolist()
    assert [row["patient"] for row in rows] == frame["study_instance_uid"].fillna("").tolist()


def test_choices(dataset: Dataset) -> None:
    frame = frame_of(dataset)
    flagged = frame[frame["flagged"]]["input"].tolist()
    assert images(write_worklist(dataset, "flagged", 2)[0]) == flagged[:2]
    assert images(write_worklist(dataset, "random", 3)[0]) == frame["input"].tolist()[:3]
    gate = json.loads((dataset.folder / "dataset.json").read_text())["film_threshold"]
    odds = np.log(frame["abnormal"] / (1 - frame["abnormal"])) - np.log(gate / (1 - gate))
    nearest = frame["input"].to_numpy()[np.argsort(odds.abs().to_numpy())]
    assert images(write_worklist(dataset, "uncertain", 4)[0]) == nearest[:4].tolist()


def test_without_a_film_gate_the_nearest_class_counts(dataset: Dataset) -> None:
    without = Dataset(dataset.folder, dataset.classes, {**dataset.about, "film_threshold": None})
    frame, thresholds = frame_of(dataset), dataset.about["thresholds"]
    logit = {label: np.log(frame[f"score_{label}"] / (1 - frame[f"score_{label}"])) for label in thresholds}
    apart = [(logit[label] - np.log(t / (1 - t))).abs() for label, t in thresholds.items()]
    order = np.argsort(np.min(apart, axis=0), kind="stable")
    assert images(write_worklist(without, "uncertain", 12)[0]) == frame["input"].to_numpy()[order].tolist()


def test_a_list_is_not_written_over(dataset: Dataset) -> None:
    assert write_worklist(dataset, "random", 2)[1] == 2
    with pytest.raises(OutputError, match="perhaps with answers") as caught:
        write_worklist(dataset, "random", 2)
    assert caught.value.reason == "out_occupied"


def test_films_in_shards_are_copied_and_copies_are_listed_once(
    made: Path, model: Path, shard: Path, tmp_path: Path
) -> None:
    out, own = tmp_path / "scores", Path(shutil.copy(shard, tmp_path))
    words = [SCRIPT, "score", own, made / "00.png", out, "--model", model, "--workers", "1", "-q"]
    done = subprocess.run([*words, "--select", "random", "50"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # bad.png
    path = Path(json.loads(done.stdout)["worklist"])
    files = [path.parent / name for name in images(path)]
    assert len(files) == 12
    assert {file.read_bytes() for file in files} == {
        film.read_bytes() for film in made.iterdir() if film.name != "bad.png"
    }
    own.unlink()
    with pytest.raises(InputError):
        write_worklist(Dataset.open(out), "random", 12)
    assert not (out / "worklists" / "random-12").exists()


def test_calibrate_and_eval_take_the_answers(dataset: Dataset, model: Path, tmp_path: Path) -> None:
    path, _ = write_worklist(dataset, "random", 12)
    frame = pandas.read_csv(path)
    for at, label in enumerate(dataset.classes):
        frame[label] = [row % 3 and (row + at) % 2 for row in range(len(frame))]  # every third is normal
    frame.to_csv(path, index=False)
    data = ["--data", f"csv:{path}", "--out", tmp_path / "made", "-q"]
    for command in (["calibrate", model], ["eval", "--model", model, "--resamples", "0"]):
        data[3] = tmp_path / command[0]
        done = subprocess.run([SCRIPT, *command, *data], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "calibrate" / "manifest.json").read_text())["calibration"]["scores"].startswith("12 ")
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["run"]["films"] == 12
