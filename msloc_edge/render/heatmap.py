"""Localization maps as files: numbers for analysis, and a grey picture on one absolute scale."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge._files import atomic_write
from msloc_edge.result import Result


def color_index(map: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """A map on the absolute scale of its class: floor(128 * M / t), held in 0..255.

    0 is no evidence (M <= 0), 255 is 2 t and more, and the index is >= 128 exactly where M >= t, in every film; no
    picture is stretched by its own extremes. A threshold t <= 0 leaves no such ratio: then one logit takes its place,
    floor(128 * (1 + M - t)). NaN, and every value under a threshold that is not finite, is 0.

    map        float [...], logit units
    threshold  t, logit units

    >>> color_index(np.float32([-1, 1, 2, 5]), 2.0)
    array([  0,  64, 128, 255], dtype=uint8)
    """
    if not np.isfinite(threshold):
        return np.zeros(map.shape, np.uint8)
    with np.errstate(over="ignore"):  # a tiny threshold: infinity is held at 255 below
        if threshold > 0:
            scaled = np.divide(map, threshold, dtype=np.float64)
        else:
            scaled = np.subtract(map, threshold, dtype=np.float64) + 1
        scaled *= 128
    return np.fmin(np.fmax(scaled, 0), 255).astype(np.uint8)  # fmax: NaN is 0; what is not negative is cut to its floor


def write_heatmap(result: Result, thresholds: Mapping[str, float], npy: Path, png: Path) -> None:
    """Write the maps of the J localized classes, in the order of `result.maps`, over the film's area of the input.

    npy         [J, h, w] float32, M_k in logit units; J may be 0
    png         [h, w] 8-bit grey, the highest `color_index` of any class at each pixel
    thresholds  label -> absolute map threshold, logit units
    """
    height, width = result.geometry.height, result.geometry.width
    maps = np.zeros((len(result.maps), height, width), np.float32)
    grey = np.zeros((height, width), np.uint8)
    for plane, (label, map) in zip(maps, result.maps.items(), strict=True):
        plane[:] = map
        np.maximum(grey, color_index(map, thresholds[label]), out=grey)
    buffer = io.BytesIO()
    np.save(buffer, maps, allow_pickle=False)
    atomic_write(npy, buffer.getvalue())
    atomic_write(png, encode(".png", grey))


def encode(suffix: str, image: NDArray[np.uint8], *parameters: int) -> bytes:
    """A picture [H, W] or [H, W, 3] BGR as the bytes of a file: ".png" or ".jpg" with OpenCV's parameters."""
    if suffix == ".png" and hasattr(cv2, "IMWRITE_PNG_FILTER"):  # since OpenCV 4.11
        parameters += (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)  # a film: a quarter smaller, and faster
    _, data = cv2.imencode(suffix, image, parameters)
    return data.tobytes()
