"""A bundle in the form that a device or a server runs: a folder that is there whole or not at all.

onnx           model.onnx, ending in the heatmap; model.camfuse.onnx, ending in the CamFuse node
tensorrt       model.plan, model.plan.json, build.log, and the model.onnx that it was built of
tensorrt-rtx   the same, as model.engine
triton-server  a model repository, and a client
export.json    in each: the bundle, the precision, the gate's figures, the tools, sha256 of every file
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from rich.progress import Progress

import msloc_edge
from msloc_edge._files import atomic_folder, require_writable
from msloc_edge.backends.tensorrt.plan import SIDECAR
from msloc_edge.bundle import MODEL_NAME, Bundle
from msloc_edge.cuda.providers import open_provider
from msloc_edge.errors import BundleError, ExportError, OutputError
from msloc_edge.export.graphs import check_graph, outputs, with_camfuse, with_heatmap
from msloc_edge.export.precision.convert import Converted, Films
from msloc_edge.export.precision.gate import LIMITS
from msloc_edge.export.tensorrt import LIBRARIES, EngineChoices, Route, engine_files, require_dla

SCHEMA, REPORT = "msloc-edge/export/1", "export.json"
TOOLS = ("onnx", "onnxruntime")


def write_target(
    bundle: Bundle,
    out: Path,
    target: str,
    done: Converted,
    films: Films | None,
    choices: EngineChoices,
    progress: Progress,
) -> dict[str, Any]:
    """Write a converted bundle to the folder `out`, which must not exist or be an earlier export. Returns the report.

    Raises ExportError: parity, option_invalid; OutputError: out_occupied; DependencyError: backend_missing;
    BackendError: backend_device, build_failed.
    """
    require(bundle, out, target, choices, done.precision)
    files, way = _contents(bundle, target, done, choices, progress)
    report = _report(bundle, target, done, films, choices, files, way)
    with atomic_folder(out) as folder:
        for name, content in {**files, REPORT: (json.dumps(report, indent=1) + "\n").encode()}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return report


def require(bundle: Bundle, out: Path, target: str, choices: EngineChoices, precision: str) -> None:
    """Raise what `write_target` would for want of something, before a conversion that takes minutes."""
    if not _replaceable(out):
        raise OutputError(
            "out_occupied", f"{out}: expected a new folder, or an earlier export, and found other files; name another"
        )
    require_writable(out)
    if plan_target := choices.plan_target(target):
        tensorrt, _ = LIBRARIES[plan_target]
        version = tensorrt.version()
        if target not in LIBRARIES and choices.settings.batch.least != 1:
            raise ExportError(
                "option_invalid",
                f"--batch: expected a smallest batch of 1 for a server, got {choices.settings.batch.least}",
            )
        require_dla(choices.settings, version, precision, choices.graph)
        if not tensorrt.portable:
            open_provider(0)
        choices.route(tensorrt, version, bundle)


def _contents(
    bundle: Bundle, target: str, done: Converted, choices: EngineChoices, progress: Progress
) -> tuple[Mapping[str, bytes], Route | None]:
    if target in LIBRARIES:
        return engine_files(bundle, target, done.network, done.precision, choices, progress)
    if target == "triton-server":
        if not MODEL_NAME.fullmatch(bundle.name):
            raise BundleError(
                "option_invalid", f"{bundle.name!r}: expected letters, digits, dots, dashes and underscores for Triton"
            )
        return _repository(bundle, done, choices, progress), None
    model = check_graph(with_heatmap(done.network, bundle), outputs(bundle))
    camfuse = with_camfuse(done.network, bundle)
    onnx.checker.check_model(camfuse, full_check=True)
    return {"model.onnx": model, "model.camfuse.onnx": camfuse.SerializeToString()}, None


def _repository(bundle: Bundle, done: Converted, choices: EngineChoices, progress: Progress) -> Mapping[str, bytes]:
    """Files for a server; with a plan also what is to be known of it, beside the model's folder."""
    from msloc_edge.export.triton_server import repository

    batch, target = choices.settings.batch, choices.plan_target("triton-server")
    if target is None:
        return repository(bundle, done.network.SerializeToString(), batch)
    files, _ = engine_files(bundle, target, done.network, done.precision, choices, progress)
    plan = LIBRARIES[target][1]
    beside = {name: files[name] for name in (plan + SIDECAR, "build.log")}
    return repository(bundle, files[plan], batch, choices.engine) | beside


def _report(
    bundle: Bundle,
    target: str,
    done: Converted,
    films: Films | None,
    choices: EngineChoices,
    files: Mapping[str, bytes],
    way: Route | None,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "model": asdict(bundle.id),
        "target": target,
        "precision": done.precision,
        "batch": asdict(choices.settings.batch) if target != "onnx" else None,
        "tools": {"msloc-edge": msloc_edge.__version__, **_versions(TOOLS)},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    if plan_target := choices.plan_target(target):
        tensorrt, _ = LIBRARIES[plan_target]
        report["tools"][plan_target] = tensorrt.version()  # not of its package: on a Jetson it has none
        report["graph"] = choices.graph
    if way:
        report["plugin"] = {"route": way.name, "reason": way.reason}
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
    """Tell whether nothing is there, or an empty folder, or an earlier export with no file but its own."""
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
