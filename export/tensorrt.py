"""A bundle as an engine of TensorRT or TensorRT-RTX: which graph, built how, kept where.

An engine of the network alone leaves the maps to whoever wants some of them; one with heatmaps writes all of them for
every film. There are three ways of M_k into such a one:

aot      one CamFuse node, whose kernel is in the plan as PTX: TensorRT 10.9 and later, nothing needed to run it
library  one CamFuse node, which a C++ library brings: TensorRT 10.3 to 10.8, on JetPack 6
plain    Mul, Resize and Sum: standard operators, for any version
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from rich.progress import Progress

from msloc_edge.backends.tensorrt.builder import Settings, build
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Key, graph_of
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, TensorRTLibrary, numbers, release
from msloc_edge.backends.tensorrt.plan import SIDECAR
from msloc_edge.backends.tensorrt.progress import LOG, Bars
from msloc_edge.bundle import Bundle
from msloc_edge.cuda.providers import open_provider
from msloc_edge.errors import BackendError, ExportError, OutputError
from msloc_edge.export.graphs import check_graph, network_outputs, outputs, with_camfuse, with_heatmap

LIBRARIES = {"tensorrt": (TENSORRT, "model.plan"), "tensorrt-rtx": (TENSORRT_RTX, "model.engine")}
"""Target -> the library, and the file of its plan."""

LIBRARY = "MSLOC_CAMFUSE_LIBRARY"
"""Variable that names libmsloc_camfuse.so where no option does."""

AOT_SINCE = (10, 9)

DLA_UNTIL, DLA_SINCE = (10, 8), (11, 4, 1)
"""TensorRT's first version without Orin's accelerator, and the first that has it again (NVIDIA's release notes)."""

STAGES = 4
"""Stages that the plugins fuse, as the backbones have; other networks get the standard operators."""


@dataclass(frozen=True, slots=True)
class EngineChoices:
    """Options of an engine beside its precision.

    graph    of GRAPHS; the others are for "heatmap" alone
    plugin   "auto", or the route that is wanted
    library  file of the C++ plugin
    engine   of a server's repository: "onnxruntime", or "tensorrt", whose plan is built here
    """

    settings: Settings = field(default_factory=Settings)
    graph: str = "network"
    plugin: str = "auto"
    library: Path | None = None
    engine: str = "onnxruntime"

    def plan_target(self, target: str) -> str | None:
        """Name the target of LIBRARIES whose plan a target has; None: it has none."""
        if target == "triton-server" and self.engine == "tensorrt":
            return "tensorrt"
        return target if target in LIBRARIES else None

    def route(self, tensorrt: TensorRTLibrary, version: str, bundle: Bundle) -> Route | None:
        """Choose the way of M_k; None: the graph has no heatmap. Raises as the function `route` does."""
        if self.graph == "network":
            return None
        return route(tensorrt, version, len(bundle.stages), self.plugin, self.library)


@dataclass(frozen=True, slots=True)
class Route:
    """aot, library or plain, and why."""

    name: str
    reason: str
    library: Path | None = None


def route(
    tensorrt: TensorRTLibrary, version: str, stages: int, wanted: str = "auto", library: Path | None = None
) -> Route:
    """Choose the way of M_k into the engine. Raises ExportError (option_invalid) where the wanted one is not open."""
    library = library or (Path(os.environ[LIBRARY]) if os.environ.get(LIBRARY) else None)
    closed: dict[str, str | None]
    if tensorrt is TENSORRT_RTX:
        closed = dict.fromkeys(("aot", "library"), "TensorRT-RTX has no plugins")
    elif stages != STAGES:
        closed = dict.fromkeys(("aot", "library"), f"the plugin fuses {STAGES} stages, this model has {stages}")
    else:
        closed = {"aot": _no_aot(version), "library": _no_library(library)}
    if closed.get(wanted):
        raise ExportError("option_invalid", f"--plugin {wanted} is not possible: {closed[wanted]}; use --plugin plain")
    if wanted == "plain":
        return Route("plain", "as asked")
    for name, obstacle in closed.items():
        if wanted == name or (wanted == "auto" and not obstacle):
            reason = "as asked" if wanted == name else f"{tensorrt.title} {version} can"
            return Route(name, reason, library if name == "library" else None)
    return Route("plain", "; ".join(dict.fromkeys(filter(None, closed.values()))))


def require_dla(settings: Settings, version: str, precision: str, graph: str) -> None:
    """Hold an engine for the accelerator to what it can: nothing in fp32, one batch size, no heatmap.

    Raises ExportError (option_invalid).
    """
    if settings.dla is None:
        return
    batch = settings.batch
    again = numbers(version) >= DLA_SINCE
    gone = numbers(version) >= DLA_UNTIL and not again
    obstacles = {
        f"TensorRT {version} has none: it was in 10.3 to 10.7, and is again from 11.4.1": gone,
        "it computes in fp16 and int8: add --precision fp16": precision == "fp32",
        f"TensorRT {version} does not take quantized graphs there: use --precision fp16": (
            precision == "int8" and not again
        ),
        f"it takes one batch size: --batch {batch.most}:{batch.most}:{batch.most}": batch.least != batch.most,
        "heatmaps are for the GPU: leave out --graph heatmap": graph != "network",
    }
    for words, found in obstacles.items():
        if found:
            raise ExportError("option_invalid", f"--dla {settings.dla} is not possible: {words}")


def engine_files(
    bundle: Bundle, target: str, network: onnx.ModelProto, precision: str, choices: EngineChoices, progress: Progress
) -> tuple[Mapping[str, bytes], Route | None]:
    """Build the plan; give it, its sidecar, the log and the graph that it was built of, and the route of a heatmap. The
    cache keeps the plan, too.

    Raises DependencyError: backend_missing; BackendError: backend_device, build_failed; ExportError: option_invalid,
    parity.
    """
    tensorrt, file = LIBRARIES[target]
    version, cache, settings = tensorrt.version(), Cache(), choices.settings
    sm = 0 if tensorrt.portable else open_provider(0).sm
    way = choices.route(tensorrt, version, bundle)
    model = _model(network, bundle, way)
    timing, watch, plugins = cache.timing(tensorrt, version, sm), Bars(progress), way.library if way else None
    try:
        built = build(tensorrt, model, bundle.input_size, settings, watch, timing, plugins=plugins)
    except BackendError as error:
        if way is None or way.name == "plain" or error.reason != "build_failed":
            raise
        raise BackendError("build_failed", f"{error.message}; without the plugin: --plugin plain") from error
    facts: dict[str, Any] = {"version_compatible": settings.version_compatible}
    facts |= {"hardware_compatible": settings.hardware_compatible, "workspace_mib": settings.workspace}
    facts |= {} if settings.dla is None else {"dla": settings.dla}
    if way:
        facts["plugin"] = way.name
    if plugins:
        facts["plugin_library"] = str(plugins.absolute())
    graph = choices.graph if settings.dla is None else graph_of(settings.dla)
    plan = built.plan(Key(bundle.sha256, tensorrt.name, version, sm, precision, graph, settings.batch), facts)
    try:
        cache.put(plan)
    except OutputError as error:  # the export itself is whole
        LOG.warning("%s", error)
    files = {file: plan.data, file + SIDECAR: plan.sidecar(), "build.log": built.log.encode(), "model.onnx": model}
    return files, way


def _model(network: onnx.ModelProto, bundle: Bundle, way: Route | None) -> bytes:
    """The graph that is built: the network, and M_k by the standard operators or by the node of a plugin."""
    if way is None:
        return check_graph(network, network_outputs(len(bundle.stages)))
    if way.name == "plain":
        return check_graph(with_heatmap(network, bundle), outputs(bundle))
    if way.name == "aot":
        from msloc_edge.export.camfuse_plugin import register

        register()
    return with_camfuse(network, bundle).SerializeToString()


def _no_aot(version: str) -> str | None:
    """Say why the kernel cannot be put into the plan; None: it can."""
    if release(version) < AOT_SINCE:
        return f"tensorrt.plugin came with {'.'.join(map(str, AOT_SINCE))}, this is {version}"
    for module in ("tensorrt.plugin", "triton", "msloc_edge.export.camfuse_plugin"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            return f"{module} cannot be imported ({error})"
    return None


def _no_library(library: Path | None) -> str | None:
    if library is None:
        return f"neither --plugin-library nor {LIBRARY} names libmsloc_camfuse.so"
    return None if library.is_file() else f"{library} is no file"
