"""Bundles: the network, its ONNX form, and everything a device must know, bound together by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

import msloc_edge
from msloc_edge import selftest
from msloc_edge._files import atomic_folder, require_writable
from msloc_edge.backends import DEFAULT_BACKEND, load_backend
from msloc_edge.bundle import CARD, MANIFEST, ONNX, SCHEMA, WEIGHTS, Bundle
from msloc_edge.errors import ExportError, OutputError
from msloc_edge.export.card import Measured, model_card
from msloc_edge.export.onnx import OPSET, to_onnx
from msloc_edge.export.parity import REFERENCE, Parity, check_parity, require_equal
from msloc_edge.imaging.gate import InputGate
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.pipeline import Localizer

INTENDED_USE = (
    "Research and engineering of weakly supervised localization on chest radiographs. Not a medical device: "
    "not for diagnosis."
)


def load_network(state: Mapping[str, Any]) -> CamNet:
    """Build the network of a calibrated checkpoint (train.checkpoint), in evaluation mode.

    Its convolutions are rounded to what 16 bits hold, so that weights.safetensors, which keeps them so, and model.onnx
    are one network.
    """
    net = build(ModelConfig.from_dict(state["config"]["model"]))
    net.load_state_dict({name: _half(tensor).to(tensor.dtype) for name, tensor in state["model"].items()})
    return net.eval()


def _half(tensor: Tensor) -> Tensor:
    """A convolution's weights in 16 bits; anything smaller as it is."""
    return tensor.half() if tensor.ndim > 2 else tensor


def export_bundle(
    state: Mapping[str, Any],
    out: Path,
    films: Sequence[NDArray[np.float32]],
    name: str,
    version: str = "0.1",
    measured: Sequence[Measured] = (),
    input_gate: InputGate | None = None,
) -> tuple[Bundle, Parity]:
    """Write the bundle of a calibrated checkpoint to the folder `out`, which must not exist or be a bundle itself.

    films    displayed films [H, W] in [0, 1], over which torch and onnxruntime must agree
    measured figures for the model card; refused if they are another network's
    input_gate  what the bundle asks of a film before it is localized; None: nothing
    returns the bundle, and how well the engines agreed

    The folder is made beside `out` and renamed when the parity gate is passed. Raises ExportError otherwise.
    """
    if "temperature" not in state:
        raise ExportError("not_calibrated", "the checkpoint is of a run that has not ended; resume it first")
    require_replaceable(out)
    net = load_network(state)
    with atomic_folder(out) as folder:
        _write(net, state, folder, name, version, measured, input_gate)
        add_golden(folder)
        parity = check_parity(Bundle.open(folder), films)
        if net.config.is_foreign:  # whose graph torch runs, too: compare it with itself
            _check_network(net, Bundle.open(folder))
    return Bundle.open(out), parity


@torch.inference_mode()
def _check_network(net: CamNet, bundle: Bundle) -> None:
    """Compare a bundle with the network that it was made of, on noise. Raises ExportError (parity)."""
    films = np.random.default_rng(1).random((2, 1, *bundle.input_size), np.float32)
    own, found = net(torch.from_numpy(films)), load_backend(DEFAULT_BACKEND, bundle).run(films)
    for expected, got in zip((own.logits, *own.cams), (found.logits, *found.cams), strict=True):
        require_equal("the network itself", expected.numpy(), got)


def recalibrate_bundle(bundle: Bundle, found: Mapping[str, Any], out: Path, version: str) -> Bundle:
    """Write a bundle again to the folder `out`, with another operating point and version, and the same network.

    found  what train.calibration.calibrate.recalibrate gave
    out    must not exist, or be another bundle

    Figures that `eval` measured before are no longer in its card: they were of other thresholds. Raises OutputError
    (out_occupied).
    """
    if not _replaceable(out) or (out.exists() and out.samefile(bundle.path)):
        raise OutputError("out_occupied", f"{out}: expected a new folder, or another bundle to replace; name another")
    with atomic_folder(out) as folder:
        write_again(bundle, found, folder, version)
        add_golden(folder, REFERENCE if WEIGHTS in bundle.manifest["files"] else DEFAULT_BACKEND)
    return Bundle.open(out)


