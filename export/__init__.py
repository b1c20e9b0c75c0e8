"""From a checkpoint to what devices run: the bundle, its ONNX graph, the parity gate; and from a bundle to engines.

What is named here is imported when it is first used: making an engine of a bundle needs no torch.
"""

from typing import TYPE_CHECKING

from msloc_edge._lazy import names_of

if TYPE_CHECKING:
    from msloc_edge.export.bundle import export_bundle as export_bundle
    from msloc_edge.export.card import Measured as Measured
    from msloc_edge.export.parity import check_parity as check_parity

__all__ = ["Measured", "check_parity", "export_bundle"]

__getattr__ = names_of(__name__, {"Measured": "card", "check_parity": "parity", "export_bundle": "bundle"})
