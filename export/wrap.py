"""Bundles of networks that exist: somebody's ONNX file or PyTorch classifier, with thresholds fitted on films.

First a draft, whose thresholds mean nothing, for calibration to look at; then the bundle itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import msloc_edge
from msloc_edge._files import atomic_folder
from msloc_edge.backends import DEFAULT_BACKEND, load_backend
from msloc_edge.backends.onnxruntime import open_session
from msloc_edge.bundle import ONNX, SCHEMA, Bundle
from msloc_edge.errors import ExportError, MslocError
from msloc_edge.export.bundle import INTENDED_USE, add_golden, require_replaceable, write_again, write_files
from msloc_edge.export.class_maps import ENDINGS, Normalisation, Wrapped, wrap_graph
from msloc_edge.export.onnx import OPSET, export_module
from msloc_edge.export.parity import REFERENCE, Parity, check_parity, require_equal
from msloc_edge.model.factory import input_channels, make_network
from msloc_edge.model.weights import fill

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """A network as its author made it.

    model  its graph
    run    (film [1, channels, size, size] as it reads them, name of an output, None for the first) -> [1, K]
    """

    name: str
    model: onnx.ModelProto
    sha256: str
    run: Callable[[F32, str | None], F32]


def read_onnx(path: Path) -> Original:
    """Read an ONNX file. Raises ExportError (wrap_unsupported) when it is none."""
    try:
        data = path.read_bytes()
        model = onnx.load(path)
    except Exception as error:  # protobuf's exceptions share no base of their own
        raise ExportError("wrap_unsupported", f"{path}: expected an ONNX file ({error})") from error
    names = [value.name for value in model.graph.initializer]
    image = next((value.name for value in model.graph.input if value.name not in names), "")

    def run(film: F32, output: str | None) -> F32:
        found: F32 = open_session(model.SerializeToString()).run([output or model.graph.output[0].name], {image: film})[
            0
        ]
        return found.reshape(1, -1)

    return Original(path.name, model, hashlib.sha256(data).hexdigest(), run)


def trace_classifier(factory: str, weights: Path | None, size: int) -> Original:
    """Trace a PyTorch classifier of package.module:factory, with weights from a file where it is given.

    Raises TrainError as `make_network` and `fill` do, ExportError (wrap_unsupported) where it cannot be traced.
    """
    network = make_network(factory)
    if weights:
        fill(network, weights)
    network = FirstOutput(network.eval().float())
    try:
        model = export_module(network, torch.zeros(2, input_channels(network), size, size), ["logits"])
    except Exception as error:  # torch.export's exceptions share no base of their own
        raise ExportError(
            "wrap_unsupported", f"{factory}: expected a network that torch.export traces ({str(error).splitlines()[0]})"
        ) from error

    @torch.inference_mode()
    def run(film: F32, output: str | None) -> F32:
        found: F32 = network(torch.from_numpy(film)).numpy()
        return found.reshape(1, -1)

    named = f"{factory} with {weights.name}" if weights else factory
    return Original(named, model, hashlib.sha256(model.SerializeToString()).hexdigest(), run)


class FirstOutput(nn.Module):
    """A network whose first output counts, where it gives several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, films: Tensor) -> Tensor:
        found = self.network(films)
        if isinstance(found, Mapping):
            found = next(iter(found.values()))
        first: Tensor = found[0] if isinstance(found, (tuple, list)) else found
        return first