def require_replaceable(out: Path) -> None:
    """Raise OutputError (out_occupied, out_unwritable) unless `out` may become a bundle."""
    if not _replaceable(out):
        raise OutputError(
            "out_occupied", f"{out}: expected a new folder, or a bundle to replace, and found other files; name another"
        )
    require_writable(out)


def _replaceable(out: Path) -> bool:
    """Tell whether nothing is there, or an empty folder, or a bundle and no other file."""
    if not out.exists():
        return True
    names = {file.name for file in out.iterdir()} if out.is_dir() else {"not a folder"}
    return not names or (MANIFEST in names and names <= {MANIFEST, ONNX, WEIGHTS, CARD, "manifest.sig"})


def _write(
    net: CamNet,
    state: Mapping[str, Any],
    folder: Path,
    name: str,
    version: str,
    measured: Sequence[Measured],
    input_gate: InputGate | None,
) -> None:
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
        **_operating_point({"default_profile": "youden"} | dict(state)),
        "architecture": config.to_dict(),
        "training": {
            "config": state["config"],
            "epoch": state["epoch"] + 1,
            "films": state["films"],
            "validation": state["validation"],
            "msloc_edge": msloc_edge.__version__,
        },
        "opset": OPSET,
    }
    if input_gate:
        manifest["input_gate"] = input_gate.numbers
    onnx = to_onnx(net)
    own = hashlib.sha256(onnx).hexdigest()
    for section in measured:
        if section.onnx_sha256 != own:
            raise ExportError(
                "figures_foreign",
                f"expected metrics of the network {own[:12]}..., got those of {section.onnx_sha256[:12]}...; run eval "
                "on a bundle of this checkpoint",
            )
    weights = save({key: _half(value).contiguous() for key, value in net.state_dict().items()})
    write_files(folder, manifest, {ONNX: onnx, WEIGHTS: weights}, measured)


def write_again(bundle: Bundle, found: Mapping[str, Any], folder: Path, version: str) -> None:
    """Write a bundle's files with another operating point and version, without a golden result."""
    gone = ("abnormal", "golden", "files", "thresholds_for")
    kept = {key: value for key, value in bundle.manifest.items() if key not in gone}
    if "wrapped" in kept["training"]:  # its author's figures are not known: those of the films it is calibrated on
        kept["training"] = {**kept["training"], "validation": found["validation"]}
    networks = {name: (bundle.path / name).read_bytes() for name in (ONNX, WEIGHTS) if name in bundle.manifest["files"]}
    write_files(folder, {**kept, "version": version, **_operating_point(found)}, networks)


def _operating_point(found: Mapping[str, Any]) -> dict[str, Any]:
    """Take what calibration found (train.calibration) for the manifest; older checkpoints have less."""
    keys = ("temperature", "abnormal", "regions", "profiles", "default_profile", "calibration")
    return {key: found[key] for key in keys if key in found}


def write_files(
    folder: Path, manifest: Mapping[str, Any], networks: Mapping[str, bytes], measured: Sequence[Measured] = ()
) -> None:
    """Write a bundle's files: its network in each form, its card, and the manifest that binds them."""
    contents = {**networks, CARD: model_card(manifest, measured).encode()}
    files = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    _write_manifest(folder, {**manifest, "files": files, "thresholds_for": files[ONNX]})


def add_golden(folder: Path, backend: str = REFERENCE) -> None:
    """Add the result of a backend on the self-test's film, which backends on devices are compared with."""
    with Localizer(folder, backend, all_classes=True) as reference:
        golden = selftest.result(reference)
        _write_manifest(folder, {**reference.bundle.manifest, "golden": golden})


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
