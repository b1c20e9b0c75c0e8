"""Names, dates and origin of an object: all derived, so that the same result gives the same file.

SOP Instance UIDs come from the object's own content, all others from what the result came from: the film, the bundle,
the profile and the program. UIDs are of the form 2.25.N (PS3.5 B.2), N a name-based UUID (RFC 9562, version 5).
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

import pydicom
from pydicom import Dataset

from msloc_edge.objects.codes import coding_schemes
from msloc_edge.objects.encoding import encode
from msloc_edge.objects.outcome import NotAnalysed
from msloc_edge.objects.source import Source
from msloc_edge.result import Result

MANUFACTURER = "msloc-edge"
_SERIES = {
    "sr": (9901, "Findings (research use)"),
    "seg": (9902, "Regions (research use)"),
    "pm": (9903, "Localization maps (research use)"),
    "gsps": (9904, "Findings on the film (research use)"),
    "sc": (9905, "Overlay (research use)"),
}
"""Kind -> number and description of its series; high numbers come after those of the film's own study."""

_CLOCKS = ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture")
_DIMENSIONS = ("DimensionOrganizationSequence", "DimensionIndexSequence")
_NAMELESS = "2.25.0"


@dataclass(frozen=True, slots=True)
class Identity:
    """Origin of an object: what highdicom's constructors ask for, beside content.

    seed        all that other UIDs than the object's own are derived from
    model       name and version of the bundle
    serial      its hash
    date, time  of the content, as DICOM writes them
    """

    seed: str
    kind: str
    model: str
    serial: str
    program: str
    date: str
    time: str

    @classmethod
    def of(cls, result: Result | NotAnalysed, source: Source, kind: str) -> Identity:
        """Derive it from a result and its film; dates are the film's, or the result's where the film has none."""
        date, time = source.date, source.time
        if not date:
            made = datetime.fromisoformat(result.time)
            date, time = f"{made:%Y%m%d}", f"{made:%H%M%S}"
        model = result.model
        seed = "\n".join((*source.uids, model.sha256, result.operating_point.profile, result.program))
        return cls(seed, kind, f"{model.name} {model.version}"[:64], model.sha256, result.program[:64], date, time)

    def uid(self, *parts: object) -> str:
        """Derive a UID for a part of this film's results, the same at every run."""
        return derived_uid(self.seed, *parts)

    @property
    def device(self) -> str:
        """UID of the observer: the bundle."""
        return derived_uid("bundle", self.serial)

    def arguments(self) -> dict[str, Any]:
        """Arguments that all of highdicom's constructors take."""
        number, description = _SERIES[self.kind]
        return {
            "series_instance_uid": self.uid("series", self.kind),
            "series_number": number,
            "sop_instance_uid": _NAMELESS,
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.model,
            "software_versions": self.program,
            "device_serial_number": self.serial,
            "series_description": description,
            "series_date": self.date,
            "series_time": self.time,
            "coding_schemes": coding_schemes(),
        }


def derived_uid(*parts: object) -> str:
    """Derive a UID from parts: the same parts, the same UID."""
    name = "\n".join(map(str, parts))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def name_by_content(made: Dataset, source: Source, identity: Identity) -> Dataset:
    """Complete an object, take what is random and what a clock said out of it, then name it by its bytes.

    returns  the object as it reads from those bytes, which are written again as they are: encoding takes long
    """
    for keyword in _CLOCKS:
        made.pop(keyword, None)
    if "PresentationCreationDate" in made:
        made.PresentationCreationDate, made.PresentationCreationTime = identity.date, identity.time
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.pop("ContributionDateTime", None)
    if made.Modality != "SR":  # a report has no Image or General Series module
        made.BodyPartExamined = source.header.get("BodyPartExamined") or "CHEST"
    if "Rows" in made and "PatientOrientation" not in made:
        made.PatientOrientation = source.header.get("PatientOrientation")
    for sequence in _DIMENSIONS:
        for item in made.get(sequence, ()):
            item.DimensionOrganizationUID = identity.uid("dimensions", identity.kind)
    encoded = encode(made)
    named = pydicom.dcmread(BytesIO(encoded))
    named.SOPInstanceUID = derived_uid(hashlib.sha256(encoded).hexdigest())
    named.file_meta.MediaStorageSOPInstanceUID = named.SOPInstanceUID
    return named
