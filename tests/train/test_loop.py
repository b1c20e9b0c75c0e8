"""Training runs as a user starts, stops and resumes them, down to the bytes that they leave."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from msloc_edge.bundle import Bundle
from msloc_edge.cli import main
from msloc_edge.errors import TrainError
from msloc_edge.model import ModelConfig, build
from msloc_edge.train import TrainConfig, films, fit, loop
from msloc_edge.train.checkpoint import SCHEMA, Run, load_state
from msloc_edge.train.films import TRAINING_SEED, VALIDATION_SEED, PhantomFilms
from msloc_edge.train.phantom import FINDINGS
from msloc_edge.train.validate import calibrate

OPTIONS = [
    *("--data", "phantom", "--backbone", "edge", "--size", 64, "--films", 24, "--val-films", 48),
    *("--epochs", 2, "--batch", 8, "--seed", 1),
]
CONFIG = TrainConfig(ModelConfig(FINDINGS, size=64), films=24, val_films=48, epochs=2, batch=8, seed=1)


def msloc(*arguments: object) -> int:
    """Run the command line in this process, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["msloc-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that nothing disturbed."""
    out = tmp_path_factory.mktemp("run") / "straight"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(films, "_MAKERS", 1)  # to start a process costs more than to make so few films
        assert msloc("train", *OPTIONS, "--out", out) == 0
    return out


def stop_in_epoch(patch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C in the validation of an epoch: its training is done, nothing of it is saved."""
    calls = []

    def validate(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == epoch:
            raise KeyboardInterrupt
        return whole(*arguments)

    whole = loop.validate
    patch.setattr(loop, "validate", validate)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped in its second epoch."""
    out = tmp_path_factory.mktemp("run") / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_in_epoch(patch, 2)
        assert msloc("train", *OPTIONS, "--out", out) == 130
    return out


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_state(first: Path, second: Path) -> None:
    a, b = load_state(first), load_state(second)
    assert a.keys() == b.keys()
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(tensor, b["model"][name]) for name, tensor in a["model"].items())
    moments_a, moments_b = a["optimizer"]["state"], b["optimizer"]["state"]
    for index, moments in moments_a.items():
        assert all(torch.equal(value, moments_b[index][name]) for name, value in moments.items())
    others = [key for key in a if key not in ("model", "optimizer")]
    assert {key: a[key] for key in others} == {key: b[key] for key in others}


def test_what_a_run_leaves(finished: Path) -> None:
    assert {file.name for file in finished.iterdir()} == {"config.json", "history.csv", "last.pt", "best.pt", "bundle"}
    saved = json.loads((finished / "config.json").read_text())
    assert saved.pop("schema") == SCHEMA
    assert TrainConfig.from_dict(saved) == CONFIG
    rows = history(finished)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 < float(row["loss"]) < 5 and 0 < float(row["val_auroc"]) < 1 for row in rows)
    last, best = load_state(finished / "last.pt"), load_state(finished)
    assert last["epoch"] == 1
    assert best["best"] == last["best"] == pytest.approx(max(float(row["val_auroc"]) for row in rows), abs=1e-5)
    assert "temperature" not in last


def test_the_bundle_is_the_best_state(finished: Path) -> None:
    bundle, best = Bundle.open(finished / "bundle"), load_state(finished / "best.pt")
    assert (bundle.name, bundle.version, bundle.classes) == ("cxr-edge", "0.1", FINDINGS)
    assert bundle.temperature == best["temperature"]
    assert set(bundle.profiles) == {"youden", "sensitivity-90", "specificity-95"}
    assert bundle.manifest["training"]["validation"]["films"] == 48
    weights = load_file(bundle.weights)
    assert all(torch.equal(weights[name], tensor) for name, tensor in best["model"].items())


def test_training_moved_the_weights(finished: Path) -> None:
    torch.manual_seed(CONFIG.seed)
    fresh, last = build(CONFIG.model).state_dict(), load_state(finished / "last.pt")["model"]
    assert fresh.keys() == last.keys()
    still = [name for name, tensor in fresh.items() if torch.equal(tensor, last[name])]
    assert still == []


def test_a_stopped_run_is_whole(stopped: Path) -> None:
    assert {file.name for file in stopped.iterdir()} == {"config.json", "history.csv", "last.pt", "best.pt"}
    assert [row["epoch"] for row in history(stopped)] == ["1"]
    assert load_state(stopped / "last.pt")["epoch"] == 0


