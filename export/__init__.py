"""From a checkpoint to what devices run: the bundle, its ONNX graph, the parity gate."""

from msloc_edge.export.bundle import export_bundle
from msloc_edge.export.card import Measured
from msloc_edge.export.parity import check_parity

__all__ = ["Measured", "check_parity", "export_bundle"]
