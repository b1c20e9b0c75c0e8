"""DICOM files to `Frame`: the header, the stored pixels, and the display transform as one table (docs/dicom.md)."""

from __future__ import annotations

from pydicom.uid import UID

from msloc_edge.errors import InputError
from msloc_edge.imaging.dicom.display import display_table
from msloc_edge.imaging.dicom.header import Header, read_header
from msloc_edge.imaging.dicom.pixels import TRANSFER_SYNTAXES, stored_pixels
from msloc_edge.types import Frame

__all__ = ["TRANSFER_SYNTAXES", "decode_dicom"]

_PROJECTIONS = ("CR", "DX", "RG")
_CHEST = ("CHEST", "THORA", "TORAX", "LUNG", "CXR")
_NOT_FRONTAL = ("LL", "RL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO")
_FOR_PROCESSING = UID("1.2.840.10008.5.1.4.1.1.1.1.1")


def decode_dicom(data: bytes, name: str, frame: int | None = None) -> Frame:
    """Decode the bytes of a DICOM file -> Frame, without its hash.

    Raises InputError; docs/errors.md lists the reasons.
    """
    part = "header"
    try:
        header = read_header(data, name)
        _check_kind(header)
        part = "pixels"
        pixels, bits = stored_pixels(header, frame)
        part = "display transform"
        lut = display_table(header, pixels, bits)
    except InputError:
        raise
    except Exception:  # a damaged element can fail anywhere in pydicom, whose words may hold names: they stay here
        raise InputError(
            "corrupt", f"{name}: expected DICOM, but its {part} cannot be read; export the film again."
        ) from None
    return Frame(pixels, lut, name, warnings=tuple(dict.fromkeys(header.codes)), uids=header.uids)


def _check_kind(header: Header) -> None:
    """Refuse what is no projection radiograph; note what is no frontal chest film meant for display."""
    sop, modality = header.uid("SOPClassUID"), header.text("Modality")
    known = sop.name != sop
    if known and "Image" not in sop.name:
        raise _wrong_modality(header, f"'{sop.name}'")
    if modality in ("", "OT"):
        header.warn("modality_missing")
    elif modality not in _PROJECTIONS:
        raise _wrong_modality(header, f"modality {header.quoted('Modality')}")
    if header.text("PresentationIntentType") == "FOR PROCESSING" or sop == _FOR_PROCESSING:
        header.warn("for_processing")
    view, part = header.text("ViewPosition"), header.text("BodyPartExamined")
    if view in _NOT_FRONTAL or "LAT" in view or "OBL" in view:
        header.warn("not_frontal")
    if part and not any(chest in part for chest in _CHEST):
        header.warn("not_chest")


def _wrong_modality(header: Header, got: str) -> InputError:
    return header.error("wrong_modality", "a projection radiograph (CR, DX, RG)", got, "send the chest film itself")
