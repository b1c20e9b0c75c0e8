"""Values that travel through the pipeline: a film in, findings out; `result.Result` holds them together.

Coordinates are pixels of the stored image: x to the right, y down, origin at the top-left corner of the top-left
pixel, so that pixel (i, j) covers [j, j + 1) x [i, i + 1) and its centre is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from msloc_edge.cuda.pixels import DevicePixels

TORCH_PRECISIONS = ("fp32", "bf16", "fp16")
"""Arithmetic in which PyTorch trains and runs a network."""

PLAN_PRECISIONS = ("fp32", "fp16", "int8")
"""Arithmetic of a network that is exported."""

PRECISIONS = tuple(dict.fromkeys(TORCH_PRECISIONS + PLAN_PRECISIONS))
"""All of them; each backend has some."""

MIN_AREA = 16
"""Smallest area of a region that becomes a box, where a bundle does not say, in pixels of the model's input: one cell
of the finest grid (4 x 4)."""

SHOWN = 3
"""Findings that a picture shows where nobody asks for more: a film under ten outlines can no longer be read."""


class SourceUids(NamedTuple):
    """The names that DICOM gives a film: of the image itself (SOP instance), its series and its study."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One film: stored pixels, and the one table that turns them into what a radiologist sees.

    Stored pixels have at most 16 bits, so modality LUT, VOI LUT or window, inversion and padding together are one
    look-up table; every device (numpy, C++, CUDA) windows a film by the same `lut[pixels]`.

    pixels    [H, W] uint8 or uint16: the stored bit patterns (signed values: two's complement, high bits masked off);
              on a device they are DevicePixels, which numpy copies to the host
    lut       [2**bits] float32 in [0, 1]: displayed brightness of each bit pattern, 1 = white = dense
    name      where it came from, as the user named it
    sha256    hex digest of the file's bytes
    warnings  reason codes of what was unusual but not fatal (docs/errors.md)
    uids      a DICOM film's; None where it has none
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16] | DevicePixels
    lut: NDArray[np.float32]
    name: str = "array"
    sha256: str = ""
    warnings: tuple[str, ...] = ()
    uids: SourceUids | None = None

    def display(self) -> NDArray[np.float32]:
        """The windowed film, [H, W] float32 in [0, 1]."""
        from msloc_edge._lookup import look_up  # with it comes cv2, which these types do without

        return look_up(self.lut, np.asarray(self.pixels))


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box (x, y, width, height) in pixels of the stored image, with a score in (0, 1], of a finding."""

    x: float
    y: float
    w: float
    h: float
    score: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest point of a localization map: position in pixels of the stored image, value in logit units."""

    x: float
    y: float
    value: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One class of one film. `peak` and `boxes` are filled for the classes that were localized.

    positive  the film passes the profile's gate, the score reaches the threshold, and the map has a region
    """

    label: str
    score: float
    threshold: float
    positive: bool
    relevance: tuple[float, ...]
    peak: Peak | None = None
    boxes: tuple[Box, ...] = ()

    @property
    def excess(self) -> float:
        """How far the score lies above its threshold, in log-odds: what findings of different classes compare by.

        >>> round(Finding("Mass", 0.5, 0.2, True, ()).excess, 4)  # log 1 - log 0.25
        1.3863
        """
        return _log_odds(self.score) - _log_odds(self.threshold)

    @property
    def lacks_region(self) -> bool:
        """Whether a region is what it lacks to be positive: the score reaches the threshold, the map has no region."""
        return self.peak is not None and not self.boxes and self.score >= self.threshold


def _log_odds(probability: float) -> float:
    held = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(held / (1 - held))


@dataclass(frozen=True, slots=True)
class FilmGate:
    """The profile's judgement of a film as a whole, before any finding.

    score      p_abnormal, the probability that the film shows anything
    threshold  of the profile; None where its gate is open
    """

    score: float
    threshold: float | None

    @property
    def positive(self) -> bool:
        """Whether the film passes the gate, so that it may have positive findings."""
        return self.threshold is None or self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A profile that decided a result: its name, and how often it flags a normal film.

    normals_flagged  share of normal validation films with a positive finding, by cross-validation; None where nobody
                     measured it
    rates            all that was measured, as in the manifest; empty where nobody did
    """

    profile: str
    normals_flagged: float | None = None
    rates: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ModelId:
    """Identity of a model: `sha256` is that of the bundle's manifest, which holds the hash of every file."""

    name: str
    version: str
    sha256: str
