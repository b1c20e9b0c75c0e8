"""What a run may be told: by fields, by recipes, by flags, by the folder of an earlier run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import pytest

from msloc_edge.cli.train import command
from msloc_edge.errors import TrainError
from msloc_edge.model import ModelConfig
from msloc_edge.train import TrainConfig
from msloc_edge.train.checkpoint import SCHEMA, Run
from msloc_edge.train.choices import choices, read_recipe, resolve, resume_with
from msloc_edge.train.data import NIH_CLASSES, source_classes
from msloc_edge.train.phantom import FINDINGS

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
        ({"films": 0}, "films of at least 1, got 0"),
        ({"films": 1_000_000}, "fewer than 1000000 films"),
        ({"val_films": 1_000_000}, "fewer than 1000000 films"),
        ({"seed": -1}, "seed of at least 0, got -1"),
        ({"workers": -1}, "workers of at least 0"),
        ({"patience": -1}, "patience of at least 0"),
        ({"weight_decay": -1.0}, "weight_decay of at least 0"),
        ({"epochs": 0}, "epochs of at least 1"),
        ({"batch": -1}, "batch of at least 1, got -1"),
        ({"lr": 0.0}, "learning rate above 0"),
        ({"lr": math.nan}, "lr to be finite, got nan"),
        ({"lr": math.inf}, "lr to be finite, got inf"),
        ({"balance": 1.5}, "balance of 0 to 1, got 1.5"),
        ({"insert": -0.1}, "insert of 0 to 1"),
        ({"insert": math.nan}, "insert of 0 to 1"),
        ({"ema": 1.0}, "ema of at least 0 and below 1, got 1.0"),
        ({"freeze": "head"}, "freeze to be a number of epochs or 'backbone', got 'head'"),
        ({"freeze": -1}, "freeze to be a number of epochs"),
        ({"precision": "fp8"}, "precision to be one of auto, fp32, bf16, fp16, got 'fp8'"),
        ({"data": ()}, "distinct sources of data, at least one"),
        ({"data": ("phantom", "phantom")}, "distinct sources"),
    ],
)
def test_values_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


def test_json_and_back() -> None:
    run = replace(CONFIG, seed=3, films=10, freeze="backbone", data=("phantom", "nih:x"))
    assert TrainConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run


# flags


def test_every_field_has_a_flag_with_its_default_and_its_meaning() -> None:
    flags = {option.name: option for option in command.params if isinstance(option, click.Option)}
    ours = {f.name: f.default for f in fields(TrainConfig) if f.name != "model"}
    ours |= {f.name: f.default for f in fields(ModelConfig) if f.name != "classes"}
    assert set(flags) == {*ours, "out", "resume", "recipe"}
    assert [choice.name for choice in choices() if not choice.help] == []
    for name, default in ours.items():
        shown = default[0] if isinstance(default, tuple) else default
        assert default is None or f"[default: {shown}]" in (flags[name].help or ""), name


def given(*arguments: str) -> dict[str, Any]:
    """What the command line passes on of these arguments."""
    context = command.make_context("train", ["--out", "x", *arguments])
    return {k: v for k, v in context.params.items() if v not in (None, ()) and k not in ("out", "resume", "recipe")}


def test_flags_that_are_not_given_say_nothing() -> None:
    assert given() == {}
    assert resolve({}, given(), two) == TrainConfig(ModelConfig(("a", "b")))


def test_flags_have_the_types_of_their_fields() -> None:
    flags = given(
        *("--data", "phantom", "--data", "nih:x", "--lr", "1", "--freeze", "3", "--no-progressive", "--compile"),
        *("--size", "96", "--pool", "lse", "--weight-decay", "0", "--init", "w.pt"),
    )
    run = resolve({}, flags, two)
    assert run == TrainConfig(
        ModelConfig(("a", "b"), size=96, pool="lse"),
        data=("phantom", "nih:x"),
        lr=1.0,
        freeze=3,
        progressive=False,
        compile=True,
        weight_decay=0.0,
        init="w.pt",
    )
    assert isinstance(run.lr, float)
    assert resolve({}, given("--freeze", "backbone"), two).freeze == "backbone"


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
        ("epoch = 3", r"unknown choice 'epoch'; expected one of anatomy_loss, balance, .*epochs"),
        ("size = 96", "unknown choice 'size'"),
        ("[model]\nepochs = 3", "unknown choice 'epochs'; expected one of backbone, classes"),
        ("[train]\nepochs = 3", "unknown choice 'train'"),
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
        ('[model]\npool = "max"', "expected pool to be one of avg, lse, max, pcam, got 'max'"),
        ("[model]\nclasses = []", "expected distinct class names"),
        ("epochs = 0", "expected epochs of at least 1"),
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
    for path, reason in ((tmp_path / "none.toml", "recipe_missing"), (written(tmp_path, "epochs ="), "recipe_invalid")):
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
        *("cxr-edge-pretrain", "cxr-edge", "cxr-densenet121", "cxr-densenet121-128", "nih-full-1gpu", "nih-full-8gpu")
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
        ({"epoch": 3}, {}, "unknown choice"),
        ({"model": 1}, {}, "expected a table 'model'"),
    ],
)
def test_a_run_that_goes_on_is_the_same_run(recipe: dict[str, Any], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resume_with(CONFIG, recipe, flags)


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
        (f'{{"schema": "{SCHEMA}", "model": {{"size": 64}}}}', "run_damaged"),
        (f'{{"schema": "{SCHEMA}", "model": {{"classes": "a"}}}}', "run_damaged"),
        ('{"schema": "msloc-edge/run/1", "model": {"classes": ["a"]}}', "run_schema"),
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
