"""Training runs as a user starts, stops and resumes them, down to the bytes that they leave."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from msloc_edge.bundle import Bundle
from msloc_edge.cli import export
from msloc_edge.errors import TrainError
from msloc_edge.model import ModelConfig, build
from msloc_edge.train import TrainConfig, distributed, fit, loop
from msloc_edge.train.calibration.calibrate import GATED
from msloc_edge.train.calibration.thresholds import PROFILES
from msloc_edge.train.checkpoint import SCHEMA, Run, load_state
from msloc_edge.train.data import training_films, validation_films
from msloc_edge.train.losses import label_frequency
from msloc_edge.train.phantom import FINDINGS

OPTIONS = [
    *("--config", Path(__file__).with_name("small.toml"), "--data", "phantom", "--backbone", "edge", "--size", 64),
    *("--epochs", 2, "--batch", 8, "--seed", 1),
]
CONFIG = TrainConfig(ModelConfig(FINDINGS, size=64), films=24, val_films=48, epochs=2, batch=8, seed=1)
FILES = {"config.json", "history.csv", "last.pt", "best.pt", "tensorboard"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, msloc: Callable[..., int]) -> Path:
    """A run of two epochs that nothing disturbed."""
    out = tmp_path_factory.mktemp("run") / "straight"
    assert msloc("train", *OPTIONS, "--out", out) == 0
    return out


def stop_in_epoch(patch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C in the validation of an epoch: its training is done, nothing of it is saved."""
    calls = []

    def validate(*arguments: Any) -> object:
        calls.append(1)
        if len(calls) == epoch:
            raise KeyboardInterrupt
        return whole(*arguments)

    whole = distributed.validate
    patch.setattr(distributed, "validate", validate)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, msloc: Callable[..., int]) -> Path:
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
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "films_per_second")} for row in csv.DictReader(file)
        ]


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, whatever is nested in what."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{n}]")
    else:
        assert a == b, where


def test_what_a_run_leaves(finished: Path) -> None:
    assert {file.name for file in finished.iterdir()} == {*FILES, "bundle"}
    saved = json.loads((finished / "config.json").read_text())
    assert saved.pop("schema") == SCHEMA == "msloc-edge/run/3"
    assert TrainConfig.from_dict(saved) == CONFIG
    rows = history(finished)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 < float(row["loss"]) < 5 and 0 < float(row["val_auroc"]) < 1 for row in rows)
    last, best = load_state(finished / "last.pt"), load_state(finished)
    assert last["epoch"] == 1
    assert best["best"] == last["best"] == pytest.approx(max(float(row["val_auroc"]) for row in rows), abs=1e-5)
    assert "temperature" not in last
    assert "optimizer" not in best


def test_the_bundle_is_the_best_state(finished: Path) -> None:
    bundle, best = Bundle.open(finished / "bundle"), load_state(finished / "best.pt")
    assert (bundle.name, bundle.version, bundle.classes) == (finished.name, "0.1", FINDINGS)
    assert bundle.temperature == best["temperature"]
    assert list(bundle.profiles) == [*GATED, *PROFILES]
    assert bundle.default_profile == "normal-90"
    assert bundle.manifest["training"]["validation"]["films"] == 48
    for name, tensor in load_file(bundle.weights).items():
        kept = best["model"][name]
        assert torch.equal(tensor, kept.half() if kept.ndim > 2 else kept)  # convolutions in 16 bits


def test_training_moved_the_weights(finished: Path) -> None:
    torch.manual_seed(CONFIG.seed)
    fresh, last = build(CONFIG.model).state_dict(), load_state(finished / "last.pt")["model"]
    assert fresh.keys() == last.keys()
    still = [name for name, tensor in fresh.items() if torch.equal(tensor, last[name])]
    assert still == []