def test_resume_is_exact(finished: Path, stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path)
    assert msloc("train", "--resume", "--out", run) == 0
    assert history(run) == history(finished)
    for name in ("last.pt", "best.pt"):
        assert_same_state(run / name, finished / name)
    for file in (finished / "bundle").iterdir():
        assert (run / "bundle" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_crash_between_two_files_costs_nothing(finished: Path, stopped: Path, tmp_path: Path) -> None:
    """best.pt and the history of epoch 2 are written, last.pt is still that of epoch 1."""
    run = copied(stopped, tmp_path)
    for name in ("best.pt", "history.csv"):
        shutil.copy(finished / name, run / name)
    fit(Run(run).config(), run, resume=True, quiet=True)
    assert history(run) == history(finished)
    assert_same_state(run / "last.pt", finished / "last.pt")
    assert_same_state(run / "best.pt", finished / "best.pt")


def test_resuming_a_finished_run_changes_nothing(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    fit(Run(run).config(), run, resume=True, quiet=True)
    assert history(run) == history(finished)
    assert_same_state(run / "best.pt", finished / "best.pt")


def test_a_run_stopped_in_its_first_epoch_keeps_its_initial_weights(finished: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, init=str(finished / "best.pt"))
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    fit(config, straight, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_in_epoch(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            fit(config, stopped, quiet=True)
    fit(Run(stopped).config(), stopped, resume=True, quiet=True)
    assert_same_state(stopped / "last.pt", straight / "last.pt")


def test_an_occupied_folder_is_refused(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(stopped, tmp_path)
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    assert msloc("train", *OPTIONS, "--epochs", 9, "--out", run) == 1
    assert "[run_exists]" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_resume_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert msloc("train", "--resume", "--out", tmp_path / "none") == 1
    assert "[run_missing]" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "run_damaged"),
        ("{", "run_damaged"),
        ("[]", "run_damaged"),
        ("null", "run_damaged"),
        (f'{{"schema": "{SCHEMA}"}}', "run_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"classes": ["a"]}}, "epochs": 0}}', "run_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"classes": ["a"]}}, "colour": 1}}', "run_damaged"),
        ('{"schema": "msloc-edge/run/9", "model": {"classes": ["a"]}}', "run_schema"),
        ('{"model": {"classes": ["a"]}}', "run_schema"),
    ],
)
def test_a_configuration_that_is_not_ours(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TrainError) as caught:
        Run(tmp_path).config()
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_checkpoint_is_not_resumed(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(stopped, tmp_path)
    content = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(content[: len(content) // 2])
    assert msloc("train", "--resume", "--out", run) == 1
    assert "[checkpoint_damaged]" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"(", bytes(300), b"\x80\x02}q\x00."])
def test_what_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(TrainError) as caught:
        load_state(tmp_path / "x.pt")
    assert caught.value.reason == "checkpoint_damaged"


def test_other_checkpoints(tmp_path: Path) -> None:
    torch.save({"schema": "msloc-edge/run/9"}, tmp_path / "newer.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    for name in ("newer.pt", "tensor.pt"):
        with pytest.raises(TrainError, match="expected a checkpoint of schema") as caught:
            load_state(tmp_path / name)
        assert caught.value.reason == "checkpoint_damaged"
    for missing in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(TrainError) as caught:
            load_state(missing)
        assert caught.value.reason == "checkpoint_missing"


def test_an_unfinished_run_is_not_exported(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in (stopped, stopped / "last.pt"):
        assert msloc("export", checkpoint, tmp_path / "bundle") == 1
        assert "[not_calibrated]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_few_validation_films_are_named(finished: Path) -> None:
    few = PhantomFilms(VALIDATION_SEED, 48, 64, Progress(disable=True))
    few.pixels, few.labels, few.seeds = few.pixels[:2], few.labels[:2], few.seeds[:2]
    with pytest.raises(TrainError, match=r"cannot calibrate on 2 films: .*; raise --val-films") as caught:
        calibrate(build(CONFIG.model), few, 2, Progress(disable=True))
    assert caught.value.reason == "calibration"


def test_a_loss_that_is_not_finite_stops_the_run(finished: Path, tmp_path: Path) -> None:
    state = load_state(finished / "best.pt")
    state["model"]["backbone.conv1.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    config = replace(CONFIG, epochs=1, init=str(tmp_path / "nan.pt"))
    with pytest.raises(TrainError, match="the loss is nan in batch 0; try a lower --lr") as caught:
        fit(config, tmp_path / "run", quiet=True)
    assert caught.value.reason == "loss_not_finite"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", 100],
        ["--films", 0],
        ["--lr", 0],
        ["--seed", -1],
        ["--films", 1_000_000],
        ["--backbone", "vgg"],
        ["--data", "nih"],
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert msloc("train", "--out", tmp_path / "run", *arguments) == 2
    assert "Error" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_schedule_by_hand() -> None:
    # 100 steps: 5 of warm-up, then half a cosine over 95.
    schedule = loop._Schedule(100)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert schedule(5 + 95 // 2) == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95)))
    assert schedule(100) == pytest.approx(0, abs=1e-12)
    rates = [schedule(step) for step in range(5, 101)]
    assert rates == sorted(rates, reverse=True)


def test_training_begins_at_the_frequency_of_each_finding(finished: Path) -> None:
    training = PhantomFilms(2 * TRAINING_SEED, 24, 64, Progress(disable=True))
    net = build(CONFIG.model)
    loop._start_at_prevalence(net, training)
    frequency = training.labels.mean(axis=0).clip(0.01, 0.99)
    assert net.head.bias.sigmoid().tolist() == pytest.approx(frequency.tolist(), abs=1e-6)
