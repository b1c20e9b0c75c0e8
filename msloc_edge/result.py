"""Result of one film, and the forms in which other tools take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import msloc_edge
from msloc_edge.bundle import Bundle
from msloc_edge.errors import DependencyError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.types import SHOWN, Box, FilmGate, Finding, Frame, ModelId, OperatingPoint, Peak, SourceUids

if TYPE_CHECKING:
    import supervision
    from PIL.Image import Image
    from pydicom import Dataset

    from msloc_edge.objects import AnySource

SCHEMA = "msloc-edge/result/1"

Value = TypeVar("Value")

PROGRAM = f"msloc-edge {msloc_edge.__version__}"

UNNAMED = OperatingPoint("")
"""Operating point of a result that no profile decided."""


class LazyMapping(Mapping[str, Value]):
    """A mapping whose values are made when they are looked at, each time anew.

    labels  its keys
    make    makes the value of a label from its index among the labels
    """

    def __init__(self, labels: Sequence[str], make: Callable[[int], Value]) -> None:
        self._indices, self._make = {label: j for j, label in enumerate(labels)}, make

    def __getitem__(self, label: str) -> Value:
        return self._make(self._indices[label])

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """All that is known of one film after localization.

    findings        one for each class of the model, in its order; none of a film that was refused
    warnings        reason codes of what was unusual about the film (docs/errors.md)
    timing_ms       milliseconds of decode, preprocess, network, fuse, localize; on a device copy_in, window, locate and
                    copy_out, too
    maps            label -> [h, w] float32 localization map M_k in logit units, over the film's area of the model
                    input; enlarged when it is looked at
    stage_maps      label -> one [h_s, w_s] float32 unweighted class map per stage, over the whole model input
    map_thresholds  label -> the absolute threshold of its map, logit units
    film            the film itself, as stored, for `plot`
    gate            what the film is as a whole; None where the model has no such number
    operating_point the profile that decided
    time            when it was localized, UTC, ISO 8601
    uids            of a DICOM film; None for another, and where they are to be left out
    program         what localized it, with its version
    refused         why the film was not localized, one of `warnings`; None where it was
    """

    input: str
    sha256: str
    model: ModelId
    backend: str
    geometry: Geometry
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...] = ()
    timing_ms: dict[str, float] = field(default_factory=dict)
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    stage_maps: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)
    map_thresholds: dict[str, float] = field(default_factory=dict)
    film: Frame | None = None
    gate: FilmGate | None = None
    operating_point: OperatingPoint = UNNAMED
    time: str = ""
    uids: SourceUids | None = None
    program: str = PROGRAM
    refused: str | None = None

    @property
    def ranked(self) -> tuple[Finding, ...]:
        """All findings, positive ones first, then by how far they exceed their threshold."""
        return tuple(sorted(self.findings, key=lambda f: (not f.positive, -f.excess)))

    @property
    def positive(self) -> tuple[Finding, ...]:
        """Positive findings, by how far they exceed their threshold."""
        return tuple(f for f in self.ranked if f.positive)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the positive findings with their labels, in pixels of the stored image, strongest first."""
        return tuple(sorted((box for f in self.positive for box in f.boxes), key=lambda box: -box.score))

    def to_dict(self) -> dict[str, Any]:
        """The result line, schema "msloc-edge/result/1": plain JSON types, no arrays. `from_dict` reads it."""
        return {
            "schema": SCHEMA,
            "input": self.input,
            "sha256": self.sha256,
            **({"dicom": self.uids._asdict()} if self.uids else {}),
            "time": self.time,
            "program": self.program,
            "profile": self.operating_point.profile,
            "model": {"name": self.model.name, "version": self.model.version, "sha256": self.model.sha256},
            "backend": self.backend,
            "geometry": self.geometry.to_dict(),
            "refused": self.refused,
            "abnormal": _gate_dict(self.gate),
            "findings": [_finding_dict(f) for f in self.findings],
            "warnings": list(self.warnings),
            "timing_ms": {stage: round(ms, 3) for stage, ms in self.timing_ms.items()},
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any], bundle: Bundle | None = None) -> Result:
        """Read a result line, as `to_dict` or another program wrote it. It has no film and no maps.

        bundle  of the model that made it: brings the measured rates and the map thresholds, which no line holds

        Raises ValueError for another schema, for a line without an entry it needs, and for another model's bundle.
        """
        if line.get("schema") != SCHEMA:
            raise ValueError(f"expected a line of schema {SCHEMA}, got {line.get('schema')!r}")
        try:
            result = _read(line)
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected a whole result line, got one without a usable {error}") from error
        if bundle is None:
            return result
        if bundle.sha256 != result.model.sha256:
            raise ValueError(f"expected the bundle {result.model.sha256[:12]}..., got {bundle.sha256[:12]}...")
        profile = bundle.profile(result.operating_point.profile or None)
        return replace(
            result,
            operating_point=OperatingPoint(result.operating_point.profile, profile.normals_flagged, profile.rates),
            map_thresholds=dict(zip(bundle.classes, profile.map, strict=True)),
        )

    def to_sr(self, source: AnySource) -> Dataset:
        """The result as a DICOM structured report (Comprehensive 3D SR, TID 1500) on its film.

        source  the DICOM film itself: a path, its bytes, or a pydicom Dataset

        Raises OutputError (object_refused) where it cannot be made; DependencyError (package_missing).
        """
        return self._to_object("sr", source)

    def to_seg(self, source: AnySource) -> Dataset:
        """The regions as a DICOM Segmentation, one segment a finding. Takes and raises what `to_sr` does."""
        return self._to_object("seg", source)

    def to_pm(self, source: AnySource) -> Dataset:
        """The maps as a DICOM Parametric Map, logit units, one frame a class. Takes and raises what `to_sr` does."""
        return self._to_object("pm", source)

    def to_gsps(self, source: AnySource) -> Dataset:
        """Contours, boxes and labels as a DICOM presentation state. Takes and raises what `to_sr` does."""
        return self._to_object("gsps", source)

    def to_sc(self, source: AnySource) -> Dataset:
        """The overlay as a DICOM Secondary Capture. Takes and raises what `to_sr` does."""
        return self._to_object("sc", source)

    def _to_object(self, kind: str, source: AnySource) -> Dataset:
        from msloc_edge.objects import make_object  # a room above, as in `plot`: what a user calls on

        return make_object(self, source, kind)

    def to_coco(self) -> dict[str, Any]:
        """The boxes as a COCO dataset of one image, plain JSON types; `msloc_edge.to_coco` takes many results."""
        return to_coco([self])

    def to_supervision(self) -> supervision.Detections:
        """The boxes as roboflow's `supervision.Detections`: xyxy [N, 4], confidence, class_id, data["class_name"].

        class_id counts the model's classes from 0. Raises DependencyError (package_missing) without that package.
        """
        try:
            import supervision
        except ImportError as error:
            raise DependencyError(
                "package_missing", f"to_supervision needs {error.name}; install it with: pip install supervision"
            ) from error
        order = {finding.label: k for k, finding in enumerate(self.findings)}
        corners = [(b.x, b.y, b.x + b.w, b.y + b.h) for b in self.boxes]
        return supervision.Detections(
            xyxy=np.array(corners, np.float32).reshape(-1, 4),
            confidence=np.array([box.score for box in self.boxes], np.float32),
            class_id=np.array([order[box.label] for box in self.boxes], np.int64),
            data={"class_name": np.array([box.label for box in self.boxes], dtype=str)},
        )

    def plot(self, max_side: int = 1400, show: int | None = SHOWN) -> Image:
        """The overlay as a PIL image: the film, outlines and boxes of the first positive findings, a panel that names
        all of them.

        max_side  longest side of the film in it, pixels
        show      how many findings are drawn; None draws all

        Raises ValueError for a result without its film.
        """
        if self.film is None:
            raise ValueError("expected a result that holds its film, got one without; localize the film again")
        from PIL import Image

        from msloc_edge.render.overlay import overlay  # the one place that asks a room above: what a user calls on

        bgr = overlay(self.film.display(), self, max_side, self.map_thresholds, show)
        return Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))


