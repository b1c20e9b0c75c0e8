"""A film of a digital patient, with what is on it: generate(), Phantom, Region."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.phantom import findings as pathology
from msloc_edge.train.phantom import projection
from msloc_edge.train.phantom.anatomy import build
from msloc_edge.train.phantom.devices import add_collimation, add_devices
from msloc_edge.train.phantom.findings import FINDINGS, Mask
from msloc_edge.train.phantom.grid import F32, Grid
from msloc_edge.train.phantom.patient import Patient, draw_patient

PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
VIEWS = ("PA", "AP")
WORK_SIDE = 1024  # anatomy is computed on at most this many pixels a side: it has no finer detail
MIN_SIDE, MAX_SIDE = 64, 8192
NORMAL_SHARE = 0.3  # of films without findings, when findings are drawn
COUNT_SHARES = (0.35, 0.35, 0.30)  # of the others, with 1, 2, 3 findings


@dataclass(frozen=True, slots=True)
class Region:
    """One place of one finding: box (x, y, width, height) in pixels, top-left origin, pixel i covering [i, i+1).

    The box is tight around `mask` [H, W].
    """

    label: str
    box: tuple[float, float, float, float]
    mask: Mask


@dataclass(frozen=True, slots=True)
class Phantom:
    """A film: `stored` [H, W] 12-bit values as in a DICOM file, and its exact ground truth.

    window: DICOM center and width on the stored values, applied before a MONOCHROME1 film is inverted.
    """

    seed: int
    stored: NDArray[np.uint16]
    photometric: str
    window: tuple[float, float]
    view: str
    pixel_spacing_mm: float
    regions: tuple[Region, ...]

    @property
    def labels(self) -> frozenset[str]:
        """The findings on the film."""
        return frozenset(region.label for region in self.regions)

    def display(self) -> F32:
        """The film as shown, [H, W] in [0, 1], bright = dense (DICOM PS3.3 C.11.2.1.2.1, linear)."""
        center, width = self.window
        shown = (self.stored.astype(np.float32) - np.float32(center - 0.5)) / np.float32(width - 1) + np.float32(0.5)
        shown = np.clip(shown, 0, 1)
        return np.asarray(1 - shown if self.photometric == "MONOCHROME1" else shown)

    def label_vector(self) -> F32:
        """1 for each finding present, [8] in the order of FINDINGS."""
        return np.array([name in self.labels for name in FINDINGS], np.float32)


def generate(
    seed: int,
    size: int | tuple[int, int] = 512,
    findings: Iterable[str] | None = None,
    photometric: str = "MONOCHROME2",
    view: str | None = None,
) -> Phantom:
    """The film of patient `seed`: the same seed gives the same patient at every size.

    size: one side of a square film or (height, width), pixels. findings: names of FINDINGS, () for a normal
    film, None to draw them from the seed. view: "PA", "AP", or None to draw it. ValueError for anything else.
    """
    height, width = _check_size(size)
    if seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed}")
    _check_choice("photometric", photometric, PHOTOMETRIC)
    if view is not None:
        _check_choice("view", view, VIEWS)
    names = draw_findings(stream(seed, 1)) if findings is None else frozenset(findings)
    for name in names:
        _check_choice("findings", name, FINDINGS)

    patient = draw_patient(stream(seed, 0), view)
    sides = pathology.sides(names, stream(seed, 2))
    patient = pathology.prepare(patient, names, {label: s[0] for label, s in sides.items()})
    pitch = max(patient.film_width / width, 31.0 / height)  # cm; a wide film still shows the lungs' height
    shrink = max(1.0, max(height, width) / WORK_SIDE)
    work = (round(height / shrink), round(width / shrink))
    grid = Grid.centred(*work, pitch * shrink, patient.film_shift[1])
    maps = build(grid, patient, stream(seed, 3))
    masks: list[tuple[str, Mask]] = []
    for label in pathology.ORDER:
        for k, side in enumerate(sides.get(label, ())):
            taken = [mask for _, mask in masks]
            new = pathology.apply(maps, label, side, taken, stream(seed, 10 + FINDINGS.index(label), k))
            masks += [(label, mask) for mask in new]

    integral = projection.line_integral(maps.soft + maps.vessels, maps.lung, maps.bone, projection.ENERGY[patient.view])
    add_devices(grid, patient, integral, stream(seed, 4))
    turn = _film_transform(patient, grid)
    integral = _warp(integral, turn)
    primary = projection.transmit(integral)
    rng = stream(seed, 5)
    strength = float(rng.uniform(0.18, 0.30)) * (1.3 if patient.view == "AP" else 1.0)
    signal = primary + projection.scatter(grid, primary, strength)
    signal = grid.blur(signal, 0.03)  # detector and focus
    if shrink > 1:
        signal = np.asarray(cv2.resize(signal, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
        grid = Grid.centred(height, width, pitch, patient.film_shift[1])
    dose = 10.0 ** float(rng.uniform(7.2, 8.2)) * (0.6 if patient.view == "AP" else 1.0)  # quanta per cm^2, no patient
    signal = projection.detect(np.maximum(signal, 1e-4), dose * pitch * pitch, rng)
    values, window = projection.present(grid, signal, rng)
    add_collimation(grid, values, stream(seed, 6))
    stored = np.round(values).astype(np.uint16)
    if photometric == "MONOCHROME1":
        stored = (projection.MAX_STORED - stored).astype(np.uint16)
        window = (projection.MAX_STORED + 1 - window[0], window[1])
    regions = tuple(
        _region(label, _warp(mask.astype(np.uint8) * np.uint8(255), turn, (height, width)) > 127)
        for label, mask in masks
    )
    return Phantom(seed, stored, photometric, window, patient.view, pitch * 10, regions)


def stream(*key: int) -> np.random.Generator:
    """An independent stream per purpose, so that adding a finding does not change the patient."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def draw_findings(rng: np.random.Generator) -> frozenset[str]:
    """The findings of a film that were left to the seed: none on NORMAL_SHARE of films, else one to three."""
    if rng.random() < NORMAL_SHARE:
        return frozenset()
    count = int(rng.choice([1, 2, 3], p=COUNT_SHARES))
    return frozenset(str(name) for name in rng.choice(FINDINGS, count, replace=False))


def _film_transform(patient: Patient, grid: Grid) -> NDArray[np.float64]:
    height, width = grid.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), np.rad2deg(patient.roll), 1.0)
    turn[0, 2] += patient.film_shift[0] / grid.pitch
    return np.asarray(turn)


def _warp(
    image: NDArray[np.float32] | NDArray[np.uint8], turn: NDArray[np.float64], size: tuple[int, int] | None = None
) -> F32:
    height, width = image.shape
    warped = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if size is not None and size != (height, width):
        warped = cv2.resize(warped, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(warped)


def _region(label: str, mask: Mask) -> Region:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        raise RuntimeError(f"the phantom's {label} left no pixel on the film; expected a visible region")
    x, y = float(columns[0]), float(rows[0])
    return Region(label, (x, y, float(columns[-1]) + 1 - x, float(rows[-1]) + 1 - y), mask)


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what}: expected one of {', '.join(known)}, got {value!r}")


def _check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise ValueError(f"size: expected sides of {MIN_SIDE} to {MAX_SIDE} pixels, got {height} x {width}")
    return height, width
