"""What a bundle becomes for a device or a server: a folder that is there whole or not at all.

onnx           model.onnx, ending in the heatmap; model.camfuse.onnx, ending in the CamFuse node
tensorrt-rtx   model.engine, its build.log, and the model.onnx that it was built of
triton-server  a model repository, and a client
export.json    in each: the bundle, the precision, the gate's figures, the tools, sha256 of every file
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from rich.progress import Progress

import msloc_edge
from msloc_edge.bundle import MODEL_NAME, Bundle
from msloc_edge.errors import BackendError, BundleError, ExportError
from msloc_edge.export.choices import Batch
from msloc_edge.export.contract import check
from msloc_edge.export.gate import LIMITS
from msloc_edge.export.graphs import outputs, with_camfuse, with_heatmap
from msloc_edge.export.mixed import Converted, Films

SCHEMA, REPORT = "msloc-edge/export/1", "export.json"
TOOLS = ("onnx", "onnxruntime", "tensorrt-rtx")

JETPACK_6 = "sudo apt install nvidia-jetpack python3-libnvinfer (TensorRT 10.3, Python 3.10)"
JETPACK_7 = "sudo apt install nvidia-jetpack python3-libnvinfer (TensorRT 10.16, Python 3.12)"
X86 = "pip install tensorrt-cu13, or tensorrt-cu12 for a driver of CUDA 12"


def write_target(
    bundle: Bundle, out: Path, target: str, done: Converted, films: Films | None, batch: Batch, progress: Progress
) -> dict[str, Any]:
    """Write a converted bundle to the folder `out`, which must not exist or be an earlier export. Returns the report.

    Raises ExportError (out_occupied, onnx_invalid, engine), BackendError (backend_missing).
    """
    if not _replaceable(out):
        raise ExportError("out_occupied", f"{out}: expected a new folder, or an earlier export, and found other files")
    files = _contents(bundle, target, done, batch, progress)
    report = _report(bundle, target, done, films, batch, files)
    scratch = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        for name, content in {**files, REPORT: (json.dumps(report, indent=1) + "\n").encode()}.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(content)
        if out.exists():
            shutil.rmtree(out)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return report


def require(target: str) -> None:
    """Raise BackendError (backend_missing) when what a target needs is not here, before any work is done."""
    if target == "tensorrt":
        raise BackendError("backend_missing", _tensorrt())
    if target == "tensorrt-rtx":
        try:
            import msloc_edge.export.rtx  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: the package without its libraries
            raise BackendError(
                "backend_missing", f"tensorrt-rtx: {error}; install it with: pip install 'msloc-edge[rtx]'"
            ) from error


def _tensorrt() -> str:
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        return (
            f"tensorrt: its libraries are not on this machine ({error}); JetPack 6: {JETPACK_6}; JetPack 7: "
            f"{JETPACK_7}; x86: {X86}"
        )
    return (
        f"tensorrt: {tensorrt.__version__} is here, but this version of msloc-edge does not build its engines; use "
        "--target onnx, and trtexec --onnx=model.onnx --stronglyTyped"
    )


def _contents(bundle: Bundle, target: str, done: Converted, batch: Batch, progress: Progress) -> Mapping[str, bytes]:
    if target == "triton-server":
        from msloc_edge.export.triton_server import repository

        if not MODEL_NAME.fullmatch(bundle.name):
            raise BundleError(
                "model_name", f"{bundle.name!r}: expected letters, digits, dots, dashes and underscores for Triton"
            )
        return repository(bundle, done.network, batch)
    model = check(with_heatmap(done.network, bundle), outputs(bundle))
    if target == "onnx":
        camfuse = with_camfuse(done.network, bundle)
        onnx.checker.check_model(camfuse, full_check=True)
        return {"model.onnx": model, "model.camfuse.onnx": camfuse.SerializeToString()}
    from msloc_edge.export.rtx import build

    engine, log = build(model, batch, bundle.input_size, progress)
    return {"model.engine": engine, "build.log": log.encode(), "model.onnx": model}


def _report(
    bundle: Bundle, target: str, done: Converted, films: Films | None, batch: Batch, files: Mapping[str, bytes]
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "model": asdict(bundle.id),
        "target": target,
        "precision": done.precision,
        "batch": asdict(batch) if target != "onnx" else None,
        "tools": {"msloc-edge": msloc_edge.__version__, **_versions(TOOLS)},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    if films:
        report |= {
            "kept_fp32": done.kept,
            "calibration": films.source if done.precision == "int8" else None,
            "gate": {
                "films": films.gate.source,
                "limits": LIMITS,
                "classes": [figures.to_dict() for figures in done.figures],
                "trials": done.trials,
            },
        }
    return report


def _versions(packages: Sequence[str]) -> dict[str, str]:
    installed = {found.name for found in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in packages if name in installed}


def _replaceable(out: Path) -> bool:
    """Nothing is there, or an empty folder, or an earlier export with no file but its own."""
    if not out.exists():
        return True
    if not out.is_dir():
        return False
    found = {str(file.relative_to(out)) for file in out.rglob("*") if not file.is_dir()}
    try:
        report = json.loads((out / REPORT).read_text())
        own = {REPORT, *report["files"]} if report["schema"] == SCHEMA else set()
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    return found <= own