def to_coco(results: list[Result]) -> dict[str, Any]:
    """The boxes of many results of one model as one COCO dataset: images, categories, annotations with scores.

    Ids count from 1, categories in the model's order; bbox is [x, y, width, height] in pixels of the stored image
    (https://cocodataset.org/#format-data). Raises ValueError for results of different classes.
    """
    classes = [finding.label for finding in results[0].findings] if results else []
    if any([finding.label for finding in result.findings] != classes for result in results):
        raise ValueError("expected results of one model, got different classes; write a dataset for each model")
    category = {label: number for number, label in enumerate(classes, 1)}
    boxes = [(number, box) for number, result in enumerate(results, 1) for box in result.boxes]
    return {
        "images": [
            {
                "id": number,
                "file_name": result.input,
                "width": result.geometry.image_width,
                "height": result.geometry.image_height,
            }
            for number, result in enumerate(results, 1)
        ],
        "categories": [{"id": number, "name": label} for label, number in category.items()],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category[box.label],
                "bbox": [round(value, 4) for value in (box.x, box.y, box.w, box.h)],
                "area": round(box.w * box.h, 4),
                "iscrowd": 0,
                "score": round(box.score, 6),
            }
            for number, (image, box) in enumerate(boxes, 1)
        ],
    }


def _read(line: Mapping[str, Any]) -> Result:
    gate, uids = line.get("abnormal"), line.get("dicom")
    return Result(
        input=line["input"],
        sha256=line["sha256"],
        model=ModelId(**line["model"]),
        backend=line["backend"],
        geometry=Geometry(**line["geometry"]),
        findings=tuple(map(_read_finding, line["findings"])),
        warnings=tuple(line["warnings"]),
        timing_ms=dict(line.get("timing_ms") or {}),
        gate=FilmGate(gate["score"], gate["threshold"]) if gate else None,
        operating_point=OperatingPoint(line["profile"]),
        time=line["time"],
        uids=SourceUids(**uids) if uids else None,
        program=line["program"],
        refused=line.get("refused"),
    )


def _read_finding(entry: Mapping[str, Any]) -> Finding:
    peak = entry["peak"]
    return Finding(
        label=entry["label"],
        score=entry["score"],
        threshold=entry["threshold"],
        positive=entry["positive"],
        relevance=tuple(entry["relevance"]),
        peak=Peak(**peak) if peak else None,
        boxes=tuple(Box(**box, label=entry["label"]) for box in entry["boxes"]),
    )


def _gate_dict(gate: FilmGate | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    threshold = None if gate.threshold is None else round(gate.threshold, 6)
    return {"score": round(gate.score, 6), "threshold": threshold, "positive": gate.positive}


def _finding_dict(finding: Finding) -> dict[str, Any]:
    peak = finding.peak
    return {
        "label": finding.label,
        "score": round(finding.score, 6),
        "threshold": round(finding.threshold, 6),
        "positive": finding.positive,
        "peak": None if peak is None else _rounded(x=peak.x, y=peak.y, value=peak.value),
        "boxes": [_rounded(x=b.x, y=b.y, w=b.w, h=b.h, score=b.score) for b in finding.boxes],
        "relevance": [round(w, 6) for w in finding.relevance],
    }


def _rounded(**values: float) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}
