"""Events of a run for TensorBoard: curves, and a few validation films with their maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import CamNet
from msloc_edge.train.data import Films
from msloc_edge.train.loader import resized

EXAMPLES = 4
SIDE = 256
_INK = 0.5
"""Largest share of a film that the colour covers."""


class Events:
    """Event files in a folder, from epoch `first` (counted from 1) on. Where tensorboard is not installed: nothing."""

    def __init__(self, folder: Path, first: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder), purge_step=first)

    @property
    def wanted(self) -> bool:
        """True where anything is written."""
        return self._writer is not None

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Add a point to each curve."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, epoch)

    def picture(self, picture: NDArray[np.uint8], epoch: int) -> None:
        """Add an RGB picture [H, W, 3]."""
        if self._writer:
            self._writer.add_image("examples", picture, epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._writer:
            self._writer.close()


@torch.no_grad()
def example_maps(net: CamNet, sources: Sequence[Films]) -> NDArray[np.uint8]:
    """Draw a few films with a finding each, above the same under their maps, side by side: RGB [2 SIDE, n SIDE, 3].

    The colour is sigmoid(b_k + M_k), the probability of the finding if the whole film looked like this place: the same
    scale on every film and in every epoch.
    """
    net.eval()
    columns = []
    for source, index, k in _examples(sources):
        film = resized(source.pixels[index], net.config.size)
        image = torch.from_numpy(film.astype(np.float32) / 255)[None, None].to(net.head.bias.device)
        maps = fuse_cams(net(image).cams, net.head.relevance, (SIDE, SIDE))[0, k]
        level = torch.sigmoid(maps + net.head.bias[k]).cpu().numpy()
        grey = cv2.cvtColor(resized(film, SIDE), cv2.COLOR_GRAY2RGB)
        colour = cv2.cvtColor(
            cv2.applyColorMap(np.round(level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
        )
        shown = grey + _INK * level[..., None] * (colour.astype(np.float32) - grey)
        label = grey.copy()
        cv2.putText(
            label, net.config.classes[k], (6, SIDE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
        )
        columns.append(np.vstack([label, np.round(shown).astype(np.uint8)]))
    return np.hstack(columns) if columns else np.zeros((2 * SIDE, SIDE, 3), np.uint8)


def _examples(sources: Sequence[Films]) -> list[tuple[Films, int, int]]:
    """(source, index, class): of each class the first film with it, as far as EXAMPLES goes, each film once."""
    found: dict[tuple[int, int], tuple[Films, int, int]] = {}
    for number, source in enumerate(sources):
        for k in range(source.labels.shape[1]):
            having = np.flatnonzero(source.labels[:, k] == 1)
            if having.size:
                found.setdefault((number, int(having[0])), (source, int(having[0]), k))
    return list(found.values())[:EXAMPLES]
