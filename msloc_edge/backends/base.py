"""Contract between a backend and the pipeline: load, preprocess, run, describe, wait, close.

A backend's module has a function `load(bundle, device, precision, threads)` that returns a Backend. Post-processing
lives outside: a run gives `Outputs`, which answers with regions and maps in the backend's best form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError, BundleError
from msloc_edge.types import Frame

if TYPE_CHECKING:
    from msloc_edge.imaging.geometry import Geometry
    from msloc_edge.maps.fuse import Maps, Part
    from msloc_edge.maps.regions import Located

Films = Union[ArrayLike, Sequence[ArrayLike]]  # noqa: UP007 - Python 3.10 cannot join what ArrayLike is
"""A batch: an array [B, 1, H, W] float32 in [0, 1], on the host or on the backend's device (by DLPack or the CUDA array
interface); or a list of B films as `Backend.preprocess` gives them."""

STEPS = ("copy_in", "window", "network", "locate", "copy_out")
"""Keys of Outputs.timing_ms: stages of a device run, in order; a run has those that its device did and could tell.

copy_in   stored pixels, or a film, to the device, and to the network's image
window    window and letterbox
network   image to logits and class maps
locate    class maps to peaks and regions
copy_out  results to the host
"""


class Search(NamedTuple):
    """Parts of a batch's maps in which regions are to be found.

    contents    of each film, the rows and columns of the model's input that it covers
    thresholds  [K], logit units
    """

    contents: Sequence[Part]
    thresholds: Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """Results of one run, and the maps and regions that can be asked of them.

    A backend that keeps its maps on a device overrides `fuse` and `stage_maps`, and copies only what is asked for; one
    that finds regions there overrides `regions`. Maps in which regions were found are kept: they outlive the backend.

    bundle     its relevance weights and input size make maps of class maps
    logits     [B, K]
    cams       S stages of unweighted class maps [B, K, h_s, w_s]; empty where they stay on a device
    search     parts in which regions are to be found; None: whole maps, above the thresholds of the default profile
    timing_ms  milliseconds of some of STEPS for the whole batch, from a backend that can tell copies from computing
    """

    bundle: Bundle
    logits: NDArray[np.float32]
    cams: tuple[NDArray[np.float32], ...]
    search: Search | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    _fused: dict[int, tuple[Sequence[int], Maps]] = field(default_factory=dict, init=False)

    def regions(
        self, image: int, classes: Sequence[int], lap: Callable[[str], object] = lambda step: None
    ) -> list[Located]:
        """Find the peak and the regions in the maps of J classes of one image of the batch.

        lap  called with "fuse" when the maps are made, if they have to be

        Raises BackendError: backend_closed when the maps are gone with the backend, backend_failed when they are not
        finite.
        """
        from msloc_edge.maps.regions import locate  # with it comes cv2, which `infer --help` does without

        maps = self.fuse(image, classes)
        require_finite("maps", maps.values)
        self._fused[image] = classes, maps
        lap("fuse")
        content, thresholds = self._searched(image)
        return locate(maps, [thresholds[k] for k in classes], content)

    def map(self, image: int, k: int) -> NDArray[np.float32]:
        """Localization map M_k [H, W] of class k of one image, logit units. Raises as `regions` does."""
        classes, maps = self._fused.get(image, ((), None))
        if maps is None or k not in classes:
            classes, maps = (k,), self.fuse(image, (k,))
        height, width = maps.size
        return maps.pixels(classes.index(k), (slice(0, height), slice(0, width)))

    def stage_maps(self, image: int, k: int) -> tuple[NDArray[np.float32], ...]:
        """Unweighted class maps of class k of one image: S arrays [h_s, w_s]."""
        return tuple(cam[image, k] for cam in self.cams)

    def fuse(self, image: int, classes: Sequence[int]) -> Maps:
        """Make the localization maps of J classes of one image. Raises as `regions` does."""
        from msloc_edge.maps.fuse import fuse_cams

        cams = [cam[image] for cam in self.cams]
        return fuse_cams(cams, self.bundle.relevance, self.bundle.input_size, classes)

    def _searched(self, image: int) -> tuple[Part, Sequence[float]]:
        if self.search:
            return self.search.contents[image], self.search.thresholds
        height, width = self.bundle.input_size
        return (slice(0, height), slice(0, width)), self.bundle.profile().map


class Backend(ABC):
    """A runtime with one model in it. `run` may be called from one thread at a time, unless it is `concurrent`."""

    name: str
    concurrent = False
    """Whether `run` may be called from several threads at once."""

    def preprocess(self, frame: Frame, geometry: Geometry) -> ArrayLike:
        """Window a film and fit it into the model's input: [H, W] in [0, 1], an array or what numpy can make one of.

        It may be called in any thread, beside `run`.
        """
        return geometry.letterbox(frame.display())

    @abstractmethod
    def run(self, films: Films, search: Search | None = None) -> Outputs:
        """Run the network over a batch of films. Raises BackendError (backend_failed).

        search  parts in which `Outputs.regions` is to look; a device may do so in the same run
        """

    @abstractmethod
    def describe(self) -> Mapping[str, str]:
        """Engine, version and device, for results and reports."""

    def wait(self) -> None:  # noqa: B027 - most backends are ready when they are loaded
        """Wait until the backend that was asked for serves, and none in its place. Raises BackendError."""

    def close(self) -> None:  # noqa: B027 - most backends free themselves
        """Free what the backend holds; it cannot run afterwards. Closing twice does nothing."""


def output_shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """Name the outputs of a bundle's network in their order, each with its shape for one film."""
    classes = len(bundle.classes)
    stages = enumerate(bundle.stages, 1)
    return {"logits": (1, classes)} | {f"cams_{s}": (1, classes, stage.height, stage.width) for s, stage in stages}


