"""A network in another precision that passes the localization gate, with as few layers in fp32 as it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import onnx

from msloc_edge.bundle import ONNX, Bundle
from msloc_edge.errors import ExportError
from msloc_edge.export.graphs import class_maps, with_heatmap
from msloc_edge.export.precision.fp16 import to_fp16, with_rounding
from msloc_edge.export.precision.gate import ClassFigures, GateFilms, measure, refusal
from msloc_edge.export.runtimes import Array, in_onnxruntime


@dataclass(frozen=True, slots=True, eq=False)
class Films:
    """Films of a conversion: model inputs [H, W] to calibrate int8 on and their source, other films for the gate."""

    calibration: Sequence[Array]
    source: str
    gate: GateFilms


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A network in a precision: the layers that stayed in fp32, the gate's figures, and every trial until then."""

    network: onnx.ModelProto
    precision: str
    kept: tuple[str, ...] = ()
    figures: tuple[ClassFigures, ...] = ()
    trials: tuple[dict[str, Any], ...] = ()


def convert(bundle: Bundle, precision: str, films: Films, keep: Sequence[str] = ()) -> Converted:
    """Convert a bundle's network to fp16 or int8.

    keep   layers that stay in fp32, as patterns such as "head.*"; without one, int8 keeps one group of layers after the
           other until the gate is passed

    Raises ExportError: parity, which names the classes and their figures; option_invalid.
    """
    network = onnx.load_model_from_string(bundle.read(ONNX))
    make = _maker(bundle, network, precision, films)
    reference = in_onnxruntime(with_heatmap(network, bundle))
    trials: list[dict[str, Any]] = []
    figures: list[ClassFigures] = []
    for kept in [_matching(network, keep)] if keep or precision == "fp16" else _growing(network):
        candidate = make(kept)
        figures = measure(bundle, reference, in_onnxruntime(with_rounding(with_heatmap(candidate, bundle))), films.gate)
        failed = [row.label for row in figures if not row.passes]
        trials.append({"kept_fp32": kept, "failed": failed})
        if not failed:
            return Converted(candidate, precision, tuple(kept), tuple(figures), tuple(trials))
    raise refusal(precision, figures, _advice(network, precision, bool(keep), len(trials)))


def layers(network: onnx.ModelProto) -> dict[str, str]:
    """Name the convolutions of a network: node -> layer, after its weights, such as "backbone.layer1.0.conv1"."""
    return {node.name: node.input[1].removesuffix(".weight") for node in network.graph.node if node.op_type == "Conv"}


def groups(network: onnx.ModelProto) -> dict[str, list[str]]:
    """Group the layers: head and neck, then the blocks of the backbone in order."""
    found: dict[str, list[str]] = {"head and neck": []}
    for layer in layers(network).values():
        block = re.match(r"(?!head\.|neck\.).*?\d+", layer)
        found.setdefault(block[0] if block else "head and neck", []).append(layer)
    return found


def after_the_maps(network: onnx.ModelProto, bundle: Bundle) -> set[str]:
    """Find the nodes that depend on class maps: pooling and logits, where 16 bits would lose what maps have."""
    below, nodes = set(class_maps(bundle)), set()
    for node in network.graph.node:
        if below & set(node.input):
            nodes.add(node.name)
            below |= set(node.output)
    return nodes


def _maker(
    bundle: Bundle, network: onnx.ModelProto, precision: str, films: Films
) -> Callable[[list[str]], onnx.ModelProto]:
    """Return a function: layers to keep -> the network. Ranges of activations are measured once, here."""
    names = layers(network)
    if precision == "fp16":
        head = after_the_maps(network, bundle)
        return lambda kept: to_fp16(network, head | {node for node, layer in names.items() if layer in kept})
    from msloc_edge.export.precision.int8 import calibrate, to_int8

    ranges = calibrate(network, films.calibration)
    return lambda kept: to_int8(network, ranges, {node for node, layer in names.items() if layer in kept})


def _matching(network: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    known = list(layers(network).values())
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in known):
            raise ExportError(
                "option_invalid", f"{pattern!r}: expected a pattern of layers such as {known[0]!r}, it matches none"
            )
    return [layer for layer in known if any(fnmatchcase(layer, pattern) for pattern in patterns)]


def _growing(network: onnx.ModelProto) -> Iterator[list[str]]:
    """Yield no layer, then one group more each time, as long as one is left in 8 bits."""
    kept: list[str] = []
    for group in groups(network).values():
        yield kept
        kept = [*kept, *group]


def _advice(network: onnx.ModelProto, precision: str, chosen: bool, trials: int) -> str:
    known = list(groups(network))
    advice = f"keep layers in fp32 with --keep-fp32 PATTERN (groups: {', '.join(known)})"
    if precision == "fp16" or chosen:
        return advice
    return f"all {trials} trials fail, also with only {known[-1]} in 8 bits: choose --precision fp16, or {advice}"
