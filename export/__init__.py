"""Export: a checkpoint becomes a bundle, and a bundle what an engine or a server runs.

Names are imported when they are first used: making a plan of a bundle needs no torch, and `--help` nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msloc_edge._lazy import names_of

if TYPE_CHECKING:
    from msloc_edge.export.bundle import export_bundle as export_bundle
    from msloc_edge.export.bundle import recalibrate_bundle as recalibrate_bundle
    from msloc_edge.export.card import Measured as Measured
    from msloc_edge.export.parity import check_parity as check_parity

__all__ = [
    *("ENGINES", "GRAPHS", "PLUGINS", "TARGETS"),
    *("Measured", "check_parity", "export_bundle", "recalibrate_bundle"),
]

TARGETS = ("onnx", "tensorrt", "tensorrt-rtx", "triton-server")
"""Devices and servers that a bundle can be made for: `targets.write_target`."""

ENGINES = ("onnxruntime", "tensorrt")
"""Runtimes of a server's network: `triton_server.PLATFORMS`."""

GRAPHS = ("network", "heatmap")
"""Ends of a TensorRT plan: the bundle's own, in the small class maps, or M_k of every class."""

PLUGINS = ("auto", "aot", "library", "plain")
"""Ways of M_k into a TensorRT plan: `tensorrt.route`."""

__getattr__ = names_of(
    __name__,
    {"Measured": "card", "check_parity": "parity", "export_bundle": "bundle", "recalibrate_bundle": "bundle"},
)
