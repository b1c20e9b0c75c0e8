"""The segmentation: the regions of the positive findings on the film's own pixels, one binary segment a finding."""

from __future__ import annotations

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes

from msloc_edge.objects import codes as own
from msloc_edge.objects.codes import finding_codes
from msloc_edge.objects.identity import MANUFACTURER, Identity
from msloc_edge.objects.regions import needed_maps, region_mask
from msloc_edge.objects.source import Source
from msloc_edge.render.colors import palette, rgb
from msloc_edge.result import Result
from msloc_edge.types import Finding


def make(result: Result, source: Source, identity: Identity) -> Dataset:
    """Make the segmentation of a film with a positive finding."""
    maps = needed_maps(result, "seg")
    masks = [
        region_mask(finding, maps[finding.label], result.map_thresholds[finding.label], result.geometry)
        for finding in result.positive
    ]
    colors = palette(finding.label for finding in result.findings)
    made = Segmentation(
        source_images=[source.header],
        pixel_array=np.stack(masks, axis=-1)[None],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, finding, colors[finding.label], identity)
            for number, finding in enumerate(result.positive, 1)
        ],
        content_label="FINDINGS",
        content_description="Regions of the findings",
        omit_empty_frames=False,
        content_date=identity.date,
        content_time=identity.time,
        **identity.arguments(),
    )
    # A spacing without a thickness, as a film has it, is legal, but highdicom would not read it back; what is aligned
    # with its source needs neither (PS3.3 A.51.5).
    shared = made.SharedFunctionalGroupsSequence[0]
    if "SliceThickness" not in shared.get("PixelMeasuresSequence", [{}])[0]:
        shared.pop("PixelMeasuresSequence", None)
    return made


def _describe(number: int, finding: Finding, color: str, identity: Identity) -> SegmentDescription:
    found = finding_codes(finding.label)
    return SegmentDescription(
        segment_number=number,
        segment_label=finding.label.replace("_", " ")[:64],
        segmented_property_category=own.ABNORMAL.concept(),
        segmented_property_type=found.concept(),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=identity.model,
            family=codes.DCM.ArtificialIntelligence,
            version=identity.program,
            source=MANUFACTURER,
        ),
        tracking_uid=identity.uid("tracking", finding.label),
        tracking_id=finding.label[:64],
        anatomic_regions=[found.site.concept()],
        display_color=CIELabColor.from_rgb(*rgb(color)),
    )