def require_names(bundle: Bundle, inputs: Mapping[str, Sequence[object]], outputs: Collection[str]) -> None:
    """Hold a loaded network to its manifest: its inputs with their sides (what is no number is free), its outputs.

    Raises BundleError (bundle_damaged).
    """
    wanted = (1, *bundle.input_size)
    sides = tuple(inputs.get("image", ()))[1:]
    free = tuple(side if isinstance(side, int) else want for side, want in zip(sides, wanted, strict=False))
    if len(inputs) != 1 or len(sides) != len(wanted) or free != wanted:
        raise _damaged(bundle, f"one input image [B, 1, {wanted[1]}, {wanted[2]}]", _list(inputs))
    if set(outputs) != set(expected := output_shapes(bundle)):
        raise _damaged(bundle, f"the outputs {', '.join(expected)}", ", ".join(outputs))


def try_out(bundle: Bundle, backend: Backend) -> None:
    """Run a black film through a new backend: shapes that a graph only states are not to be relied upon.

    Raises BundleError: bundle_damaged for outputs of other shapes than the manifest's; BackendError: backend_failed,
    also for numbers that are not finite.
    """
    found = backend.run(np.zeros((1, 1, *bundle.input_size), np.float32))
    arrays = (found.logits, *found.cams)
    for (name, shape), array in zip(output_shapes(bundle).items(), arrays, strict=True):
        if array.shape != shape or array.dtype != np.float32:
            raise _damaged(bundle, f"{name} {list(shape)} float32", f"{list(array.shape)} {array.dtype}")
        require_finite(name, array)


def require_finite(what: str, values: NDArray[np.float32]) -> None:
    """Refuse infinity and NaN, which would compare as below every threshold: a normal film.

    Raises BackendError (backend_failed).
    """
    if not np.isfinite(values).all():
        raise BackendError(
            "backend_failed", f"expected finite {what}, got infinity or nan; use precision fp32, or another bundle"
        )


def _damaged(bundle: Bundle, expected: str, got: str) -> BundleError:
    return BundleError(
        "bundle_damaged", f"{bundle.onnx}: expected a network with {expected}, got {got}; export it again"
    )


def _list(shapes: Mapping[str, Sequence[object]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"


def host_batch(films: Films) -> NDArray[np.float32]:
    """Bring a batch to the host: [B, 1, H, W]; one film is not copied.

    Raises BackendError (backend_failed) for films on a device that numpy cannot read.
    """
    try:
        if isinstance(films, (list, tuple)):
            inputs = [np.asarray(film, np.float32)[None] for film in films]
            return inputs[0][None] if len(inputs) == 1 else np.stack(inputs)
        return np.asarray(films, np.float32)
    except TypeError as error:
        raise BackendError(
            "backend_failed", f"expected films on the host, got {type(films).__name__}: {error}; copy them there"
        ) from error
