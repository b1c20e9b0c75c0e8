"""Values that travel through the pipeline: a film in, findings out; `result.Result` holds them together.

Coordinates are pixels of the stored image: x to the right, y down, origin at the top-left corner of the top-left
pixel, so that pixel (i, j) covers [j, j + 1) x [i, i + 1) and its centre is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TORCH_PRECISIONS = ("fp32", "bf16", "fp16")
"""Arithmetic in which PyTorch trains and runs a network."""

PLAN_PRECISIONS = ("fp32", "fp16", "int8")
"""Arithmetic of a network that is exported."""

PRECISIONS = tuple(dict.fromkeys(TORCH_PRECISIONS + PLAN_PRECISIONS))
"""All of them; each backend has some."""


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
        from msloc_edge._lookup import look_up  # with it comes cv2, which these types do without

        return look_up(self.lut, self.pixels)


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
    """Identity of a model: `sha256` is that of the bundle's manifest, which holds the hash of every file."""

    name: str
    version: str
    sha256: str
