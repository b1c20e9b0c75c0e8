"""What is on a film without being the patient: markers, leads, tubes, a pacemaker, the collimator's edge."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.phantom.grid import F32, SUBPIXEL_BITS, U8, Grid
from msloc_edge.train.phantom.patient import SIDES, Patient


def add_devices(grid: Grid, patient: Patient, integral: F32, rng: np.random.Generator) -> None:
    """Add the absorption of a side marker and, on some films, of leads, tubes or a pacemaker, in place."""
    canvas = np.zeros(grid.shape, np.uint8)  # 255 = 3 attenuation lengths
    marker, leads, tube, pacer = rng.random(4) < (0.7, 0.22, 0.35 if patient.view == "AP" else 0.04, 0.08)
    if marker:
        place = patient.half_width - float(rng.uniform(0, 2)), patient.apex - float(rng.uniform(0, 2.2))
        corner = grid.fixed_point(place) >> SUBPIXEL_BITS
        scale = float(rng.uniform(1.0, 1.5)) / grid.pitch / 22
        cv2.putText(
            canvas,
            "L",
            (int(corner[0]), int(corner[1])),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            230,
            max(1, round(0.22 / grid.pitch)),
            cv2.LINE_AA,
        )
    if leads:
        for _ in range(int(rng.integers(2, 5))):
            side = SIDES[int(rng.integers(2))]
            x, y = side * float(rng.uniform(4, 11)), float(rng.uniform(patient.apex + 1, patient.dome[1]))
            circle = np.linspace(0, 2 * np.pi, 24)
            grid.fill(canvas, np.stack([x + 0.55 * np.cos(circle), y + 0.55 * np.sin(circle)], 1), 30)
            grid.fill(canvas, np.stack([x + 0.2 * np.cos(circle), y + 0.2 * np.sin(circle)], 1), 150)
            _cable(grid, canvas, np.array([[x, y], [x + 4 * side, y + 3], [x + 9 * side, y + 16]]), rng, 0.10, 55)
    if tube:
        _cable(grid, canvas, np.array([[0.2, -30.0], [0.3, patient.apex], [0.3, patient.apex + 7.5]]), rng, 0.16, 60)
    if pacer:
        x, y = float(rng.uniform(10.5, 12.5)), patient.apex + float(rng.uniform(3.5, 5.5))  # beside the lung
        circle = np.linspace(0, 2 * np.pi, 40)
        lens = np.stack(
            [
                x + 2.3 * np.sign(np.cos(circle)) * np.abs(np.cos(circle)) ** 0.6,
                y + 2.0 * np.sign(np.sin(circle)) * np.abs(np.sin(circle)) ** 0.6,
            ],
            1,
        )
        grid.fill(canvas, lens, 170)
        grid.fill(canvas, lens * 0.55 + np.array([x + 0.2, y + 0.5]) * 0.45, 250)
        lead = np.array([[x - 1.5, y - 1.5], [1.0, patient.apex + 3.5], [-2.4, 0.0], [1.0, 6.0]])
        _cable(grid, canvas, lead, rng, 0.13, 140)
    integral += canvas.astype(np.float32) * np.float32(3 / 255)


def _cable(
    grid: Grid, canvas: U8, knots: NDArray[np.float64], rng: np.random.Generator, thick: float, value: int
) -> None:
    t = np.linspace(0, len(knots) - 1, 60)
    line = np.stack([np.interp(t, np.arange(len(knots)), knots[:, k]) for k in (0, 1)], 1) + rng.normal(0, 0.2, 2)
    for _ in range(3):  # round the corners
        line[3:-3] = sum(line[3 + k : len(line) - 3 + k] for k in range(-3, 4)) / 7
    grid.lines(canvas, [line], thick, value)


def add_collimation(grid: Grid, values: F32, rng: np.random.Generator) -> None:
    """On some films, the collimator's edge: the console's black shutter on up to four sides, in place."""
    used = rng.random() < 0.35
    for axis in range(4):
        edge = round(float(rng.uniform(0.2, 1.1)) / grid.pitch)
        if used and rng.random() < 0.6 and edge:
            cut = (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:])[axis]
            values[cut] = 0
