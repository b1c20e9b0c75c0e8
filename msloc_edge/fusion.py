"""fuse_cams on the CPU: the localization maps of the classes that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def fuse_cams(
    cams: Sequence[NDArray[np.float32]],
    relevance: NDArray[np.float32],
    size: tuple[int, int],
    classes: Sequence[int],
) -> NDArray[np.float32]:
    """M_k = sum_s w_{k,s} up(A_{k,s}) for one image, in logit units.

    cams       S arrays [K, h_s, w_s], unweighted
    relevance  [K, S]
    size       (H, W) of the maps
    classes    the J class indices wanted
    returns    [J, H, W] float32

    cv2's INTER_LINEAR is the same operation as torch's bilinear with align_corners=False: half-pixel centres, clamped
    at the edge.
    """
    height, width = size
    maps = np.zeros((len(classes), height, width), np.float32)
    for row, k in enumerate(classes):
        for stage, cam in enumerate(cams):
            weighted = np.ascontiguousarray(cam[k]) * relevance[k, stage]
            maps[row] += cv2.resize(weighted, (width, height), interpolation=cv2.INTER_LINEAR)
    return maps
