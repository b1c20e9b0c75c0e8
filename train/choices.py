"""What a user may choose, by flags and in a recipe file: the fields of TrainConfig and of ModelConfig."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from msloc_edge.errors import TrainError
from msloc_edge.model.config import BACKBONES, NECKS, POOLS, STAGES, ModelConfig
from msloc_edge.train.config import TrainConfig
from msloc_edge.train.plain import fitting

MAY_DIFFER = ("workers",)
"""What a resumed run may choose anew: the result does not depend on it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be chosen on the command line and in a recipe, and where its default and meaning come from."""

    name: str
    type: Any
    default: Any
    help: str
    allowed: tuple[str, ...]
    of_model: bool


_MODEL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "backbone": ("The network below the head.", BACKBONES),
    "size": ("Side of the input in pixels, a multiple of 32.", ()),
    "pool": ("How a class map becomes a logit.", POOLS),
    "sharpness": ("Of the pool lse: near 0 it is the average, large the maximum.", ()),
    "stages": ("all; last is the single-scale baseline.", STAGES),
    "neck": ("topdown: the shallow stages see what the deep ones know; pyramid: with a second layer.", NECKS),
}


def choices() -> tuple[Choice, ...]:
    """Every field of a run that a user chooses: TrainConfig's and, of the network, ModelConfig's but the classes."""
    model = [
        Choice(f.name, get_type_hints(ModelConfig)[f.name], f.default, *_MODEL.get(f.name, ("", ())), of_model=True)
        for f in fields(ModelConfig)
        if f.name != "classes"
    ]
    own = [
        Choice(f.name, get_type_hints(TrainConfig)[f.name], f.default, f.metadata["help"], f.metadata["choices"], False)
        for f in fields(TrainConfig)
        if f.name != "model"
    ]
    return (*model, *own)


def resolve(
    recipe: Mapping[str, Any], flags: Mapping[str, Any], classes: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> TrainConfig:
    """A run by a recipe, and by flags that win over it; `classes` tells which findings the sources have.

    A recipe that names the classes in its table `model` trains on these alone. Raises ValueError as from_dict does.
    """
    of_model = {choice.name for choice in choices() if choice.of_model}
    values = {**recipe, **{name: value for name, value in flags.items() if name not in of_model}}
    model = values.get("model", {})
    if isinstance(model, Mapping):
        values["model"] = model = {**model, **{name: value for name, value in flags.items() if name in of_model}}
        if "classes" not in model:
            default = next(f.default for f in fields(TrainConfig) if f.name == "data")
            model["classes"] = classes(fitting("data", values.get("data", default), tuple[str, ...]))
    return TrainConfig.from_dict(values)


def resume_with(config: TrainConfig, recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run that goes on, when the same choices are made again, or some of them, or none.

    Raises ValueError when one of them is another than the run's, unless it is one of MAY_DIFFER.
    """
    own = config.to_dict()
    model = recipe.get("model", {})
    again = {**own, **recipe, "model": {**own["model"], **model} if isinstance(model, Mapping) else model}
    wanted = resolve(again, flags, lambda _: config.model.classes)
    for choice in choices():
        had, got = (getattr(run.model if choice.of_model else run, choice.name) for run in (config, wanted))
        if had != got and choice.name not in MAY_DIFFER:
            raise ValueError(f"the run that goes on has {choice.name} {had!r}, got {got!r}; leave it out or start anew")
    return wanted


def read_recipe(path: Path) -> dict[str, Any]:
    """What a TOML file chooses: names as in TrainConfig, those of the network in a table `model`.

    Raises TrainError when it cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError("recipe_missing", f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError("recipe_invalid", f"{path}: expected a TOML file ({error})") from error
