"""COCO's segmentations as masks: https://cocodataset.org/#format-data. What cannot be a part of a picture is refused
before it is drawn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import DependencyError

SLACK = 1.0
"""Pixels by which a box or a polygon may pass the edge of the picture, from rounding."""

_MAX_SHIFT = 60  # bits of a run length, beyond those of any picture


def decode_mask(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a segmentation of a picture of (height, width): polygons, or run lengths as a list or compressed.

    Returns [height, width]. Raises ValueError for one of another form or size, DependencyError (package_missing).
    """
    if isinstance(segmentation, list) and segmentation:
        return _draw([_polygon(points, size) for points in segmentation], size)
    if not isinstance(segmentation, dict):
        raise ValueError("neither polygons nor a run-length code")
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"a code of size {segmentation['size']} in an image of {list(size)}")
    counts = segmentation["counts"]
    runs, (height, width) = counts if isinstance(counts, list) else _runs(str(counts)), size
    if not all(isinstance(run, int) for run in runs) or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"counts add up to {sum(runs)}, not to {height} x {width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T  # column by column, zeros first


def _polygon(points: Any, size: tuple[int, int]) -> list[float]:
    """Numbers x, y, x, y, ... of a polygon within the picture: pycocotools takes memory for all that lies between."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon of fewer than three points, or not of x, y, x, y, ...")
    numbers = [float(value) for value in points]
    edges = [side + SLACK for side in reversed(size)]
    for at, value in enumerate(numbers):
        if not -SLACK <= value <= edges[at % 2]:
            raise ValueError(f"a polygon beyond the picture of {size[1]} x {size[0]}, at {value:g}")
    return numbers


def _draw(polygons: list[list[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise DependencyError(
            "package_missing", "masks need pycocotools; install it with: pip install 'msloc-edge[train]'"
        ) from error
    with warnings.catch_warnings():  # pycocotools 2.0.11 still knows the array protocol of numpy 1 only
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(coco.decode(coco.merge(coco.frPyObjects(polygons, *size)))).astype(bool)


def _runs(text: str) -> list[int]:
    """The run lengths of COCO's compressed code: six bits a character, five of a number and one that says whether it
    goes on, signed; from the third on, differences to the run before the last. pycocotools decodes it too, but takes a
    code that ends early for whole."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        if shift > _MAX_SHIFT:
            raise ValueError("a run that is longer than any picture")
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