def write_draft(
    original: Original,
    folder: Path,
    classes: Sequence[str],
    normalisation: Normalisation,
    *,
    name: str,
    version: str = "0.1",
    size: int | None = None,
    logits: str | None = None,
    cams: Sequence[str] = (),
    relevance: NDArray[np.float64] | None = None,
) -> Bundle:
    """Write a network as a bundle that nobody has calibrated: every finding is positive at half its probability.

    relevance  [K, S] or [S] weights of the stages, shallow to deep; None: alike
    others     as in `wrap_graph`

    Raises ExportError (wrap_unsupported).
    """
    wrapped = wrap_graph(original.model, normalisation, len(classes), size, logits, cams)
    stages = len(wrapped.grids)
    weights = np.full(stages, 1 / stages) if relevance is None else np.asarray(relevance, np.float64)
    if weights.shape not in ((stages,), (len(classes), stages)) or weights.min() < 0:
        raise ExportError(
            "wrap_unsupported",
            f"expected relevance weights of {stages} stages, at least 0, got the shape {weights.shape}",
        )
    weights = np.broadcast_to(weights / weights.sum(axis=-1, keepdims=True), (len(classes), stages))
    plain = {"score": [0.5] * len(classes), "map": [0.0] * len(classes)}
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "intended_use": INTENDED_USE,
        "classes": list(classes),
        "input": {"height": wrapped.size, "width": wrapped.size, "channels": 1, "dtype": "float32", "range": [0, 1]},
        "stages": [{"height": h, "width": w, "stride": wrapped.size // h} for h, w in wrapped.grids],
        "relevance": weights.tolist(),
        "bias": [0.0] * len(classes) if wrapped.bias is None else wrapped.bias.astype(float).tolist(),
        "pool": "own" if wrapped.bias is None else "avg",
        "temperature": 1.0,
        "profiles": {"youden": plain},
        "default_profile": "youden",
        "calibration": {"scores": "nothing", "maps": dict.fromkeys(classes, "nothing")},
        "architecture": {"wrapped": original.name, "normalisation": _told(normalisation)},
        "training": {"wrapped": original.sha256, "msloc_edge": msloc_edge.__version__},
        "opset": OPSET,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, manifest, {ONNX: wrapped.model.SerializeToString()})
    bundle = Bundle.open(folder)
    _check_original(original, wrapped, bundle, normalisation, logits)
    return bundle


def wrap_bundle(draft: Bundle, found: Mapping[str, Any], out: Path, films: Sequence[F32]) -> tuple[Bundle, Parity]:
    """Write the bundle of a draft and of what calibration found to the folder `out`.

    films    displayed films [H, W] in [0, 1], over which the engines must agree
    out      must not exist or be a bundle itself
    returns  the bundle, and how well torch (where it knows the graph's operators) and onnxruntime agreed

    Raises ExportError (parity), OutputError (out_occupied).
    """
    require_replaceable(out)
    with atomic_folder(out) as folder:
        write_again(draft, found, folder, draft.version)
        reference = _reference(Bundle.open(folder))
        add_golden(folder, reference)
        parity = check_parity(Bundle.open(folder), films, reference)
    return Bundle.open(out), parity


def _told(normalisation: Normalisation) -> dict[str, list[float]]:
    return {"mean": list(normalisation.mean), "std": list(normalisation.std)}


def _reference(bundle: Bundle) -> str:
    """Choose the backend that the others are compared with: torch, where it knows the graph's operators."""
    try:
        load_backend(REFERENCE, bundle).close()
    except MslocError:
        return DEFAULT_BACKEND
    return REFERENCE


def _check_original(
    original: Original, wrapped: Wrapped, bundle: Bundle, normalisation: Normalisation, output: str | None
) -> None:
    """Compare the bundle's graph with the network as its author made it, and maps with the logits that they explain.

    Raises ExportError (parity).
    """
    film = np.random.default_rng(1).random((1, 1, wrapped.size, wrapped.size), np.float32)
    found = load_backend(DEFAULT_BACKEND, bundle).run(film)
    mean, std = normalisation.of(original.model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    scores = ENDINGS[wrapped.ending](found.logits) if wrapped.ending else found.logits
    require_equal("the network itself", original.run((film - mean) / std, output), scores)
    if wrapped.bias is not None:
        maps = found.fuse(0, range(len(bundle.classes))).dense()
        require_equal("bias and mean of its maps", wrapped.bias + maps.mean(axis=(1, 2))[None], found.logits)
