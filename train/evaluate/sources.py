"""Sources of the maps of an evaluation: a model in a backend, or a folder of heatmaps of whatever origin."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from msloc_edge.backends import Backend
from msloc_edge.bundle import MANIFEST, Bundle, Profile
from msloc_edge.errors import MslocError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.maps.fuse import fuse_cams
from msloc_edge.pipeline import Localizer
from msloc_edge.result import Result
from msloc_edge.train.checkpoint import load_state
from msloc_edge.train.data import Record
from msloc_edge.train.evaluate.evidence import Evidence, resolve_labels
from msloc_edge.train.evaluate.heatmaps import HeatmapFolder
from msloc_edge.train.evaluate.measure import FilmMaps


class Source(Protocol):
    """A method that gives maps and scores."""

    problems: list[str]

    @property
    def main_row(self) -> str:
        """Name of the row of its own maps."""

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        """Finding -> the source's own labels that make it up."""

    def about(self) -> dict[str, Any]:
        """Name, version and hash, the threshold rule, whatever else a reader must know."""

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        """Give the films in order; their maps are asked for only where `localize`."""


class ModelSource:
    """A model in a backend. Its other rows: half of each map's own range, and each stage by itself."""

    main_row = "model"

    def __init__(self, localizer: Localizer, backend: str, mapping: Mapping[str, Sequence[str]], batch: int) -> None:
        self.problems: list[str] = []
        self.parts = resolve_labels(localizer.bundle.classes, mapping)
        self._localizer, self._backend, self._batch, self._mapping = localizer, backend, batch, mapping
        # The others would need the boxes of other map thresholds.
        self._profiles = {
            name: profile for name, profile in localizer.bundle.profiles.items() if profile.map == localizer.profile.map
        }

    def about(self) -> dict[str, Any]:
        bundle, name = self._localizer.bundle, self._localizer.operating_point.profile
        return {
            "what": {
                "name": bundle.name,
                "version": bundle.version,
                "sha256": bundle.sha256,
                "onnx_sha256": bundle.manifest["thresholds_for"],
            },
            "backend": self._backend,
            "threshold_rule": f"absolute, one per class, of the bundle's profile {name}; a mapped finding is where one "
            "of its parts exceeds its own threshold",
            "thresholds_fitted_on": self.calibration or "the bundle does not say",
            "map_thresholds": {label: round(value, 5) for label, value in self._localizer.map_thresholds.items()},
            "profile": name,
            "film_thresholds": {
                name: None if profile.film is None else round(profile.film, 5)
                for name, profile in self._profiles.items()
            },
        }

    @property
    def calibration(self) -> Mapping[str, Any]:
        """Data on which scores and map thresholds were fitted, as the bundle tells it."""
        return self._localizer.bundle.manifest.get("calibration") or {}

    @property
    def bundle(self) -> Bundle:
        return self._localizer.bundle

    def prepare(self, record: Record) -> Prepared:
        """Read a film and fit it into the model's input. Raises InputError."""
        return self._localizer.prepare(record.path)

    def look(self, film: Prepared) -> FilmMaps:
        """Run the model on one film, as it is or changed since it was prepared."""
        self._localizer.all_classes = True
        return self._film(self._localizer.run([film])[0])

    def within(self, backend: Backend) -> ModelSource:
        """Give the same model, profile and findings in another backend, that has the model in it."""
        profile = self._localizer.operating_point.profile
        localizer = Localizer(self.bundle.path, backend, profile=profile, input_gate=False)
        return ModelSource(localizer, backend.name, self._mapping, self._batch)

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        self._localizer.all_classes = True  # whether a finding is positive hangs on its map, too
        prepare = self._localizer.prepare
        with closing(self._localizer.stream(records, lambda record: prepare(record.path), self._batch)) as outcomes:
            for outcome in outcomes:
                if outcome.result is not None:
                    yield outcome.film, self._film(outcome.result)
                elif outcome.error is not None:
                    yield outcome.film, outcome.error

    def _film(self, result: Result) -> FilmMaps:
        bundle, geometry = self._localizer.bundle, result.geometry
        own = {finding.label: finding.score for finding in result.findings}
        boxes = {finding.label: len(finding.boxes) for finding in result.findings}
        abnormal = None if result.gate is None else result.gate.score

        def main(label: str) -> Evidence:
            return Evidence.union(
                [Evidence.above(result.maps[part], self._localizer.map_thresholds[part]) for part in self.parts[label]]
            )

        def others(label: str) -> dict[str, Evidence]:
            parts = self.parts[label]
            rows = {"model_half_range": _highest([result.maps[part] for part in parts])}
            stages = len(bundle.stages)
            for stage in range(stages if stages > 1 else 0):
                name = "stages_last" if stage == stages - 1 else f"stage_{stage + 1}"
                rows[name] = _highest([_stage_map(result, part, stage) for part in parts])
            return rows

        return FilmMaps(
            (geometry.image_height, geometry.image_width),
            {label: max(own[part] for part in parts) for label, parts in self.parts.items()},
            {name: self._called(profile, own, boxes, abnormal) for name, profile in self._profiles.items()},
            main,
            others,
            boxes,
            abnormal,
        )

    def _called(
        self, profile: Profile, own: Mapping[str, float], boxes: Mapping[str, int], abnormal: float | None
    ) -> dict[str, bool]:
        """Decide which findings are positive; a mapped one is where one of its parts is."""
        classes = self._localizer.bundle.classes
        shown = [boxes[label] > 0 for label in classes]
        found = profile.positive(np.nan if abnormal is None else abnormal, [own[label] for label in classes], shown)
        positive = dict(zip(classes, found.tolist(), strict=True))
        return {label: any(positive[part] for part in parts) for label, parts in self.parts.items()}


