"""The options of a run as a user gives them: a recipe file, and flags that win over it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from msloc_edge._config import as_type
from msloc_edge.errors import TrainError
from msloc_edge.model.config import ModelConfig
from msloc_edge.train.config import TrainConfig

MAY_DIFFER = ("workers",)
"""Options that a resumed run may choose anew: the result does not depend on them."""


def model_options() -> dict[str, Field[Any]]:
    """Fields of the network that a user chooses, by name: a recipe has them in its table `model`."""
    return {f.name: f for f in fields(ModelConfig) if f.name != "classes"}


def run_options() -> dict[str, Field[Any]]:
    """Fields of the run beside the network, by name."""
    return {f.name: f for f in fields(TrainConfig) if f.name != "model"}


def resolve(
    recipe: Mapping[str, Any], flags: Mapping[str, Any], classes: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> TrainConfig:
    """Make the configuration that a recipe, and flags that win over it, ask for.

    `classes` tells which findings the sources of data have; a recipe that names the classes in its table `model` trains
    on these alone. Raises ValueError as `TrainConfig.from_dict` does.
    """
    of_model = model_options()
    values = {**recipe, **{name: value for name, value in flags.items() if name not in of_model}}
    model = values.get("model", {})
    if isinstance(model, Mapping):
        values["model"] = model = {**model, **{name: value for name, value in flags.items() if name in of_model}}
        if "classes" not in model:
            data = values.get("data", run_options()["data"].default)
            model["classes"] = classes(as_type("data", data, tuple[str, ...]))
    return TrainConfig.from_dict(values)


def resume_with(config: TrainConfig, recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a run that goes on, when the same options are given again, or some, or none.

    Raises ValueError when one of them is another than the run's, unless it is one of MAY_DIFFER.
    """
    own = config.to_dict()
    model = recipe.get("model", {})
    again = {**own, **recipe, "model": {**own["model"], **model} if isinstance(model, Mapping) else model}
    wanted = resolve(again, flags, lambda _: config.model.classes)
    for names, had, got in ((model_options(), config.model, wanted.model), (run_options(), config, wanted)):
        for name in names:
            if getattr(had, name) != getattr(got, name) and name not in MAY_DIFFER:
                raise ValueError(
                    f"the run that goes on has {name} {getattr(had, name)!r}, got {getattr(got, name)!r}; leave it out "
                    "or start anew"
                )
    return wanted


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a TOML file of options: names as in TrainConfig, those of the network in a table `model`.

    Raises TrainError when it cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError("option_invalid", f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError("option_invalid", f"{path}: expected a TOML file ({error})") from error
