"""The parametric map: M_k itself, in logit units, on the film's own pixels; one frame for each positive finding."""

from __future__ import annotations

import copy

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom import Dataset

from msloc_edge.objects import codes as own
from msloc_edge.objects.identity import Identity
from msloc_edge.objects.regions import map_on_film, needed_maps
from msloc_edge.objects.source import Source
from msloc_edge.result import Result

WINDOW = 4.0
"""Logit units from black, 0, which is no evidence, to white: one scale for every film, never stretched to one."""

_AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
_FRONTAL = ("L", "F")  # how frontal films are stored: rows run to the patient's left, columns to the feet


def make(result: Result, source: Source, identity: Identity) -> Dataset:
    """Make the map of a film with a positive finding."""
    maps = needed_maps(result, "pm")
    enlarged = {label: map_on_film(map, result.geometry) for label, map in maps.items()}
    made = ParametricMap(
        source_images=[_in_own_plane(source, identity)],
        pixel_array=np.stack(list(enlarged.values()), axis=-1)[None],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[[_mapping(label, map)] for label, map in enlarged.items()],
        voi_lut_transformations=[VOILUTTransformation(window_center=WINDOW / 2, window_width=WINDOW)],
        content_label="CLASS_ACTIVATION",
        content_description="Localization maps, logit units",
        content_date=identity.date,
        content_time=identity.time,
        **identity.arguments(),
    )
    measures = Dataset()  # must be there (PS3.3 A.75.4), though a spacing may be unknown, and a thickness always is
    if source.spacing:
        measures.PixelSpacing = list(source.spacing)
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [measures]
    return made


def _in_own_plane(source: Source, identity: Identity) -> Dataset:
    """The film's header with a frame of reference of its own, where it has none.

    A map needs one (PS3.3 A.75.3), CR and DX have none. Map and film are aligned by their equal rows and columns.
    """
    header = copy.deepcopy(source.header)
    if "ImagePositionPatient" in header and "FrameOfReferenceUID" in header:
        return header
    towards = tuple(str(axis)[:1] for axis in header.get("PatientOrientation") or ())
    if len(towards) != 2 or not set(towards) <= _AXES.keys() or towards[0] == towards[1]:
        towards = _FRONTAL
    header.FrameOfReferenceUID = identity.uid("plane")
    header.PositionReferenceIndicator = ""
    header.ImagePositionPatient = [0, 0, 0]
    header.ImageOrientationPatient = [*_AXES[towards[0]], *_AXES[towards[1]]]
    header.PixelSpacing, header.SliceThickness = list(source.spacing or (1, 1)), 1  # what highdicom asks for
    return header


def _mapping(label: str, map: NDArray[np.float32]) -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label=label[:16],
        lut_explanation=f"{label[:40]}, logit units",
        unit=own.NO_UNITS.concept(),
        value_range=(float(map.min()), float(map.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=own.CLASS_ACTIVATION.concept(),
    )
