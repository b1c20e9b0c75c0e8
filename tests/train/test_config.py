"""What a run may be told: by fields, by recipes, by flags, by the folder of an earlier run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msloc_edge.cli.train import FLAGS, command
from msloc_edge.errors import TrainError
from msloc_edge.model import ModelConfig
from msloc_edge.train import TrainConfig
from msloc_edge.train.checkpoint import SCHEMA, Run
from msloc_edge.train.data import NIH_CLASSES, source_classes
from msloc_edge.train.phantom import FINDINGS
from msloc_edge.train.recipe import model_options, read_recipe, resolve, resume_with, run_options

RECIPES = sorted(Path(__file__).parents[2].glob("examples/recipes/*.toml"))
CONFIG = TrainConfig(ModelConfig(FINDINGS, size=64))


def two(_: object) -> tuple[str, ...]:
    return ("a", "b")


def test_sizes_of_progressive_resizing() -> None:
    large = TrainConfig(ModelConfig(FINDINGS, size=512), epochs=10)
    assert [large.size_at(epoch) for epoch in range(10)] == [128] * 5 + [256] * 3 + [512] * 2
    odd = TrainConfig(ModelConfig(FINDINGS, size=416), epochs=4)
    assert [odd.size_at(epoch) for epoch in range(4)] == [128, 128, 192, 416]
    assert [replace(large, progressive=False).size_at(epoch) for epoch in (0, 9)] == [512, 512]
    assert CONFIG.size_at(0) == 64


def test_frozen_epochs() -> None:
    assert not any(CONFIG.frozen_at(epoch) for epoch in range(10))
    assert [replace(CONFIG, freeze=2).frozen_at(epoch) for epoch in range(4)] == [True, True, False, False]
    assert all(replace(CONFIG, freeze="backbone").frozen_at(epoch) for epoch in range(10))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"films": 0}, "films to be at least 1 and below 1000000, got 0"),
        ({"films": 1_000_000}, "films to be at least 1 and below 1000000, got 1000000"),
        ({"val_films": 1_000_000}, "val_films to be at least 1 and below 1000000"),
        ({"seed": -1}, "seed to be at least 0, got -1"),
        ({"workers": -1}, "workers to be at least 0"),
        ({"patience": -1}, "patience to be at least 0"),
        ({"per_source": -1}, "per_source to be at least 0"),
        ({"weight_decay": -1.0}, "weight_decay to be at least 0"),
        ({"stage_loss": -1.0}, "stage_loss to be at least 0"),
        ({"anatomy_loss": math.inf}, "anatomy_loss to be finite, got inf"),
        ({"epochs": 0}, "epochs to be at least 1"),
        ({"batch": -1}, "batch to be at least 1, got -1"),
        ({"lr": 0.0}, "lr to be above 0, got 0.0"),
        ({"lr": math.nan}, "lr to be finite, got nan"),
        ({"lr": math.inf}, "lr to be finite, got inf"),
        ({"balance": 1.5}, "balance to be at least 0 and at most 1, got 1.5"),
        ({"insert": -0.1}, "insert to be at least 0 and at most 1"),
        ({"insert": math.nan}, "insert to be finite, got nan"),
        ({"ema": 1.0}, "ema to be at least 0 and below 1, got 1.0"),
        ({"freeze": "head"}, "freeze to be at least 0 or backbone, got 'head'"),
        ({"freeze": -1}, "freeze to be at least 0 or backbone, got -1"),
        ({"precision": "fp8"}, "precision to be one of auto, fp32, bf16, fp16, got 'fp8'"),
        ({"data": ()}, "data to be distinct names, at least one"),
        ({"data": ("phantom", "phantom")}, "data to be distinct names"),
    ],
)
def test_values_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


def test_json_and_back() -> None:
    run = replace(CONFIG, seed=3, films=10, freeze="backbone", data=("phantom", "nih:x"), exclude=("a.txt",))
    assert json.loads(json.dumps(run.to_dict())) == run.to_dict()
    assert TrainConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run


# flags


def test_help_tells_every_option_with_its_meaning_and_its_default() -> None:
    options = model_options() | run_options()
    flags = [parameter.name for parameter in command.params]
    assert flags == ["out", "resume", "recipe", *FLAGS]
    words = CliRunner().invoke(command, ["--help"]).output.split()
    told = " ".join(words)
    for name, option in options.items():
        assert name in words or f"--{name.replace('_', '-')}" in words
        default = ", ".join(option.default) if isinstance(option.default, tuple) else str(option.default).lower()
        shown = "" if option.default in (None, ()) else f" [default: {default}]"
        assert option.metadata["help"] + shown in told, name


def given(*arguments: str) -> dict[str, Any]:
    """What the command line passes on of these arguments."""
    context = command.make_context("train", ["--out", "x", *arguments])
    return {k: v for k, v in context.params.items() if v not in (None, ()) and k not in ("out", "resume", "recipe")}


def test_flags_that_are_not_given_say_nothing() -> None:
    assert given() == {}
    assert resolve({}, given(), two) == TrainConfig(ModelConfig(("a", "b")))


def test_flags_have_the_types_of_their_fields() -> None:
    flags = given(
        *("--data", "phantom", "--data", "nih:x", "--lr", "1", "--size", "96", "--insert", "0", "--init", "w.pt"),
    )
    run = resolve({}, flags, two)
    assert run == TrainConfig(
        ModelConfig(("a", "b"), size=96), data=("phantom", "nih:x"), lr=1.0, insert=0.0, init="w.pt"
    )
    assert isinstance(run.lr, float)


# recipes


def written(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


def test_flags_win_over_a_recipe_and_a_recipe_over_the_defaults(tmp_path: Path) -> None:
    table = read_recipe(written(tmp_path, 'epochs = 3\nlr = 1\ndata = ["phantom"]\n[model]\nsize = 96\npool = "lse"\n'))
    run = resolve(table, given("--epochs", "4", "--size", "128"), source_classes)
    assert (run.epochs, run.lr, run.batch, run.data) == (
        4,
        1.0,
        TrainConfig.__dataclass_fields__["batch"].default,
        ("phantom",),
    )
    assert run.model == ModelConfig(FINDINGS, size=128, pool="lse")


def test_a_recipe_may_choose_the_classes() -> None:
    table = {"model": {"classes": ["Mass", "Nodule"]}}
    assert resolve(table, {}, lambda _: pytest.fail("asked for others")).model.classes == ("Mass", "Nodule")


def test_classes_come_from_the_sources() -> None:
    assert resolve({"data": ["nih:x"]}, {}, source_classes).model.classes == NIH_CLASSES
    assert resolve({"data": ["nih:x", "phantom"]}, {}, source_classes).model.classes == NIH_CLASSES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"unknown option 'epoch'; expected one of anatomy_loss, balance, .*epochs"),
        ("size = 96", "unknown option 'size'"),
        ("[model]\nepochs = 3", "unknown option 'epochs'; expected one of backbone, classes"),
        ("[train]\nepochs = 3", "unknown option 'train'"),
        ('epochs = "three"', "expected epochs to be a whole number, got 'three'"),
        ("epochs = 3.0", r"expected epochs to be a whole number, got 3\.0"),
        ("epochs = true", "expected epochs to be a whole number, got True"),
        ("compile = 1", "expected compile to be true or false, got 1"),
        ('lr = "0.1"', "expected lr to be a number, got '0.1'"),
        ("lr = nan", "expected lr to be finite, got nan"),
        ('data = "phantom"', "expected data to be a list of texts, got 'phantom'"),
        ("data = [1]", r"expected data to be a list of texts, got \[1\]"),
        ("init = 3", "expected init to be a text, got 3"),
        ("freeze = true", "expected freeze to be a whole number or a text, got True"),
        ("model = 3", "expected a table 'model'"),
        ('[model]\npool = "median"', "expected pool to be one of avg, lse, max, pcam, got 'median'"),
        ("[model]\nclasses = []", "expected classes to be distinct names"),
        ("epochs = 0", "expected epochs to be at least 1"),
    ],
)
def test_what_a_recipe_may_not_say(
    tmp_path: Path, text: str, message: str, msloc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        resolve(read_recipe(recipe), {}, two)
    assert msloc("train", "--config", recipe, "--out", tmp_path / "run") == 2
    assert f"Error: {recipe} and the options: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "option_invalid"), (written(tmp_path, "epochs ="), "option_invalid")):
        with pytest.raises(TrainError) as caught:
            read_recipe(path)
        assert caught.value.reason == reason
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_the_committed_recipes(recipe: Path) -> None:
    run = resolve(read_recipe(recipe), {}, source_classes)
    assert run.model.classes == NIH_CLASSES
    assert run.data[0].startswith("nih:")
    assert run.insert > 0  # map thresholds have something to be fitted on
    assert run.batch % 8 == 0
    assert str(recipe.relative_to(Path(__file__).parents[2])) in recipe.read_text()


def test_there_are_recipes() -> None:
    assert {path.stem for path in RECIPES} == {
        *("cxr-edge-pretrain", "cxr-edge", "cxr-fast-pretrain", "cxr-fast"),
        *("cxr-densenet121", "cxr-densenet121-128", "nih-full-1gpu", "nih-full-8gpu"),
    }


# a run that goes on


def test_a_run_goes_on_with_its_own_choices() -> None:
    assert resume_with(CONFIG, {}, {}) == CONFIG
    assert resume_with(CONFIG, {"epochs": 10, "model": {"size": 64}}, {"lr": 2e-3, "data": ("phantom",)}) == CONFIG
    assert resume_with(CONFIG, {}, {"workers": 5}) == replace(CONFIG, workers=5)


@pytest.mark.parametrize(
    ("recipe", "flags", "message"),
    [
        ({}, {"lr": 1.0}, r"the run that goes on has lr 0\.002, got 1\.0; leave it out or start anew"),
        ({}, {"size": 96}, "has size 64, got 96"),
        ({"model": {"pool": "lse"}}, {}, "has pool 'avg', got 'lse'"),
        ({"data": ["nih:x"]}, {}, "has data"),
        ({"epochs": 3}, {}, "has epochs 10, got 3"),
        ({"epoch": 3}, {}, "unknown option"),
        ({"model": 1}, {}, "expected a table 'model'"),
    ],
)
def test_a_run_that_goes_on_is_the_same_run(recipe: dict[str, Any], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resume_with(CONFIG, recipe, flags)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "checkpoint_damaged"),
        ("{", "checkpoint_damaged"),
        ("[]", "checkpoint_damaged"),
        ("null", "checkpoint_damaged"),
        (f'{{"schema": "{SCHEMA}"}}', "checkpoint_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"classes": ["a"]}}, "epochs": 0}}', "checkpoint_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"classes": ["a"]}}, "colour": 1}}', "checkpoint_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"size": 64}}}}', "checkpoint_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"classes": "a"}}}}', "checkpoint_damaged"),
        ('{"schema": "msloc-edge/run/1", "model": {"classes": ["a"]}}', "checkpoint_mismatch"),
        ('{"schema": "msloc-edge/run/9", "model": {"classes": ["a"]}}', "checkpoint_mismatch"),
        ('{"model": {"classes": ["a"]}}', "checkpoint_mismatch"),
    ],
)
def test_a_configuration_that_is_not_ours(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TrainError) as caught:
        Run(tmp_path).config()
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)
