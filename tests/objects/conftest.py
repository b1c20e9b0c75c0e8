"""Films as CR and DX devices store them, made of phantoms; their results; and the tools that judge the objects."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.reading import decode_frame, read_frame
from msloc_edge.maps.boxes import find_boxes
from msloc_edge.result import Result
from msloc_edge.types import FilmGate, Finding, ModelId, OperatingPoint, Peak

CR = "1.2.840.10008.5.1.4.1.1.1"
_ONLY_DX = (
    *("PresentationIntentType", "ImagerPixelSpacing", "AnatomicRegionSequence", "ViewCodeSequence", "ImageLaterality"),
    *("AcquisitionContextSequence", "DetectorType", "PositionerType", "PixelIntensityRelationship"),
    *("PixelIntensityRelationshipSign", "PresentationLUTShape"),
)
THRESHOLD = 1.0
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "JD-17", "PatientBirthDate": "19500102", "PatientSex": "F"}


@pytest.fixture(scope="session")
def dx(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A DX film of a phantom with findings; copy before changing it."""
    from msloc_edge.train.phantom import generate, write_dicom

    path = tmp_path_factory.mktemp("dx") / "film.dcm"
    write_dicom(generate(51, (120, 96)), path)
    ds = pydicom.dcmread(path)
    for keyword, value in PATIENT.items():
        setattr(ds, keyword, value)
    del ds.PatientIdentityRemoved, ds.DeidentificationMethod
    return ds


@pytest.fixture(scope="session")
def make_film(dx: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes films: make_film("CR" or "DX", PixelSpacing=None, ...) sets elements, None removes one."""

    def make(kind: str = "DX", **elements: Any) -> Path:
        ds = copy.deepcopy(dx)
        if kind == "CR":
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CR
            ds.Modality, ds.PixelSpacing = "CR", [2.8, 2.8]
            for keyword in _ONLY_DX:
                delattr(ds, keyword)
        for keyword, value in elements.items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)
        path = tmp_path_factory.mktemp("film") / "film.dcm"
        ds.save_as(path, enforce_file_format=True)
        return path

    return make


@pytest.fixture(scope="session")
def film(make_film: Callable[..., Path]) -> Path:
    return make_film()


@pytest.fixture(scope="session")
def localize() -> Callable[[Path | bytes], Result]:
    """Gives a film's result with two findings of known maps: one hill each, and a low third class without a region."""
    return _localize


@pytest.fixture(scope="session")
def result(film: Path) -> Result:
    return _localize(film)


def _localize(film: Path | bytes) -> Result:
    frame = decode_frame(film, "-") if isinstance(film, bytes) else read_frame(film)
    height, width = frame.pixels.shape
    geometry = Geometry.fit((height, width), (64, 64))
    maps = {"Effusion": _hills(geometry, (0.3, 0.4)), "Pleural_Thickening": _hills(geometry, (0.7, 0.25), (0.6, 0.8))}
    findings = [_finding(label, map, 0.9 - 0.2 * k, geometry) for k, (label, map) in enumerate(maps.items())]
    findings.append(Finding("Mass", 0.1, 0.4, False, (1.0,)))
    return Result(
        input=frame.name,
        sha256=frame.sha256,
        model=ModelId("tiny", "1.2", "ab" * 32),
        backend="onnxruntime",
        geometry=geometry,
        findings=tuple(findings),
        warnings=frame.warnings,
        maps=maps,
        map_thresholds=dict.fromkeys(("Effusion", "Pleural_Thickening", "Mass"), THRESHOLD),
        film=frame,
        gate=FilmGate(0.8, 0.6),
        operating_point=OperatingPoint("normal-90", 0.1),
        time="2026-01-02T03:04:05+00:00",
        uids=frame.uids,
    )


def _hills(geometry: Geometry, *tops: tuple[float, float]) -> NDArray[np.float32]:
    """A map of the film's area: -1, with a hill of height 3 at each place, given as shares of width and height."""
    y, x = np.mgrid[: geometry.height, : geometry.width] + 0.5
    hills = [np.exp(-((x / geometry.width - u) ** 2 + (y / geometry.height - v) ** 2) / 0.02) for u, v in tops]
    return (4 * np.max(hills, axis=0) - 1).astype(np.float32)


def _finding(label: str, map: NDArray[np.float32], score: float, geometry: Geometry) -> Finding:
    boxes = find_boxes(map, THRESHOLD, score, geometry, label)
    row, column = np.unravel_index(map.argmax(), map.shape)
    x, y = geometry.to_image(float(column) + geometry.left + 0.5, float(row) + geometry.top + 0.5)
    return Finding(label, score, 0.4, True, (1.0,), Peak(x, y, float(map.max())), boxes)


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], list[str]]:
    """Judges a file by the IODs of PS3.3: gives the errors."""
    tool = _tool("dciodvfy", "dicom3tools")

    def judge(path: Path) -> list[str]:
        found = subprocess.run([tool, path], capture_output=True, text=True, check=False)
        return [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]

    return judge


@pytest.fixture(scope="session")
def dcmtk() -> Callable[..., str]:
    """Runs a tool of DCMTK that must succeed: dcmtk("dsrdump", path) -> what it says."""

    def run(name: str, *arguments: object) -> str:
        command = [_tool(name, "dcmtk"), *map(str, arguments)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return found.stdout + found.stderr

    return run


def _tool(name: str, package: str) -> str:
    if (tool := shutil.which(name)) is None:
        pytest.skip(f"no {name}: it is in the Debian package {package}")
    return tool
