"""Maps and scores that `msloc-edge infer --out FOLDER --write json,heatmap` wrote, each film's found by its content."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.bundle import Bundle, sha256_file
from msloc_edge.errors import BundleError, MslocError, TrainError
from msloc_edge.result import Result
from msloc_edge.train.data import Record
from msloc_edge.train.evaluate.evidence import Evidence, resolve_labels
from msloc_edge.train.evaluate.measure import FilmMaps

RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class _Inferred:
    """A result line, and the file of the film's maps; None where none was written."""

    result: Result
    maps: Path | None

    def map(self, label: str) -> NDArray[np.float32]:
        """Read the map [h, w] of a finding over the film's area of the input. Raises TrainError where there is none."""
        localized = [finding.label for finding in self.result.findings if finding.peak]
        if self.maps is None or label not in localized:
            raise TrainError(
                "data_missing", f"{self.result.input}: no map of {label}; run infer with --all-classes --write heatmap"
            )
        shape = len(localized), self.result.geometry.height, self.result.geometry.width
        try:
            values = np.load(self.maps, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainError("data_invalid", f"{self.maps}: expected maps in an .npy file, got {error}") from error
        if values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
            raise TrainError("data_invalid", f"{self.maps}: expected finite float32 maps {shape}, got others")
        return np.asarray(values[localized.index(label)])


class InferredSource:
    """The results of one model.

    folder      the --out of `infer`
    thresholds  finding -> map threshold, "" for every finding; where there is none, the bundle's, if the model of the
                results is shipped or installed here; else the middle of each map's own range

    Raises TrainError where there is no result, or results of several models.
    """

    main_row = "heatmaps"

    def __init__(
        self, folder: Path, mapping: Mapping[str, Sequence[str]], thresholds: Mapping[str, float] | None = None
    ) -> None:
        self.problems: list[str] = []
        self._folder, self._given = folder, dict(thresholds or {})
        self._films = _read(folder / RESULTS)
        self._first = next(iter(self._films.values())).result
        self._limits = _map_thresholds(self._first) | self._given
        self.parts = resolve_labels([finding.label for finding in self._first.findings], mapping)

    def about(self) -> dict[str, Any]:
        first = self._first
        return {
            "what": asdict(first.model),
            "backend": first.backend,
            "threshold_rule": "absolute: as given, or of the bundle's profile"
            if self._limits
            else "half of each map's own range",
            "map_thresholds": {label or "every finding": round(value, 5) for label, value in self._limits.items()},
            "profile": first.operating_point.profile,
            "film_thresholds": {first.operating_point.profile: first.gate and first.gate.threshold},
        }

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        for record in records:
            found = self._films.get(sha256_file(record.path))
            if found is None:
                yield record, TrainError("data_missing", f"{record.name}: not among the films of {self._folder}")
            else:
                yield record, self._film(found)

    def _film(self, found: _Inferred) -> FilmMaps:
        result = found.result
        own = {finding.label: finding for finding in result.findings}
        called = {label: any(own[part].positive for part in parts) for label, parts in self.parts.items()}

        def main(label: str) -> Evidence | None:
            try:
                return Evidence.union(
                    [Evidence.thresholded(found.map(part), self._limits, part) for part in self.parts[label]]
                )
            except MslocError as error:
                self.problems.append(error.message)
                return None

        def others(label: str) -> Mapping[str, Evidence]:
            try:
                maps = [found.map(part) for part in self.parts[label]]
            except MslocError:  # told by `main`
                return {}
            return {"heatmaps_half_range": Evidence.half_range(np.maximum.reduce(maps))} if self._limits else {}

        return FilmMaps(
            (result.geometry.image_height, result.geometry.image_width),
            {label: max(own[part].score for part in parts) for label, parts in self.parts.items()},
            {result.operating_point.profile: called},
            main,
            others,
            {label: len(finding.boxes) for label, finding in own.items()},
            result.gate.score if result.gate else None,
        )


def _read(path: Path) -> dict[str, _Inferred]:
    """Read the lines of one model: sha256 of the film -> its result. Of a film that is there twice the last counts."""
    found: dict[str, _Inferred] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError("data_missing", f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            result, maps = Result.from_dict(content), (content.get("files") or {}).get("heatmap")
            found[result.sha256] = _Inferred(result, path.parent / Path(maps).name if maps else None)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise TrainError("data_invalid", f"{path}, line {number}: {error}; run infer again") from error
    if len({inferred.result.model for inferred in found.values()}) != 1:
        raise TrainError("data_invalid", f"{path}: expected results of one model, got none, or several models'")
    return found


def _map_thresholds(result: Result) -> dict[str, float]:
    """Map thresholds of a result's profile, of the bundle that made it; empty where that is not here."""
    try:
        bundle = Bundle.open(result.model.name)
    except BundleError:
        return {}
    if bundle.id != result.model:
        return {}
    return dict(zip(bundle.classes, bundle.profile(result.operating_point.profile).map, strict=True))
