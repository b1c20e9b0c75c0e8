"""A network of somebody else's code, by the name of what makes it: package.module:factory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from msloc_edge.errors import TrainError
from msloc_edge.model.config import FACTORY


def make_network(name: str) -> nn.Module:
    """Call package.module:factory without arguments, and return the network that it makes.

    Modules of the current folder are found, too. The code is run as it is: name only what you trust. Raises TrainError
    (option_invalid) when it cannot be found, fails, or makes no network.
    """
    factory = _find(name)
    try:
        network = factory()
    except Exception as error:  # somebody else's code
        raise TrainError("option_invalid", f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise TrainError("option_invalid", f"{name}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def input_channels(network: nn.Module) -> int:
    """Count the channels of the images that a network reads, by its first convolution; 1 where it has none."""
    return next((m.in_channels // m.groups for m in network.modules() if isinstance(m, nn.Conv2d)), 1)


def _find(name: str) -> Callable[[], Any]:
    module, _, path = name.partition(":")
    if not FACTORY.fullmatch(name):
        raise TrainError("option_invalid", f"expected package.module:factory, got {name!r}")
    here = "" not in sys.path
    if here:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TrainError("option_invalid", f"{name} cannot be imported: {error}") from error
    finally:
        if here:
            sys.path.remove("")
    if not callable(found):
        raise TrainError("option_invalid", f"{name}: expected a function or class, got {type(found).__name__}")
    return found
