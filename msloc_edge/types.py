"""The values that travel through the pipeline: a film in, findings out.

Coordinates are pixels of the stored image: x to the right, y down, origin at the top-left corner of the top-left
pixel, so that pixel (i, j) covers [j, j + 1) x [i, i + 1) and its centre is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from msloc_edge.geometry import Geometry

RESULT_SCHEMA = "msloc-edge/result/1"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One film: stored pixels, and the one table that turns them into what a radiologist sees.

    Stored pixels have at most 16 bits, so modality LUT, VOI LUT or window, inversion and padding together are one
    look-up table; every device (numpy, C++, CUDA) windows a film by the same `lut[pixels]`.

    pixels    [H, W] uint8 or uint16: the stored bit patterns (signed values: two's complement, high bits masked off)
    lut       [2**bits] float32 in [0, 1]: displayed brightness of each bit pattern, 1 = white = dense
    name      where it came from, as the user named it
    sha256    hex digest of the file's bytes
    warnings  reason codes of what was unusual but not fatal (docs/errors.md)
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    lut: NDArray[np.float32]
    name: str = "array"
    sha256: str = ""
    warnings: tuple[str, ...] = ()

    def display(self) -> NDArray[np.float32]:
        """The windowed film, [H, W] float32 in [0, 1]."""
        return np.take(self.lut, self.pixels)


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box (x, y, width, height) in pixels of the stored image, with a score in (0, 1]."""

    x: float
    y: float
    w: float
    h: float
    score: float


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest point of a localization map: position in pixels of the stored image, value in logit units."""

    x: float
    y: float
    value: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One class of one film. `peak` and `boxes` are filled for the classes that were localized."""

    label: str
    score: float
    threshold: float
    positive: bool
    relevance: tuple[float, ...]
    peak: Peak | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which model gave a result: `sha256` is that of the bundle's manifest, which holds the hash of every file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """All that is known of one film after localization.

    maps        label -> [h, w] float32 localization map M_k in logit units, over the film's area of the model input
    stage_maps  label -> one [h_s, w_s] float32 unweighted class map per stage, over the whole model input
    """

    input: str
    sha256: str
    model: ModelId
    backend: str
    geometry: Geometry
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...] = ()
    timing_ms: dict[str, float] = field(default_factory=dict)
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    stage_maps: dict[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)

    @property
    def positive(self) -> tuple[Finding, ...]:
        """The findings whose score reached the profile's threshold, strongest first."""
        return tuple(sorted((f for f in self.findings if f.positive), key=lambda f: -f.score))

    def to_dict(self) -> dict[str, Any]:
        """The result line, schema "msloc-edge/result/1": plain JSON types, no arrays."""
        return {
            "schema": RESULT_SCHEMA,
            "input": self.input,
            "sha256": self.sha256,
            "model": {"name": self.model.name, "version": self.model.version, "sha256": self.model.sha256},
            "backend": self.backend,
            "geometry": self.geometry.to_dict(),
            "findings": [_finding_dict(f) for f in self.findings],
            "warnings": list(self.warnings),
            "timing_ms": {stage: round(ms, 3) for stage, ms in self.timing_ms.items()},
        }


def _finding_dict(finding: Finding) -> dict[str, Any]:
    peak = finding.peak
    return {
        "label": finding.label,
        "score": round(finding.score, 6),
        "threshold": round(finding.threshold, 6),
        "positive": finding.positive,
        "peak": None if peak is None else _rounded(x=peak.x, y=peak.y, value=peak.value),
        "boxes": [_rounded(x=b.x, y=b.y, w=b.w, h=b.h, score=b.score) for b in finding.boxes],
        "relevance": [round(w, 6) for w in finding.relevance],
    }


def _rounded(**values: float) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}
