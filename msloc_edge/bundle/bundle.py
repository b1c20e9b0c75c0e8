"""The bundle: the folder that training hands to every device, and the only thing that a device needs.

    manifest.json        names, shapes, relevance weights, temperature, thresholds, provenance, sha256 of every file
    model.onnx           image [B, 1, H, W] float32 in [0, 1] -> logits [B, K], cams_1..cams_S [B, K, h_s, w_s]
    weights.safetensors  the PyTorch weights, for the torch backend and for training on
    model_card.md        data, metrics, limits
    manifest.sig         a signature of manifest.json (signature.py), optional

`Bundle.open` checks everything before anything is loaded: a file that changed by one byte, or that the manifest does
not list, is refused. `Bundle.read` gives engines the bytes that were checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.bundle.graph import check_graph
from msloc_edge.bundle.profile import (
    Abnormal,
    Profile,
    RegionRule,
    numbers,
    parse_abnormal,
    parse_profile,
    parse_regions,
)
from msloc_edge.bundle.signature import SIGNATURE, require_trusted
from msloc_edge.errors import BundleError
from msloc_edge.imaging.gate import InputGate, parse_gate
from msloc_edge.types import ModelId

SCHEMA = "msloc-edge/bundle/1"
MANIFEST, ONNX, WEIGHTS, CARD = "manifest.json", "model.onnx", "weights.safetensors", "model_card.md"
DEFAULT_MODEL = "cxr-edge"
SHIPPED = Path(__file__).with_name("models")
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A name that a model can be installed under: it has no path in it, and is not hidden."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage's class-map grid: `height` x `width` cells of `stride` input pixels."""

    height: int
    width: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """An opened, verified bundle. K classes, S stages.

    input_size   (height, width) of the model's input, pixels
    relevance    [K, S] float32, rows sum to one
    bias         [K] float32: logit = bias + mean of the map, where the pool is "avg"
    temperature  p = sigmoid(logit / temperature)
    abnormal     the probability that a film shows anything; None where the bundle cannot tell
    regions      which regions of a map become boxes
    manifest     the whole of manifest.json, for what is not named here
    sha256       of manifest.json, which holds the hash of every other file: one number names the whole bundle
    """

    path: Path
    name: str
    version: str
    classes: tuple[str, ...]
    input_size: tuple[int, int]
    stages: tuple[Stage, ...]
    relevance: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float
    abnormal: Abnormal | None
    input_gate: InputGate | None
    regions: RegionRule
    profiles: Mapping[str, Profile]
    default_profile: str
    manifest: Mapping[str, Any]
    sha256: str

    @classmethod
    def open(cls, model: str | Path = DEFAULT_MODEL) -> Bundle:
        """Open a bundle by its folder, or by the name of a shipped or an installed model.

        Raises BundleError: bundle_missing, bundle_file_missing, bundle_damaged, bundle_schema, bundle_hash; for an
        installed model also what require_trusted raises.
        """
        path = _find(model)
        manifest_file = path / MANIFEST
        try:
            raw = manifest_file.read_bytes()
        except OSError as error:
            raise BundleError("bundle_file_missing", f"{manifest_file}: cannot be read ({error.strerror})") from error
        if _in_store(path):
            require_trusted(path, raw)
        try:
            manifest = json.loads(raw)
            schema = manifest["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError("bundle_damaged", f"{manifest_file}: not a bundle's manifest; export it again") from error
        if schema != SCHEMA:
            raise BundleError(
                "bundle_schema",
                f"{path}: expected schema {SCHEMA}, got {schema!r}; update msloc-edge, or export again",
            )
        try:
            bundle = _parse(path, manifest, hashlib.sha256(raw).hexdigest())
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"the entry {error}" if isinstance(error, KeyError) else str(error)
            raise BundleError("bundle_damaged", f"{manifest_file}: unusable: {what}; export it again") from error
        bundle._verify_files()
        return bundle

    @property
    def id(self) -> ModelId:
        """Name, version and hash, as results carry them."""
        return ModelId(self.name, self.version, self.sha256)

    @property
    def onnx(self) -> Path:
        return self.path / ONNX

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    def profile(self, name: str | None = None) -> Profile:
        """Give a threshold profile by name; None gives the default. Raises BundleError (profile_unknown)."""
        name = name or self.default_profile
        if name not in self.profiles:
            known = ", ".join(self.profiles)
            raise BundleError("profile_unknown", f"{self.name}: expected a profile of {known}, got {name!r}")
        return self.profiles[name]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute calibrated probabilities of logits [..., K]: sigmoid(z / T)."""
        return 1 / (1 + np.exp(-logits.astype(np.float64) / self.temperature))

    def abnormal_probability(self, logits: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Compute p_abnormal of films with logits [..., K]: [...]; None where the bundle has no model of it."""
        return self.abnormal.probability(logits, self.temperature) if self.abnormal else None

    def read(self, name: str) -> bytes:
        """Read a file of the bundle: the very bytes that the manifest's hash names.

        Engines take these, never the path: another file may stand there by now. Raises BundleError:
        bundle_file_missing, bundle_hash.
        """
        file, expected = self.path / name, self.manifest["files"][name]
        if not file.is_file():
            raise BundleError("bundle_file_missing", f"{file}: missing; copy the whole bundle folder again")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise BundleError("bundle_file_missing", f"{file}: cannot be read ({error.strerror})") from error
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise BundleError(
                "bundle_hash",
                f"{file}: expected sha256 {expected[:12]}..., got {found[:12]}...; the file is not the one that "
                "was exported: copy the bundle again",
            )
        return data

    def _verify_files(self) -> None:
        files = self.manifest["files"]
        for entry in sorted(self.path.iterdir()):
            if entry.name not in (MANIFEST, SIGNATURE, *files) and not entry.name.startswith("."):
                raise BundleError(
                    "bundle_hash", f"{entry}: is not listed in {MANIFEST}, so that no hash covers it; remove it"
                )
        for name in files:
            data = self.read(name)
            if name == ONNX:
                self._check_graph(data)
        if self.manifest["thresholds_for"] != files[ONNX]:
            raise BundleError(
                "bundle_hash", f"{self.path}: its thresholds were fitted for another model; export it again"
            )

    def _check_graph(self, model: bytes) -> None:
        try:
            check_graph(model)
        except ValueError as error:
            raise BundleError(
                "bundle_damaged",
                f"{self.onnx}: expected one flat graph of standard operators with its weights inside, got {error}; "
                "export it again",
            ) from error


def sha256_file(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def shipped_models() -> tuple[str, ...]:
    """Names of the bundles inside the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}")))


def store_folder() -> Path:
    """Where the user's own models are: MSLOC_MODELS, or the user's data folder."""
    if folder := os.environ.get("MSLOC_MODELS"):
        return Path(folder)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # also where nobody has a home
    return Path(data) / "msloc-edge" / "models"


def installed_models() -> tuple[str, ...]:
    """Names of the bundles in the store, whole or damaged. What `store.py` is still working on has no such name."""
    try:
        names = sorted(path.name for path in store_folder().iterdir() if path.is_dir())
    except OSError:
        return ()
    return tuple(filter(MODEL_NAME.fullmatch, names))


def _in_store(path: Path) -> bool:
    """Whether a folder is an installed model, whatever way leads to it; a link in the store is one."""
    return Path(os.path.abspath(path)).parent.resolve() == store_folder().resolve()


def _find(model: str | Path) -> Path:
    path = Path(model)
    if path.is_dir():
        return path
    shipped, installed = shipped_models(), installed_models()
    if isinstance(model, str) and model in shipped:
        return SHIPPED / model
    if isinstance(model, str) and model in installed:
        return store_folder() / model
    raise BundleError(
        "bundle_missing",
        f"{model}: expected a bundle folder, one of the shipped models ({', '.join(shipped) or 'none'}) "
        f"or one of the installed ones ({', '.join(installed) or 'none'})",
    )


def _parse(path: Path, manifest: Mapping[str, Any], sha256: str) -> Bundle:
    classes = tuple(str(name) for name in manifest["classes"])
    stages = tuple(Stage(int(s["height"]), int(s["width"]), int(s["stride"])) for s in manifest["stages"])
    shape = (len(classes), len(stages))
    profiles = {name: parse_profile(entry, shape[0]) for name, entry in manifest["profiles"].items()}
    abnormal = parse_abnormal(manifest.get("abnormal"), shape[0])
    if abnormal is None and any(profile.film is not None for profile in profiles.values()):
        raise ValueError("expected the numbers of 'abnormal' beside a profile's film threshold, got none")
    temperature = float(manifest["temperature"])
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"expected distinct class names, at least one, got {classes}")
    input_size = int(manifest["input"]["height"]), int(manifest["input"]["width"])
    if min(input_size) < 1:
        raise ValueError(f"expected an input of at least 1 pixel a side, got {input_size}")
    if manifest["default_profile"] not in profiles:
        raise ValueError(f"the default profile {manifest['default_profile']!r} is not among its profiles")
    files = manifest["files"]
    if ONNX not in files or SIGNATURE in files or any(Path(name).name != name for name in files):
        raise ValueError(f"expected {ONNX} among its files, no {SIGNATURE}, and plain file names")
    if not all(isinstance(digest, str) for digest in (manifest["thresholds_for"], *files.values())):
        raise ValueError("expected hashes as text")
    relevance = np.array([numbers(row, shape[1]) for row in manifest["relevance"]], np.float32)
    if relevance.shape != shape or relevance.min() < 0 or not np.allclose(relevance.sum(axis=1), 1, atol=1e-4):
        raise ValueError(f"expected relevance weights of shape {shape}, at least 0, whose rows sum to one")
    return Bundle(
        path=path,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        classes=classes,
        input_size=input_size,
        stages=stages,
        relevance=relevance,
        bias=np.array(numbers(manifest["bias"], shape[0]), np.float32),
        temperature=temperature,
        abnormal=abnormal,
        input_gate=parse_gate(manifest["input_gate"]) if manifest.get("input_gate") else None,
        regions=parse_regions(manifest.get("regions")),
        profiles=profiles,
        default_profile=str(manifest["default_profile"]),
        manifest=manifest,
        sha256=sha256,
    )