def test_what_is_kept_is_the_average(finished: Path) -> None:
    last, best = load_state(finished / "last.pt"), load_state(finished)
    if best["epoch"] == last["epoch"]:
        assert_same(best["model"], last["average"]["net"])
    assert last["average"]["steps"] == 6
    assert not torch.equal(last["average"]["net"]["head.bias"], last["model"]["head.bias"])


def test_without_an_average_the_weights_are_kept(tmp_path: Path) -> None:
    fit(replace(CONFIG, epochs=1, ema=0.0), tmp_path / "run", quiet=True)
    assert_same(load_state(tmp_path / "run")["model"], load_state(tmp_path / "run" / "last.pt")["model"])


def test_a_stopped_run_is_whole(stopped: Path) -> None:
    assert {file.name for file in stopped.iterdir()} == FILES
    assert [row["epoch"] for row in history(stopped)] == ["1"]
    assert load_state(stopped / "last.pt")["epoch"] == 0


def test_resume_is_exact(finished: Path, stopped: Path, tmp_path: Path, msloc: Callable[..., int]) -> None:
    run = copied(stopped, tmp_path).rename(tmp_path / finished.name)  # the bundle is called like the folder
    assert msloc("train", "--resume", "--out", run) == 0
    assert history(run) == history(finished)
    for name in ("last.pt", "best.pt"):
        assert_same(load_state(run / name), load_state(finished / name))
    for file in (finished / "bundle").iterdir():
        assert (run / "bundle" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_same_command_resumes(
    finished: Path, stopped: Path, tmp_path: Path, msloc: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(stopped, tmp_path)
    monkeypatch.setattr(export, "write_bundle", lambda *_, **__: ())
    monkeypatch.setattr(export, "tell_export", lambda *_: None)
    assert msloc("train", *OPTIONS, "--workers", 2, "--resume", "--out", run) == 0
    assert_same(load_state(run)["model"], load_state(finished)["model"])


def test_resume_with_other_choices(
    stopped: Path, tmp_path: Path, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(stopped, tmp_path)
    assert msloc("train", "--resume", "--out", run, "--epochs", 9) == 2
    assert "the run that goes on has epochs 2, got 9" in capsys.readouterr().err


def test_a_crash_between_two_files_costs_nothing(finished: Path, stopped: Path, tmp_path: Path) -> None:
    """best.pt and the history of epoch 2 are written, last.pt is still that of epoch 1."""
    run = copied(stopped, tmp_path)
    for name in ("best.pt", "history.csv"):
        shutil.copy(finished / name, run / name)
    fit(Run(run).config(), run, resume=True, quiet=True)
    assert history(run) == history(finished)
    for name in ("last.pt", "best.pt"):
        assert_same(load_state(run / name), load_state(finished / name))


def test_resuming_a_finished_run_changes_nothing(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    fit(Run(run).config(), run, resume=True, quiet=True)
    assert history(run) == history(finished)
    assert_same(load_state(run), load_state(finished))


@pytest.mark.parametrize("changes", [{}, {"deterministic": True, "freeze": 1, "model": {"stages": "last"}}])
def test_a_run_stopped_in_its_first_epoch_keeps_its_initial_weights(
    finished: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = replace(CONFIG.model, **changes.get("model", {}))
    config = replace(CONFIG, **{**changes, "model": model}, epochs=1, init=str(finished))
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    fit(config, straight, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_in_epoch(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            fit(config, stopped, quiet=True)
    fit(Run(stopped).config(), stopped, resume=True, quiet=True)
    assert_same(load_state(stopped / "last.pt"), load_state(straight / "last.pt"))
    if config.freeze:
        kept, given = load_state(straight)["model"], load_state(finished)["model"]
        assert all(torch.equal(kept[name], given[name]) for name in kept if name.startswith("backbone."))


def test_weights_of_a_run_start_another(finished: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_train", lambda config, net, *_: nets.append(net) or (_ for _ in ()).throw(KeyError))
        nets: list[Any] = []
        for n, init in enumerate((finished, finished / "best.pt")):
            with pytest.raises(KeyError):
                fit(replace(CONFIG, init=str(init)), tmp_path / str(n), quiet=True)
    weights = load_state(finished)["model"]
    for net in nets:
        assert all(torch.equal(t, weights[f"backbone.{name}"]) for name, t in net.backbone.state_dict().items())
    with pytest.raises(TrainError, match="no such file") as caught:
        fit(replace(CONFIG, init=str(tmp_path)), tmp_path / "run", quiet=True)
    assert caught.value.reason == "checkpoint_missing"


def test_an_occupied_folder_is_refused(
    stopped: Path, tmp_path: Path, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(stopped, tmp_path)
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    assert msloc("train", *OPTIONS, "--epochs", 9, "--out", run) == 1
    assert "[out_occupied]" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_resume_of_nothing(tmp_path: Path, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert msloc("train", "--resume", "--out", tmp_path / "none") == 1
    assert "[checkpoint_missing]" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_damaged_checkpoint_is_not_resumed(
    stopped: Path, tmp_path: Path, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"schema": "msloc-edge/run/1"}, "checkpoint_mismatch"),
        ({"schema": "msloc-edge/run/9"}, "checkpoint_mismatch"),
        ({"model": 1}, "checkpoint_damaged"),
        ({"schema": 3}, "checkpoint_damaged"),
        (torch.zeros(2), "checkpoint_damaged"),
    ],
)
def test_other_checkpoints(tmp_path: Path, content: Any, reason: str) -> None:
    torch.save(content, tmp_path / "best.pt")
    for path in (tmp_path, tmp_path / "best.pt"):
        with pytest.raises(TrainError, match=f"expected .* {SCHEMA}") as caught:
            load_state(path)
        assert caught.value.reason == reason


def test_missing_checkpoints(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(TrainError) as caught:
            load_state(missing)
        assert caught.value.reason == "checkpoint_missing"


def test_an_unfinished_run_is_not_exported(
    stopped: Path, tmp_path: Path, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint in (stopped, stopped / "last.pt"):
        assert msloc("export", "bundle", checkpoint, tmp_path / "bundle") == 1
        assert "[not_calibrated]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_few_validation_films_are_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"got 1 film of 1 patient, .* raise val_films") as caught:
        fit(replace(CONFIG, val_films=1), tmp_path / "run", quiet=True)
    assert caught.value.reason == "data_missing"
    assert not (tmp_path / "run" / "history.csv").exists()


def test_a_loss_that_is_not_finite_stops_the_run(finished: Path, tmp_path: Path) -> None:
    state = load_state(finished / "best.pt")
    state["model"]["backbone.conv1.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    config = replace(CONFIG, epochs=1, init=str(tmp_path / "nan.pt"))
    with pytest.raises(TrainError, match="the loss is nan in batch 1 of epoch 1; try a lower --lr") as caught:
        fit(config, tmp_path / "run", quiet=True)
    assert caught.value.reason == "loss_not_finite"
    named = str(caught.value).partition("films of the batch: ")[2].split(", ")
    assert len(set(named)) == 8
    assert all(name.startswith("phantom 200000") for name in named)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", 100],
        ["--lr", 0],
        ["--seed", -1],
        ["--backbone", "vgg"],
        ["--insert", 2],
        ["--batch", "many"],
        ["--films", 24],
    ],
)
def test_wrong_usage(
    tmp_path: Path, arguments: list[object], msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert msloc("train", "--out", tmp_path / "run", *arguments) == 2
    assert "Error" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_unknown_data(tmp_path: Path, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert msloc("train", "--out", tmp_path / "run", "--data", "mimic") == 1
    assert "[option_invalid]" in capsys.readouterr().err


def test_training_begins_at_the_frequency_of_each_finding() -> None:
    training = training_films(["phantom"], FINDINGS, 64, 24, CONFIG.seed, Progress(disable=True))
    net = build(CONFIG.model)
    loop._start_at_prevalence(net, label_frequency(training))
    frequency = training[0].labels.mean(axis=0).clip(0.01, 0.99)
    assert net.head.bias.sigmoid().tolist() == pytest.approx(frequency.tolist(), abs=1e-6)


# early stop


def scores_of(patch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Runs that do not train, and validate with these scores, one for each epoch from the first on."""
    given = iter(scores)
    labels = np.tile(np.array([[0.0], [1.0]], np.float32), (1, len(FINDINGS)))

    class Scored(distributed.Validation):
        macro_auroc = property(lambda _: score)  # type: ignore[assignment]

    def validate(*_: object) -> distributed.Validation:
        nonlocal score
        score = next(given)
        return Scored(labels, labels, 0.5)

    score = 0.0
    patch.setattr(distributed, "validate", validate)
    patch.setattr(loop, "_train_epoch", lambda *_: 0.5)
    patch.setattr(loop, "calibrate", lambda *_: {})


def test_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores_of(monkeypatch, [0.5, 0.7, 0.6, 0.69, 0.8])
    fit(replace(CONFIG, epochs=9, patience=2), tmp_path / "run", quiet=True)
    assert [row["val_auroc"] for row in history(tmp_path / "run")] == ["0.5", "0.7", "0.6", "0.69"]
    assert load_state(tmp_path / "run")["epoch"] == 1
    fit(Run(tmp_path / "run").config(), tmp_path / "run", resume=True, quiet=True)  # remains stopped
    assert len(history(tmp_path / "run")) == 4


def test_patience_goes_on_where_a_run_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, epochs=9, patience=2)
    scores_of(monkeypatch, [0.5, 0.4])
    with pytest.raises(StopIteration):
        fit(config, tmp_path / "run", quiet=True)
    scores_of(monkeypatch, [0.45, 0.9])
    fit(config, tmp_path / "run", resume=True, quiet=True)
    assert [row["val_auroc"] for row in history(tmp_path / "run")] == ["0.5", "0.4", "0.45"]


def test_only_the_full_size_counts_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 epochs at 128 px have their say about patience as little as about the best weights."""
    scores_of(monkeypatch, [0.9, *[0.5] * 15, 0.7, 0.6])
    config = replace(CONFIG, model=replace(CONFIG.model, size=256), films=2, val_films=2, epochs=20, patience=1)
    fit(config, tmp_path / "run", quiet=True)
    assert [row["size"] for row in history(tmp_path / "run")] == ["128"] * 16 + ["256"] * 2
    assert load_state(tmp_path / "run")["epoch"] == 16


# several sources


def test_real_films_beside_phantoms(release: Any, tmp_path: Path) -> None:
    labels = ["No Finding", "Cardiomegaly|Mass", "Effusion", "Hernia"]
    films = {f"{n:08d}_000.png": labels[n % 4] for n in range(40)}
    spec = f"nih:{release(tmp_path / 'nih', films, {'00000999_000.png': 'Mass'}).write()}"
    config = replace(CONFIG, data=(spec, "phantom"), epochs=1, workers=2)
    classes, silent = config.model.classes, Progress(disable=True)
    count = [
        sum(map(len, films))
        for films in (
            training_films(config.data, classes, 64, 24, 1, silent),
            validation_films(config.data, classes, 64, 48, silent),
        )
    ]
    assert sum(count) == 40 + 24 + 48
    seen = []

    def calibrated(net: Any, sources: Any, lesions: Any, batch: int, progress: Progress) -> dict[str, Any]:
        seen.append([source.source for source in sources])
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "calibrate", calibrated)
        state = fit(config, tmp_path / "run", quiet=True)
    assert state is not None
    assert state["epoch"] == 0
    assert seen == [[spec, "phantom"]]
