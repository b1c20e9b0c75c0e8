"""The structured report: Comprehensive 3D SR, TID 1500 (PS3.16), in the shape of the IHE profile AI Results.

One group for the film as a whole: what came out, at which operating point, and the rates measured at it. One group for
each class of the model, positive or not: probability, threshold, decision. One group for each box: its outline on the
film (SCOORD). Each class and each box has its tracking identifier; a class's is also on its segment and its graphics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from msloc_edge.objects import codes as own
from msloc_edge.objects.codes import Term, finding_codes
from msloc_edge.objects.identity import MANUFACTURER, Identity
from msloc_edge.objects.outcome import NotAnalysed
from msloc_edge.objects.regions import box_outline
from msloc_edge.objects.source import Source
from msloc_edge.result import Result
from msloc_edge.types import Finding, OperatingPoint

_FILM = "film"


def make(result: Result, source: Source, identity: Identity) -> Dataset:
    """Make the report of a film that was analysed."""
    groups = [_film_group(result, source, identity)]
    for finding in result.ranked:
        groups.append(_finding_group(finding, result, source, identity))
        if finding.positive:
            groups += [
                _box_group(number, finding, box_outline(box, result.geometry), source, identity)
                for number, box in enumerate(finding.boxes, 1)
            ]
    return _document(groups, source, identity)


def make_refusal(refusal: NotAnalysed, source: Source, identity: Identity) -> Dataset:
    """Make the report of a film that was not analysed: a result of its own, never "no finding"."""
    evaluations = [
        _evaluation(own.SUMMARY, own.NOT_SUCCEEDED),
        _evaluation(own.REASON, Term(refusal.reason, own.PRIVATE, refusal.reason)),
    ]
    words = [f"Not analysed: {refusal.message}"]
    group = _group(_FILM, own.FILM.concept(), source, identity, [], evaluations, words)
    return _document([group], source, identity)


def _film_group(result: Result, source: Source, identity: Identity) -> Any:
    outcome = own.WITH_FINDINGS if result.positive else own.WITHOUT_FINDINGS
    measured = []
    if result.gate:
        measured.append(_number(own.PROBABILITY, result.gate.score))
        if result.gate.threshold is not None:
            measured.append(_number(own.THRESHOLD, result.gate.threshold))
    point = result.operating_point
    if point.normals_flagged is not None:
        measured.append(_number(own.SPECIFICITY, 1 - point.normals_flagged))
    if (flagged := point.rates.get("abnormal_flagged")) and flagged["value"] is not None:
        measured.append(_number(own.SENSITIVITY, flagged["value"]))
    return _group(
        _FILM, own.FILM.concept(), source, identity, measured, [_evaluation(own.SUMMARY, outcome)], _words(result)
    )


def _words(result: Result) -> Iterable[str]:
    count = len(result.positive)
    yield f"{count} finding{'s' * (count > 1)} above threshold" if count else "No finding above the threshold"
    yield from _describe_point(result.operating_point)
    yield from (f"Note: {code}" for code in result.warnings)
    yield "Research use, not for diagnosis"


def _describe_point(point: OperatingPoint) -> list[str]:
    """Say which profile decided, and what was measured at it, with 95% intervals and counts; a sentence each."""
    words = [f"Profile {point.profile}"] if point.profile else []
    named = {
        "normals_flagged": "normal films with a positive finding",
        "abnormal_flagged": "abnormal films with a positive finding",
    }
    words += [f"{_interval(point.rates[key])} of {name}" for key, name in named.items() if point.rates.get(key)]
    if protocol := point.rates.get("protocol"):
        words.append(f"Measured by {protocol}")
    return words


def _interval(rate: Mapping[str, Any]) -> str:
    if rate["value"] is None:
        return "Unknown share"
    between = f" ({rate['low']:.1%} to {rate['high']:.1%})" if rate.get("low") is not None else ""
    return f"{rate['value']:.1%}{between}, n = {rate['n']},"


def _finding_group(finding: Finding, result: Result, source: Source, identity: Identity) -> Any:
    measured = [
        _number(own.PROBABILITY, finding.score),
        _number(own.THRESHOLD, finding.threshold),
    ]
    for key, term in (("sensitivity", own.SENSITIVITY), ("precision", own.PRECISION)):
        rate = result.operating_point.rates.get(key, {}).get("per_class", {}).get(finding.label, {})
        if rate.get("value") is not None:
            measured.append(_number(term, rate["value"]))
    found = finding_codes(finding.label)
    return _group(
        finding.label,
        found.concept(),
        source,
        identity,
        measured,
        [_evaluation(own.DECISION, _decision(finding, result))],
        [],
        [found.site],
    )


def _decision(finding: Finding, result: Result) -> Term:
    if finding.positive:
        return own.POSITIVE
    if finding.score < finding.threshold:
        return own.BELOW
    return own.GATED if result.gate and not result.gate.positive else own.NO_REGION


def _box_group(number: int, finding: Finding, outline: NDArray[np.float64], source: Source, identity: Identity) -> Any:
    image = SourceImageForRegion.from_source_image(source.header)
    found = finding_codes(finding.label)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding.label, identity, number),
        referenced_region=ImageRegion(GraphicTypeValues.POLYLINE, outline, image),
        finding_type=found.concept(),
        finding_category=own.ABNORMAL.concept(),
        finding_sites=[FindingSite(found.site.concept())],
        algorithm_id=_algorithm(identity),
        measurements=[_number(own.CERTAINTY, finding.boxes[number - 1].score)],
    )


def _group(
    name: str,
    finding: Any,
    source: Source,
    identity: Identity,
    measured: list[Any],
    evaluations: list[Any],
    words: Iterable[str],
    sites: Iterable[Term] = (own.CHEST,),
) -> Any:
    """A group about the whole film (TID 1501)."""
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(name, identity),
        finding_type=finding,
        finding_sites=[FindingSite(site.concept()) for site in sites],
        algorithm_id=_algorithm(identity),
        measurements=measured or None,
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup.from_source_image(source.header)],
    )
    for sentence in words:
        item = TextContentItem(own.COMMENT.concept(), sentence, RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(item)
    return group


def _tracking(name: str, identity: Identity, number: int | None = None) -> TrackingIdentifier:
    of = name if number is None else f"{name} {number}"
    return TrackingIdentifier(uid=identity.uid("tracking", of), identifier=of)


def _number(term: Term, value: float) -> Measurement:
    return Measurement(term.concept(), round(float(value), 6), own.NO_UNITS.concept())


def _evaluation(name: Term, value: Term) -> QualitativeEvaluation:
    return QualitativeEvaluation(name.concept(), value.concept())


def _algorithm(identity: Identity) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=identity.model, version=identity.program, parameters=[f"bundle sha256 {identity.serial}"]
    )


def _document(groups: list[Any], source: Source, identity: Identity) -> Dataset:
    """Make the report of its groups: highdicom copies and searches what it is given, so it is given the first alone."""
    device = DeviceObserverIdentifyingAttributes(
        uid=identity.device,
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=identity.model,
        serial_number=identity.serial,
    )
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        procedure_reported=own.CHEST_RADIOGRAPH.concept(),
        imaging_measurements=groups[:1],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=None,
    )
    document = Comprehensive3DSR(
        evidence=[source.header],
        content=content,
        is_complete=True,
        is_final=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_date=identity.date,
        content_time=identity.time,
        **identity.arguments(),
    )
    measurements = document.ContentSequence[-1].ContentSequence
    for group in groups[1:]:
        measurements.extend(group)
    return document