class HeatmapSource:
    """A folder of maps of whatever origin."""

    main_row = "heatmaps"

    def __init__(self, folder: HeatmapFolder, mapping: Mapping[str, Sequence[str]], candidates: Sequence[str]) -> None:
        wanted = dict.fromkeys([*candidates, *(part for parts in mapping.values() for part in parts)])
        self._folder, self.problems = folder, folder.problems
        self.parts = resolve_labels(folder.labels(wanted), mapping)

    def about(self) -> dict[str, Any]:
        limits = self._folder.thresholds
        return {
            "what": {"name": str(self._folder.folder), "version": None, "sha256": None},
            "threshold_rule": "absolute, as given; half of each map's own range where none is"
            if limits
            else "half of each map's own range",
            "map_thresholds": {label or "every finding": value for label, value in limits.items()},
        }

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        for record in records:
            try:
                yield record, self._folder.film(record, self.parts)
            except MslocError as error:
                yield record, error


@contextmanager
def open_model(
    model: str,
    backend: str,
    device: str | None,
    precision: str,
    profile: str | None,
    write_bundle: Callable[[Mapping[str, Any], Path, str, str], object],
) -> Iterator[Localizer]:
    """Open a model in a backend; a checkpoint or a run folder becomes a temporary bundle first.

    write_bundle  exports a checkpoint's state to a folder, by name and version
    """
    path = Path(model)
    with TemporaryDirectory(prefix="msloc-eval-") as folder:
        bundle: str | Path = model
        if path.is_file() or (path.is_dir() and not (path / MANIFEST).exists()):
            bundle = Path(folder) / "bundle"
            write_bundle(load_state(path), bundle, path.name, "0")
        with Localizer(bundle, backend, device, profile, precision=precision, input_gate=False) as localizer:
            localizer.backend.wait()
            yield localizer


def _stage_map(result: Result, label: str, stage: int) -> Any:
    """One stage's class map [h, w] over the film's area of the input."""
    geometry = result.geometry
    size = geometry.input_height, geometry.input_width
    whole = fuse_cams([result.stage_maps[label][stage][None]], np.ones((1, 1), np.float32), size, [0])
    return whole.pixels(0, geometry.content)


def _highest(maps: Sequence[Any]) -> Evidence:
    """The pixel-wise maximum of maps, with regions above the middle of its range."""
    return Evidence.half_range(np.maximum.reduce(list(maps)))
