"""DICOM files in memory."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset


def encode(dataset: Dataset) -> bytes:
    """Encode a film or an object as a file (PS3.10)."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
