"""What an engine is to the pipeline: load, run, describe, close. Pre- and post-processing live outside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msloc_edge.bundle import Bundle
from msloc_edge.types import Frame

if TYPE_CHECKING:
    from msloc_edge.imaging.geometry import Geometry
    from msloc_edge.maps.fuse import Maps, Part
    from msloc_edge.maps.regions import Located


STEPS = ("copy_in", "network", "copy_out")
"""Of a run on a device of its own, in their order; what `Outputs.timing_ms` is told by."""


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What an engine gives for a batch: logits [B, K] and S stages of unweighted class maps [B, K, h_s, w_s].

    An engine that keeps its maps on a device leaves `cams` empty, overrides `maps` and `stage_maps`, and copies only
    what is asked for. One that can tell copies from computing gives `timing_ms`: milliseconds of copy_in, network,
    copy_out for the whole batch.
    """

    logits: NDArray[np.float32]
    cams: tuple[NDArray[np.float32], ...]
    timing_ms: Mapping[str, float] = field(default_factory=dict)

    def maps(self, image: int, relevance: NDArray[np.float32], size: tuple[int, int], classes: Sequence[int]) -> Maps:
        """The localization maps M_k of one image of the batch, for J class indices, (H, W) = size."""
        from msloc_edge.maps.fuse import fuse_cams  # with it comes cv2, which `infer --help` does without

        return fuse_cams([cam[image] for cam in self.cams], relevance, size, classes)

    def located(self, image: int, classes: Sequence[int]) -> list[Located] | None:
        """What the engine has located itself, of J classes of one image; None: it is to be found in the maps."""
        return None

    def stage_maps(self, image: int, k: int) -> tuple[NDArray[np.float32], ...]:
        """The unweighted class maps of one class of one image: S arrays [h_s, w_s]."""
        return tuple(cam[image, k] for cam in self.cams)


class Backend(ABC):
    """An engine with one model in it. `run` may be called from one thread at a time."""

    name: str

    @classmethod
    @abstractmethod
    def load(cls, bundle: Bundle, device: str | None = None, threads: int | None = None) -> Backend:
        """Load a bundle's network; `threads` bounds those of a CPU engine, None lets it choose.

        Raises BackendError: backend_missing, backend_device, backend_failed.
        """

    def letterbox(self, frame: Frame, geometry: Geometry) -> ArrayLike:
        """A film windowed and fitted into the model's input: an array [h, w], or what numpy can make one of.

        In any thread, beside `run`.
        """
        return geometry.letterbox(frame.display())

    def run_films(self, films: Sequence[ArrayLike], contents: Sequence[Part], thresholds: Sequence[float]) -> Outputs:
        """`run`, of films as `letterbox` gives them. An engine on a device may locate there what they show.

        contents    rows and columns of the model's input that each film covers
        thresholds  of the maps of all classes, logit units
        """
        inputs = [np.asarray(film, np.float32)[None] for film in films]
        return self.run(inputs[0][None] if len(inputs) == 1 else np.stack(inputs))  # one film is not copied

    @abstractmethod
    def run(self, batch: NDArray[np.float32]) -> Outputs:
        """Films [B, 1, H, W] in [0, 1] -> Outputs. Raises BackendError (backend_failed)."""

    @abstractmethod
    def describe(self) -> Mapping[str, str]:
        """Engine, version and device, for results and reports."""

    def wait(self) -> None:  # noqa: B027 - most engines are ready when they are loaded
        """Until the engine is the one that was asked for, and none that serves meanwhile. Raises BackendError."""

    def close(self) -> None:  # noqa: B027 - most engines free themselves
        """Free what the engine holds; it cannot run afterwards."""
