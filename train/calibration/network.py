"""A network as calibration sees it, whatever runs it: films in, logits and localization maps out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from msloc_edge.backends import Backend
from msloc_edge.bundle import Bundle
from msloc_edge.maps.fuse import Maps, fuse_cams
from msloc_edge.model import CamNet
from msloc_edge.train.data import Films
from msloc_edge.train.loader import resized

MAP_STRIDE = 4
"""Input pixels per cell of the finest stage: map thresholds are fitted, and heights of maps taken, on its grid."""

F32 = NDArray[np.float32]


class Network(Protocol):
    """A trained network: K classes, S stages, films of `size` x `size` pixels, relevance weights [K, S]."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""

    @property
    def size(self) -> int:
        """Side of a film, pixels."""

    @property
    def relevance(self) -> F32:
        """Relevance weights [K, S]."""

    def run(self, films: F32) -> tuple[F32, Sequence[F32]]:
        """Compute logits [B, K] and S unweighted class maps [B, K, h_s, w_s] of films [B, 1, size, size] in [0, 1]."""


class TorchNetwork:
    """A network in PyTorch, on the device where its weights are."""

    def __init__(self, net: CamNet) -> None:
        self._net = net.eval()
        self.classes, self.size = net.config.classes, net.config.size
        self.relevance = net.head.relevance.detach().float().cpu().numpy()

    @torch.no_grad()
    def run(self, films: F32) -> tuple[F32, Sequence[F32]]:
        batch = torch.from_numpy(films).to(self._net.head.bias.device)
        logits, cams = self._net(batch.contiguous(memory_format=torch.channels_last))
        return logits.float().cpu().numpy(), [cam.float().cpu().numpy() for cam in cams]


class BundleNetwork:
    """A bundle's network in a backend."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self._backend = backend
        self.classes, self.relevance = bundle.classes, bundle.relevance
        self.size = bundle.input_size[0]

    def run(self, films: F32) -> tuple[F32, Sequence[F32]]:
        outputs = self._backend.run(films)
        return outputs.logits, outputs.cams


class Seen(NamedTuple):
    """A network's answer to one film: its row among the films, logits [K], class maps of S stages [K, h_s, w_s]."""

    row: int
    logits: F32
    cams: Sequence[F32]


def look_at(network: Network, films: Films, rows: Sequence[int], batch: int) -> Iterator[Seen]:
    """Run a network over some films of a source, in batches."""
    for first in range(0, len(rows), batch):
        chosen = rows[first : first + batch]
        pixels = np.stack([resized(films.pixels[row], network.size) for row in chosen])
        logits, cams = network.run(pixels[:, None].astype(np.float32) / np.float32(255))
        for at, row in enumerate(chosen):
            yield Seen(row, logits[at], [cam[at] for cam in cams])


def maps_of(network: Network, seen: Seen, classes: Sequence[int] | None = None, stride: int = 1) -> Maps:
    """Make the localization maps M_k of some classes of a film, or of all: a pixel per `stride` pixels of the input."""
    side = network.size // stride
    wanted = range(len(network.classes)) if classes is None else classes
    return fuse_cams(seen.cams, network.relevance, (side, side), wanted)
