"""Phantoms as files: a 16-bit PNG of what is shown, a DICOM file of what is stored."""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import cv2
import numpy as np

from msloc_edge.train.phantom.film import Phantom

BITS = 12
"""What a phantom's stored values have."""


def write_png(phantom: Phantom, path: str | Path, bits: int = 16) -> None:
    """Write display() as a grey PNG of 16 or 8 bits, over their full range. OSError if it cannot be written."""
    image = np.round(phantom.display() * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise OSError(f"{path}: the film could not be encoded as PNG")
    Path(path).write_bytes(data.tobytes())


def write_dicom(phantom: Phantom, path: str | Path, bits: int = 12) -> None:
    """Write the stored values as a DX file: 10 to 16 `bits`, Explicit VR Little Endian, synthetic identity.

    A phantom has 12 bits; other depths have their highest. UIDs, names and dates follow from the seed alone.
    ModuleNotFoundError where pydicom is not installed.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    height, width = phantom.stored.shape
    inverse = phantom.photometric == "MONOCHROME1"
    findings = "".join(str(int(present)) for present in phantom.label_vector())
    study = f"{phantom.seed}"
    series = f"{study}/{phantom.view}/{findings}"
    instance = f"{series}/{height}x{width}/{phantom.photometric}"

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(_uid(instance))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_uid("implementation"))

    anatomy, view = Dataset(), Dataset()
    anatomy.CodeValue, anatomy.CodingSchemeDesignator, anatomy.CodeMeaning = "816094009", "SCT", "Chest"
    pa = phantom.view == "PA"
    view.CodeValue, view.CodingSchemeDesignator = ("272479007" if pa else "399348003"), "SCT"
    view.CodeMeaning = "postero-anterior" if pa else "antero-posterior"

    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(study), _uid(series)
    ds.Modality, ds.PresentationIntentType, ds.ImageType = "DX", "FOR PRESENTATION", ["ORIGINAL", "PRIMARY", ""]
    ds.Manufacturer, ds.ManufacturerModelName = "msloc-edge", "digital chest phantom"
    ds.PatientName, ds.PatientID = f"Phantom^Seed{phantom.seed}", f"PHANTOM{phantom.seed}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientIdentityRemoved = "", "O", "YES"
    ds.DeidentificationMethod = "synthetic image, no patient"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = "20000101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "000000"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID = "", "", str(phantom.seed)[:16]
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.BodyPartExamined, ds.ViewPosition, ds.ImageLaterality = "CHEST", phantom.view, "U"
    ds.PatientOrientation = ["L", "F"]
    ds.AnatomicRegionSequence, ds.ViewCodeSequence = Sequence([anatomy]), Sequence([view])
    ds.AcquisitionContextSequence = Sequence([])
    ds.DetectorType, ds.PositionerType, ds.BurnedInAnnotation = "DIRECT", "NONE", "NO"
    ds.LossyImageCompression, ds.PresentationLUTShape = "00", "INVERSE" if inverse else "IDENTITY"
    spacing = f"{phantom.pixel_spacing_mm:.6f}"
    ds.ImagerPixelSpacing = [spacing, spacing]
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1 if inverse else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    scale = 2.0 ** (bits - BITS)
    ds.WindowCenter, ds.WindowWidth = (f"{value * scale:.1f}" for value in phantom.window)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, phantom.photometric
    ds.Rows, ds.Columns = height, width
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, 0
    ds.PixelData = (phantom.stored * scale).astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)


def _uid(name: str) -> str:
    """A UID that follows from a name: a UUID as a decimal number under 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid5(NAMESPACE_URL, 'msloc-edge/phantom/' + name).int}"
