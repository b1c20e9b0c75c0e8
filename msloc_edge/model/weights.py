"""Backbone weights from elsewhere: torchvision's and EfficientNet-Lite0's ImageNet files, CheXNet's kind, our own.

Published checkpoints differ in wrapping ({"state_dict": ...}), prefixes ("module.densenet121.") and, when old, in
DenseNet's layer names ("norm.1"). All of that is undone by name; nothing is guessed from shapes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from msloc_edge.errors import TrainError
from msloc_edge.model.foreign import ForeignBackbone
from msloc_edge.model.network import GREY_MEAN, GREY_STD, CamNet

_COUNTS = "num_batches_tracked"
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_OLD_DENSE_NAMES = re.compile(r"(denselayer\d+)\.(norm|conv)\.(\d)\.")
_UNDERSCORES = re.compile(r"(^|\.)_")


def load_weights(net: CamNet, path: Path) -> int:
    """Fill all of `net` where the file holds every tensor of it in its shape, as one of our own does for the same
    classes, neck and stages; else its backbone alone, as load_backbone does. Returns the number of tensors loaded.
    """
    own, state = net.state_dict(), _read(path)
    if own.keys() <= state.keys() and all(state[name].shape == tensor.shape for name, tensor in own.items()):
        net.load_state_dict({name: state[name] for name in own})
        return len(own)
    return load_backbone(net, path)


def load_backbone(net: CamNet, path: Path) -> int:
    """Fill `net.backbone` from a .safetensors or a torch file; the head keeps its fresh weights.

    Returns the number of tensors loaded. Raises TrainError when the file cannot be read or a tensor of the backbone
    is missing or has another shape: a half-loaded backbone trains, badly, without a word.
    """
    if isinstance(net.backbone, ForeignBackbone):
        return fill(net.backbone.network, path)
    own = net.backbone.state_dict()
    found = _match_names(_read(path), own)
    if not found:
        raise TrainError(
            "checkpoint_mismatch", f"{path}: no weights of a {net.config.backbone} backbone found in this file"
        )
    _fold_rgb_stem(found, net.backbone.stem, net.backbone.rgb)
    _check(path, found, own, (*net.backbone.own_names, _COUNTS), f"is its backbone {net.config.backbone}?")
    net.backbone.load_state_dict(found, strict=False)
    return len(found)


def fill(network: nn.Module, path: Path) -> int:
    """Fill a network of anybody's from a .safetensors or a torch file; prefixes and wrappers may be other ones.

    Returns the number of tensors loaded. Raises TrainError when the file cannot be read, or lacks a tensor.
    """
    own, state = network.state_dict(), _read(path)
    found = _match_names(state, own)
    _check(path, found, own, (_COUNTS,), "is it of this network?")
    network.load_state_dict(found, strict=False)
    return len(found)


def _check(
    path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor], optional: Sequence[str], hint: str
) -> None:
    """Raise TrainError for a tensor of `own` that was not found, or has another shape; some are optional."""
    for name, tensor in own.items():
        if name not in found:
            if any(part in name for part in optional):
                continue
            raise TrainError("checkpoint_mismatch", f"{path}: expected the tensor {name}, which the file does not hold")
        if found[name].shape != tensor.shape:
            shapes = f"expected {name} of shape {tuple(tensor.shape)}, got {tuple(found[name].shape)}"
            raise TrainError("checkpoint_mismatch", f"{path}: {shapes}; {hint}")


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise TrainError("checkpoint_missing", f"{path}: no such file; --init expects a .safetensors or torch file")
    try:
        content = load_plain(path)
    except OSError as error:
        raise TrainError("checkpoint_damaged", f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # on bytes that are not its own, the unpickler raises anything at all
        raise TrainError(
            "checkpoint_damaged", f"{path}: expected a .safetensors or torch file that holds weights and no code"
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise TrainError("checkpoint_damaged", f"{path}: expected a state dict, got {type(content).__name__}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def load_plain(path: Path) -> Any:
    """Read a .safetensors or a torch file, without running code from it. Raises anything when it is neither."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about pickles that it then refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def _match_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find the tensors of `state` under the names of `own`, as they are or modern; empty where no prefix fits."""
    modern = {_modern_name(name): value for name, value in state.items()}
    return max((_matched(names, own) for names in (state, modern)), key=len)


def _matched(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find the tensors of `state` under the names of `own` behind one prefix."""
    anchor = next(iter(own))
    prefix = min((name[: -len(anchor)] for name in state if name.endswith(anchor)), key=len, default=None)
    return {} if prefix is None else {name: state[prefix + name].clone() for name in own if prefix + name in state}


def _modern_name(name: str) -> str:
    """Modernise a name: "denselayer1.norm.1.weight" -> "denselayer1.norm1.weight"; "_bn1.weight" -> "bn1.weight"."""
    return _UNDERSCORES.sub(r"\1", _OLD_DENSE_NAMES.sub(r"\1.\2\3.", name))


def _fold_rgb_stem(
    state: dict[str, Tensor], stem: tuple[str, str], rgb: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    """Turn a first convolution over RGB normalised by `rgb` into the one over normalised grey that gives the same.

    For a grey pixel g = GREY_MEAN + GREY_STD z, channel c was (g - mean_c) / std_c = z GREY_STD / std_c + offset_c.
    The constant that the offsets add is taken off the following batch norm's running mean; this is exact but for the
    outermost pixels, where zero padding meets it.
    """
    conv, running_mean = stem
    weight = state.get(conv)
    if weight is None or weight.shape[1] != len(rgb[0]) or running_mean not in state:
        return
    mean, std = (weight.new_tensor(values) for values in rgb)
    constant = (weight.sum(dim=(2, 3)) * ((GREY_MEAN - mean) / std)).sum(dim=1)
    state[conv] = (weight * (GREY_STD / std)[:, None, None]).sum(dim=1, keepdim=True)
    state[running_mean] = state[running_mean] - constant
