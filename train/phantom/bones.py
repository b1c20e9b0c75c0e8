"""Bone thickness (cm of cortical bone): spine, ribs, clavicles, scapulae, humeral heads."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.phantom.grid import F32, U8, Grid, ribbon
from msloc_edge.train.phantom.patient import SIDES, Patient

FULL = 1.0  # cm of bone that a canvas value of 255 stands for


def bones(grid: Grid, patient: Patient) -> F32:
    """Bone thickness map [H, W] in cm."""
    back, front, girdle = (np.zeros(grid.shape, np.uint8) for _ in range(3))
    lines = rib_lines(patient)
    half = np.full((len(lines), 1), patient.rib_width)
    half[:: patient.rib_count] *= 0.8  # the first rib is slender
    taper = np.linspace(0, 0.25, 23) * half
    # A marrow tube has a thicker wall along its edges: draw it whole, then its paler core.
    for canvas, part, wide, values in (
        (back, lines[:, :23], half - taper, (120, 78)),
        (front, lines[:, 20:], 1.25 * half, (86, 54)),
    ):
        for inset, value in zip((0.0, 0.17), values, strict=True):
            for outline in ribbon(part, wide - inset):
                grid.fill(canvas, outline, value)
    for side in SIDES:
        _shoulder(grid, patient, side, girdle)
    total = cv2.add(cv2.add(back, front), girdle).astype(np.float32)
    total = grid.blur(total * np.float32(FULL / 255), 0.09)
    _spine(grid, patient, total)
    return total


def rib_lines(patient: Patient) -> NDArray[np.float64]:
    """The axes of all ribs [2 * count, 40, 2] as (x, y) in cm, each from the spine round to the cartilage in front.

    A rib is a half ellipse about the chest in a plane that tilts down to the front; seen from the front it
    runs flat beside the spine, turns down at the side and comes back below itself.
    """
    number = np.arange(patient.rib_count)[:, None]
    start = patient.apex + patient.rib_shift + 0.3 + number * (1.75 + 0.065 * number)
    drop = patient.rib_tilt * np.minimum(3.0 + 1.35 * number, 9.5)
    reach = patient.lateral(start + drop / 2) + 0.25
    first, last = np.arcsin(np.minimum(1.9 / reach, 0.9)), np.pi * (0.84 - 0.012 * number)
    turn = first + (last - first) * np.linspace(0, 1, 40)
    x, y = reach * np.sin(turn), start + drop * (1 - np.cos(turn)) / 2
    sway = patient.turn * (1 - np.cos(turn)) / 2
    return np.concatenate([np.stack([side * x + sway, y], -1) for side in SIDES])


def _shoulder(grid: Grid, patient: Patient, side: int, canvas: U8) -> None:
    y0, reach = patient.apex, patient.half_width
    # The scapula: a thin blade with a thick outer edge, over the upper outer lung (further in on AP films).
    inner = reach * (0.80 if patient.view == "AP" else 0.90)
    blade = np.array(
        [
            [inner, y0 + 3.6],
            [inner + 0.5, y0 + 9.0],
            [inner + 1.8, y0 + 14.2],
            [inner + 3.4, y0 + 10.5],
            [inner + 5.2, y0 + 4.6],
            [inner + 3.0, y0 + 2.4],
        ]
    ) * (side, 1)
    grid.fill(canvas, blade, 34)
    grid.lines(canvas, [blade[2:5]], 0.5, 90)
    grid.lines(canvas, [blade[:3]], 0.2, 70)
    spine = np.array([[inner + 0.2, y0 + 4.8], [inner + 3.2, y0 + 2.6], [inner + 6.0, y0 + 0.8]]) * (side, 1)
    grid.fill(canvas, ribbon(spine, 0.45), 80)
    angle = np.linspace(0, 2 * np.pi, 36)
    head = np.stack([side * (inner + 7.4) + 2.3 * np.cos(angle), y0 + 3.6 + 2.4 * np.sin(angle)], 1)
    grid.fill(canvas, head, 120)
    shaft = np.array([[inner + 7.9, y0 + 5.0], [inner + 8.6, y0 + 12.0], [inner + 9.0, y0 + 26.0]]) * (side, 1)
    grid.fill(canvas, ribbon(shaft, 1.15), 120)
    # The clavicle: an S from the breastbone to the shoulder.
    t = np.linspace(0, 1, 24)
    x = side * (1.5 + (inner + 4.6) * t) + patient.turn * (1 - t)
    y = y0 + patient.clavicle - 3.0 * t + 0.9 * np.sin(2 * np.pi * t)
    half = 0.58 + 0.30 * np.abs(t - 0.5) + 0.25 * np.exp(-((t / 0.12) ** 2))
    line = np.stack([x, y], 1)
    grid.fill(canvas, ribbon(line, half), 150)
    grid.fill(canvas, ribbon(line, half - 0.2), 105)


def spine_x(patient: Patient, y: F32) -> F32:
    """x of the middle of the spine at height y (cm)."""
    return np.asarray(patient.scoliosis * np.sin(y / 9.0) - 0.3 * patient.turn, np.float32)


def _spine(grid: Grid, patient: Patient, bone: F32) -> None:
    y = grid.y[:, 0]
    half = (1.35 + 0.035 * (y - patient.apex)).astype(np.float32)
    half = np.clip(half, 1.2, 2.3)
    period = 2.35
    phase = (y - patient.rib_shift) / period
    body = 0.5 + 0.5 * np.tanh(4 * (np.cos(2 * np.pi * phase) + 0.75))  # 1 in a vertebra, 0 in a disc
    window = grid.around(0.0, 0.0, 6.0, 60.0)
    across = (grid.x[:, window[1]] - spine_x(patient, y)[:, None]) / (half * (0.93 + 0.07 * body))[:, None]
    across = np.asarray(across, np.float32)
    square = across * across
    column = np.sqrt(np.maximum(1 - square, 0)) * (0.24 + 0.16 * body)[:, None].astype(np.float32)
    # In every vertebra two pedicles, seen end on, and below them the spinous process.
    level = ((phase - np.round(phase)) * period).astype(np.float32)[:, None]
    pedicle = 1 - ((np.abs(across) - np.float32(0.62)) / np.float32(0.2)) ** 2 - ((level + 0.1) / np.float32(0.5)) ** 2
    process = 1 - square / np.float32(0.025) - ((level - 0.75) / np.float32(0.45)) ** 2
    bone[window] += column + np.float32(0.22) * np.sqrt(np.maximum(np.maximum(pedicle, process), 0))
