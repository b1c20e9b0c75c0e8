"""Weakly supervised chest X-ray localization, on the device that takes the film.

>>> from msloc_edge import Localizer
>>> with Localizer() as localizer:
...     result = localizer.localize("film.dcm")

Importing this package loads no engine: names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msloc_edge._lazy import names_of

if TYPE_CHECKING:
    from msloc_edge.bundle import Bundle
    from msloc_edge.errors import MslocError
    from msloc_edge.pipeline import Localizer
    from msloc_edge.result import Result, to_coco
    from msloc_edge.types import Box, Finding, Frame, Peak

__version__ = "0.2.0"
__all__ = ["Box", "Bundle", "Finding", "Frame", "Localizer", "MslocError", "Peak", "Result", "to_coco"]

__getattr__ = names_of(
    __name__,
    {
        "Bundle": "bundle",
        "Localizer": "pipeline",
        "MslocError": "errors",
        **dict.fromkeys(("Result", "to_coco"), "result"),
        **dict.fromkeys(("Box", "Finding", "Frame", "Peak"), "types"),
    },
)
