"""The presentation state: contours, boxes and labels that a viewer draws over the film, one layer a finding."""

from __future__ import annotations

import numpy as np
from highdicom.color import CIELabColor
from highdicom.content import PresentationLUTTransformation
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom import Dataset

from msloc_edge.objects.identity import Identity
from msloc_edge.objects.regions import box_outline, contours
from msloc_edge.objects.source import Source, refused
from msloc_edge.render.colors import palette, rgb
from msloc_edge.result import Result
from msloc_edge.types import Box, Finding

PIXEL = AnnotationUnitsValues.PIXEL
NOTE = "msloc-edge: research use, not for diagnosis"


def make(result: Result, source: Source, identity: Identity) -> Dataset:
    """Make the presentation state of a film with a positive finding."""
    if not source.header.file_meta.TransferSyntaxUID.is_little_endian and "VOILUTSequence" in source.header:
        raise refused("gsps: expected the film's table in little endian, got big endian; convert the film first.")
    colors = palette(finding.label for finding in result.findings)
    layers = [
        GraphicLayer(
            f"FINDING_{number}",
            number,
            finding.label.replace("_", " ")[:64],
            CIELabColor.from_rgb(*rgb(colors[finding.label])),
        )
        for number, finding in enumerate(result.positive, 1)
    ]
    annotations = [
        _annotation(finding, number, layer, result, source, identity)
        for number, (finding, layer) in enumerate(zip(result.positive, layers, strict=True), 1)
    ]
    layers.append(GraphicLayer("NOTE", len(layers) + 1, "Intended use"))
    annotations.append(GraphicAnnotation([source.header], layers[-1], text_objects=[_note(source)]))
    inverted = source.header.get("PhotometricInterpretation") == "MONOCHROME1"
    return GrayscaleSoftcopyPresentationState(
        referenced_images=[source.header],
        content_label="FINDINGS",
        content_description="Findings on the film",
        graphic_layers=layers,
        graphic_annotations=annotations,
        voi_lut_transformations=_window(result, source),
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if inverted else "IDENTITY"
        ),
        **identity.arguments(),
    )


def _window(result: Result, source: Source) -> list[SoftcopyVOILUTTransformation] | None:
    """The values that occur, as the window of a film that has none; None where the film has its own."""
    header = source.header
    if "no_window" not in result.warnings or result.film is None:
        return None
    if "ModalityLUTSequence" in header or header.get("PixelRepresentation"):
        return None
    pixels = np.asarray(result.film.pixels)
    values = pixels[pixels != header.get("PixelPaddingValue", -1)]
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    low, high = sorted(slope * float(value) + intercept for value in (values.min(), values.max()))
    width = high - low + 1  # PS3.3 C.11.2.1.2.1: LINEAR is black at centre - 0.5 - (width - 1) / 2
    return [SoftcopyVOILUTTransformation(window_center=low + width / 2, window_width=width)]


def _annotation(
    finding: Finding, number: int, layer: GraphicLayer, result: Result, source: Source, identity: Identity
) -> GraphicAnnotation:
    lines = [box_outline(box, result.geometry) for box in finding.boxes]
    if finding.label in result.maps and finding.label in result.map_thresholds:
        lines += contours(finding, result.maps[finding.label], result.map_thresholds[finding.label], result.geometry)
    name, uid = finding.label[:64], identity.uid("tracking", finding.label)
    label = f"{number} {finding.label.replace('_', ' ')} {finding.score:.2f}"
    return GraphicAnnotation(
        [source.header],
        layer,
        graphic_objects=[
            GraphicObject(GraphicTypeValues.POLYLINE, line, PIXEL, tracking_id=name, tracking_uid=uid) for line in lines
        ],
        text_objects=[
            TextObject(label, PIXEL, _above(box, source), text_justification="LEFT", tracking_id=name, tracking_uid=uid)
            for box in finding.boxes
        ],
    )


def _above(box: Box, source: Source) -> tuple[float, float, float, float]:
    """Where a box's label goes, left, top, right, bottom: above it, or inside where there is no room."""
    width, height = source.size
    line, length = height / 40, width / 3
    left = min(box.x, width - length)
    top = box.y - line if box.y >= line else box.y
    return left, top, left + length, top + line


def _note(source: Source) -> TextObject:
    width, height = source.size
    return TextObject(NOTE, PIXEL, (0.0, 0.0, width / 2, height / 40), text_justification="LEFT")
