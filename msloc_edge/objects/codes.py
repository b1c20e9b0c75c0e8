"""Codes of the findings and of what is said about them: the one table.

Sources of a code, in `checked`:
    CID n     in that context group of DICOM PS3.16, as pydicom's dictionaries carry it
    DCM       in DICOM's own terminology, PS3.16 annex D
    public    in independent public mappings (OMOP, HL7 FHIR guides); SNOMED CT itself was not at hand
    RadLex    RadLex 4.3, as public mappings that were checked against it give it
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import CodedConcept

PRIVATE = "99MSLOC"
"""Coding scheme of what no public one names; 99 marks it as private (PS3.16 8.2)."""

MAX_MEANING = 64
"""Largest length of a code's meaning, characters (VR LO)."""


class Term(NamedTuple):
    """A code: its value, the scheme that defines it, and what it means in words."""

    value: str
    scheme: str
    meaning: str

    def concept(self, *equivalents: Term) -> CodedConcept:
        """Make highdicom's form of it; `equivalents` name the same in other schemes."""
        from highdicom.sr import CodedConcept

        concept = CodedConcept(self.value, self.scheme, self.meaning)
        if equivalents:
            concept.EquivalentCodeSequence = [term.concept() for term in equivalents]
        return concept


class FindingCodes(NamedTuple):
    """Codes of a finding: its type, the same in RadLex, where it is, and how the type was checked."""

    type: Term
    radlex: Term | None
    site: Term
    checked: str

    def concept(self) -> CodedConcept:
        """Make highdicom's form of the finding's type."""
        return self.type.concept(*([self.radlex] if self.radlex else []))


LUNG, HEART, PLEURA, CHEST = (
    Term("39607008", "SCT", "Lung"),
    Term("80891009", "SCT", "Heart"),
    Term("3120008", "SCT", "Pleura"),
    Term("816094009", "SCT", "Thorax"),
)


def _radlex(value: str, meaning: str) -> Term:
    return Term(value, "RADLEX", meaning)


def _sct(value: str, meaning: str) -> Term:
    return Term(value, "SCT", meaning)


FINDINGS = {
    "Atelectasis": FindingCodes(_sct("46621007", "Atelectasis"), _radlex("RID28493", "atelectasis"), LUNG, "public"),
    "Cardiomegaly": FindingCodes(_sct("8186001", "Cardiomegaly"), None, HEART, "public"),
    "Effusion": FindingCodes(
        _sct("60046008", "Pleural effusion"), _radlex("RID34539", "pleural effusion"), PLEURA, "CID 645"
    ),
    "Infiltration": FindingCodes(Term("112121", "DCM", "Infiltrate"), None, LUNG, "CID 6104"),
    "Mass": FindingCodes(_sct("4147007", "Mass"), _radlex("RID39056", "lung mass"), LUNG, "CID 6104"),
    "Nodule": FindingCodes(_sct("27925004", "Nodule"), _radlex("RID50149", "pulmonary nodule"), LUNG, "CID 6104"),
    "Pneumonia": FindingCodes(_sct("233604007", "Pneumonia"), _radlex("RID5350", "pneumonia"), LUNG, "public"),
    "Pneumothorax": FindingCodes(
        _sct("36118008", "Pneumothorax"), _radlex("RID5352", "pneumothorax"), PLEURA, "CID 6105"
    ),
    "Consolidation": FindingCodes(
        _sct("95436008", "Lung consolidation"), _radlex("RID43255", "consolidation"), LUNG, "public"
    ),
    "Edema": FindingCodes(_sct("19242006", "Pulmonary edema"), _radlex("RID4866", "pulmonary edema"), LUNG, "CID 3700"),
    "Emphysema": FindingCodes(_sct("87433001", "Pulmonary emphysema"), _radlex("RID4799", "emphysema"), LUNG, "public"),
    "Fibrosis": FindingCodes(_sct("51615001", "Pulmonary fibrosis"), None, LUNG, "public"),
    "Pleural_Thickening": FindingCodes(Term("pleural-thick", PRIVATE, "Pleural thickening"), None, PLEURA, "private"),
    "Hernia": FindingCodes(_sct("39839004", "Diaphragmatic hernia"), None, CHEST, "public"),
}
"""Class of NIH ChestX-ray14 -> its codes. RadLex 4.3 has no cardiomegaly; pleural thickening was found in neither."""

ABNORMAL = Term("49755003", "SCT", "Morphologically Abnormal Structure")
CHEST_RADIOGRAPH = Term("399208008", "SCT", "Plain chest X-ray")

PROBABILITY = Term("122157", "DCM", "Probability")
CERTAINTY = Term("111012", "DCM", "Certainty of Finding")
THRESHOLD = Term("122411", "DCM", "Threshold Value")
SENSITIVITY = Term("111088", "DCM", "Case Sensitivity")
SPECIFICITY = Term("111090", "DCM", "Case Specificity")
PRECISION = Term("precision", PRIVATE, "Positive predictive value")
NO_UNITS = Term("1", "UCUM", "no units")

SUMMARY = Term("111064", "DCM", "Summary of Detections")
WITH_FINDINGS = Term("111242", "DCM", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = Term("111241", "DCM", "All algorithms succeeded; without findings")
NOT_SUCCEEDED = Term("111245", "DCM", "No algorithms succeeded; without findings")
FILM = Term("film", PRIVATE, "Film as a whole")

DECISION = Term("decision", PRIVATE, "Decision at the operating point")
POSITIVE = Term("positive", PRIVATE, "Positive: above the threshold, with a region")
BELOW = Term("below", PRIVATE, "Not positive: below the threshold")
NO_REGION = Term("no-region", PRIVATE, "Not positive: no region in its map")
GATED = Term("gated", PRIVATE, "Not positive: film below the film threshold")
REASON = Term("reason", PRIVATE, "Reason why the film was not analysed")

COMMENT = Term("121106", "DCM", "Comment")
CLASS_ACTIVATION = Term("130402", "DCM", "Class activation")


def finding_codes(label: str) -> FindingCodes:
    """Give the codes of a class; one that is not in the table gets a private code, the same for the same name.

    >>> finding_codes("Edema").type.meaning
    'Pulmonary edema'
    >>> finding_codes("Rib_Fracture").type
    Term(value='class-1ab2eb2500', scheme='99MSLOC', meaning='Rib Fracture')
    """
    if label in FINDINGS:
        return FINDINGS[label]
    value = f"class-{hashlib.sha256(label.encode()).hexdigest()[:10]}"  # at most 16 characters of ASCII (VR SH)
    meaning = label.replace("_", " ").replace("\\", "/")[:MAX_MEANING]
    return FindingCodes(Term(value, PRIVATE, meaning), None, CHEST, "private")


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """Identify the schemes that the standard does not define (PS3.3 C.12.1.1, Coding Scheme Identification)."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return [CodingSchemeIdentificationItem(PRIVATE, name="msloc-edge: classes and decisions of a model")]
