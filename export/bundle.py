"""Bundles: the network, its ONNX form, and everything a device must know, bound together by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

import msloc_edge
from msloc_edge import selftest
from msloc_edge._files import atomic_folder
from msloc_edge.bundle import CARD, MANIFEST, ONNX, SCHEMA, WEIGHTS, Bundle
from msloc_edge.errors import ExportError, OutputError
from msloc_edge.export.card import Measured, model_card
from msloc_edge.export.onnx import OPSET, to_onnx
from msloc_edge.export.parity import REFERENCE, Parity, check_parity
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.pipeline import Localizer

INTENDED_USE = (
    "Research and engineering of weakly supervised localization on chest radiographs. Not a medical device: "
    "not for diagnosis."
)


def load_network(state: Mapping[str, Any]) -> CamNet:
    """Build the network of a calibrated checkpoint (train.checkpoint), in evaluation mode."""
    net = build(ModelConfig.from_dict(state["config"]["model"]))
    net.load_state_dict(state["model"])
    return net.eval()


def export_bundle(
    state: Mapping[str, Any],
    out: Path,
    films: Sequence[NDArray[np.float32]],
    name: str = "cxr-edge",
    version: str = "0.1",
    measured: Sequence[Measured] = (),
) -> tuple[Bundle, Parity]:
    """Write the bundle of a calibrated checkpoint to the folder `out`, which must not exist or be a bundle itself.

    films    displayed films [H, W] in [0, 1], over which torch and onnxruntime must agree
    measured figures for the model card; refused if they are another network's
    returns the bundle, and how well the engines agreed

    The folder is made beside `out` and renamed when the parity gate is passed. Raises ExportError otherwise.
    """
    if "temperature" not in state:
        raise ExportError("not_calibrated", "the checkpoint is of a run that has not ended; resume it first")
    if not _replaceable(out):
        raise OutputError(
            "out_occupied", f"{out}: expected a new folder, or a bundle to replace, and found other files; name another"
        )
    with atomic_folder(out) as folder:
        _write(state, folder, name, version, measured)
        _add_golden(folder)
        parity = check_parity(Bundle.open(folder), films)
    return Bundle.open(out), parity


def _replaceable(out: Path) -> bool:
    """Tell whether nothing is there, or an empty folder, or a bundle and no other file."""
    if not out.exists():
        return True
    names = {file.name for file in out.iterdir()} if out.is_dir() else {"not a folder"}
    return not names or (MANIFEST in names and names <= {MANIFEST, ONNX, WEIGHTS, CARD, "manifest.sig"})


def _write(state: Mapping[str, Any], folder: Path, name: str, version: str, measured: Sequence[Measured]) -> None:
    net = load_network(state)
    config, size = net.config, net.config.size
    relevance = net.head.relevance.detach().double().numpy()
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "intended_use": INTENDED_USE,
        "classes": list(config.classes),
        "input": {"height": size, "width": size, "channels": 1, "dtype": "float32", "range": [0, 1]},
        "stages": [{"height": size // s, "width": size // s, "stride": s} for s in net.strides],
        "relevance": np.round(relevance, 8).tolist(),
        "bias": net.head.bias.detach().numpy().astype(float).round(8).tolist(),
        "pool": config.pool,
        "temperature": state["temperature"],
        "profiles": state["profiles"],
        "default_profile": "youden",
        "architecture": config.to_dict(),
        "calibration": state["calibration"],
        "training": {
            "config": state["config"],
            "epoch": state["epoch"] + 1,
            "films": state["films"],
            "validation": state["validation"],
            "msloc_edge": msloc_edge.__version__,
        },
        "opset": OPSET,
    }
    onnx = to_onnx(net)
    own = hashlib.sha256(onnx).hexdigest()
    for section in measured:
        if section.onnx_sha256 != own:
            raise ExportError(
                "figures_foreign",
                f"expected metrics of the network {own[:12]}..., got those of {section.onnx_sha256[:12]}...; run eval "
                "on a bundle of this checkpoint",
            )
    contents = {
        ONNX: onnx,
        WEIGHTS: save({key: value.contiguous() for key, value in net.state_dict().items()}),
        CARD: model_card(manifest, measured).encode(),
    }
    manifest["files"] = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    manifest["thresholds_for"] = manifest["files"][ONNX]
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    _write_manifest(folder, manifest)


def _add_golden(folder: Path) -> None:
    """Add PyTorch's result on the self-test's film, which backends on devices are compared with."""
    with Localizer(folder, REFERENCE, all_classes=True) as reference:
        golden = selftest.result(reference)
        _write_manifest(folder, {**reference.bundle.manifest, "golden": golden})


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
