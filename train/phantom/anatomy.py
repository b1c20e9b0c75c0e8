"""Thickness maps of a patient: soft tissue, aerated lung and bone, in cm along the beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msloc_edge.train.phantom.bones import bones, spine_x
from msloc_edge.train.phantom.grid import F32, Grid, ellipsoid, smoothstep
from msloc_edge.train.phantom.patient import SIDES, Patient

# (x, y) of the heart's border about its middle, in heart widths and heights: atrium, base, apex, waist.
HEART_OUTLINE = (
    (-0.50, 0.08),
    (-0.43, 0.36),
    (-0.15, 0.47),
    (0.14, 0.50),
    (0.40, 0.46),
    (0.50, 0.25),
    (0.42, -0.02),
    (0.25, -0.30),
    (0.10, -0.50),
    (-0.14, -0.50),
    (-0.33, -0.36),
    (-0.44, -0.16),
)
HILUM_X, HILUM_Y = 3.4, -0.6  # cm, right hilum; the left one lies 0.9 cm higher


@dataclass(slots=True)
class Maps:
    """What the beam passes through, [H, W] float32 in cm. Findings change these in place."""

    grid: Grid
    patient: Patient
    soft: F32
    lung: F32  # lung at its normal density
    vessels: F32  # soft tissue of the lung vessels and texture, lost where the lung is airless
    bone: F32
    heart: F32

    def exchange(self, thickness: F32, window: tuple[slice, slice] = np.s_[:, :]) -> None:
        """Turn that many cm of lung (at most all of it) into soft tissue within a window of the film."""
        swap = np.minimum(thickness, self.lung[window])
        self.lung[window] -= swap
        self.soft[window] += swap


def build(grid: Grid, patient: Patient, rng: np.random.Generator) -> Maps:
    """The healthy patient; `rng` draws the vessels and the texture."""
    body = _trunk(grid, patient)
    heart = _heart(grid, patient)
    vessels_and_spine = _mediastinum(grid, patient)
    middle = np.maximum(vessels_and_spine, heart) + np.float32(0.5) * np.minimum(vessels_and_spine, heart)
    lung = np.zeros(grid.shape, np.float32)
    for side in SIDES:
        lung[grid.side(side)] = lung_chord(grid, patient, side)
    np.maximum(lung - middle, 0, out=lung)
    soft = np.where(body > 0, np.maximum(body - lung, 1.5), 0).astype(np.float32)
    _breasts(grid, patient, soft)
    _gas(grid, patient, soft, rng)
    vessels = _vessels(grid, patient, rng)
    vessels *= np.clip(lung * np.float32(0.14), 0, 1)
    texture = np.float32(0.9) * grid.noise(rng, 0.5) + np.float32(1.1) * grid.noise(rng, 2.5)
    vessels += np.float32(0.010) * lung * texture
    return Maps(grid, patient, soft, lung, vessels, bones(grid, patient), heart)


def lung_chord(grid: Grid, patient: Patient, side: int, fallen: float = 0.0, inset: float = 0.0) -> F32:
    """Front-to-back length (cm) of the space of one lung, over its half of the film [H, W_side].

    `fallen` and `inset` shift its apex down and its outer border in (a lung that came off the chest wall).
    """
    x = np.abs(grid.x[:, grid.side(side)[1]])
    y = grid.y - np.float32(fallen)
    outer, inner = patient.lateral(y) - np.float32(inset), patient.medial(y)
    rise = np.clip((y - patient.apex) / (0.7 * (patient.angle_y - patient.apex)), 0, 1)
    depth = (0.80 * patient.depth * (1 - (1 - rise) ** 2) ** 0.45).astype(np.float32)
    across = np.clip((x - inner) / np.maximum(outer - inner, 0.1), -1, 1)
    inwards = np.clip((inner - x) / np.float32(2.2), 0, 1)
    chord = depth * np.sqrt(np.maximum(1 - across * across * np.abs(across), 0)) * (1 - inwards)
    # The liver or spleen under the dome: near its edge a sphere is 2 sqrt(2 R d) thick at depth d.
    below = grid.y - dome_line(patient, side, x)
    chord -= np.sqrt(np.maximum(below, 0) * np.float32(8 * 5.5))
    return np.asarray(np.maximum(chord, 0), np.float32)


def dome_line(patient: Patient, side: int, x: F32) -> F32:
    """y (cm) of the hemidiaphragm at distance x from the midline."""
    peak = 0.47 * patient.half_width
    t = (x - peak) / np.float32(patient.half_width - peak)
    lateral = np.maximum(t, 0)
    medial = np.minimum(t, 0)
    drop = patient.angle_y - patient.dome[side]
    return np.asarray(
        patient.dome[side] + drop * lateral * lateral * (0.55 + 0.45 * lateral) + 1.8 * medial * medial, np.float32
    )


def _trunk(grid: Grid, patient: Patient) -> F32:
    """Front-to-back thickness of the whole body, neck and shoulders included."""
    y, a = grid.y[:, 0], patient.apex
    chest = patient.half_width + patient.wall
    knots = [a - 9, a - 4.5, a - 3.0, a - 1.0, a + 1.0, a + 4, a + 9, a + 13, a + 22, a + 34]
    widths = [5.6, 6.2, 8.5, 14.5, 19.0, 21.5, chest + 3.5, chest + 1.0, chest, chest + 0.4]
    depths = [0.52, 0.54, 0.56, 0.60, 0.66, 0.78, 0.92, 1.0, 1.04, 1.06]
    half = grid.blur(np.interp(y, knots, widths)[:, None].astype(np.float32), 1.2)
    depth = (patient.depth * np.interp(y, knots, depths))[:, None].astype(np.float32)
    q = (grid.x / half) ** 2
    body = depth * np.sqrt(np.maximum(1 - q * (0.30 + 0.70 * q), 0))
    for side in SIDES:  # the arms
        window = grid.side(side)
        off = (grid.x[:, window[1]] - side * (chest + 5.6 + np.float32(0.10) * (grid.y - a))) / np.float32(4.3)
        arm = np.sqrt(np.maximum(1 - off * off, 0)) * (np.float32(8.5) * (grid.y > a + 3))
        np.maximum(body[window], arm, out=body[window])
    return np.asarray(grid.blur(body, 0.12))


def _heart(grid: Grid, patient: Patient) -> F32:
    """Chords of the heart: one smooth body whose outline is HEART_OUTLINE scaled to the patient's heart width."""
    width = patient.heart_width
    height = 0.80 * width * (0.85 + 0.3 * patient.heart_angle)
    right = -0.34 * width + 0.6 * patient.turn
    bottom = 0.5 * (patient.dome[-1] + patient.dome[1]) + 0.9
    cx, cy = right + 0.5 * width, bottom - 0.5 * height
    reach = 0.56 * max(width, height)
    window = grid.around(cx, cy, reach, reach)
    x, y = (grid.x[:, window[1]] - cx) / np.float32(width), (grid.y[window[0]] - cy) / np.float32(height)
    turn = np.linspace(-np.pi, np.pi, 361)
    knots = np.array(HEART_OUTLINE)
    angles, radii = np.arctan2(knots[:, 1], knots[:, 0]), np.hypot(knots[:, 0], knots[:, 1])
    outline = np.interp(turn, angles, radii, period=2 * np.pi)
    outline = sum(np.roll(outline[:-1], k) for k in range(-13, 14)) / 27
    # The table is exact in width and height only before it was smoothed: make it so again.
    spread = np.ptp(outline * np.cos(turn[:-1])), np.ptp(outline * np.sin(turn[:-1]))
    x, y = x * np.float32(spread[0]), y * np.float32(spread[1])
    index = ((np.arctan2(y, x) + np.float32(np.pi)) * np.float32(359.9 / (2 * np.pi))).astype(np.int32)
    d = np.sqrt(x * x + y * y) / outline.astype(np.float32)[index]
    heart = np.zeros(grid.shape, np.float32)
    heart[window] = np.float32(0.85 * width) * np.sqrt(np.maximum(1 - d * d, 0))
    return heart


def _mediastinum(grid: Grid, patient: Patient) -> F32:
    """Great vessels, spine and hila as one soft-tissue thickness that displaces lung."""
    y, a = grid.y[:, 0], patient.apex
    middle = np.zeros(grid.shape, np.float32)
    near = grid.around(0.0, 0.0, 8.0, 60.0)
    x = grid.x[:, near[1]]
    knots = [a - 4, a, a + 3, a + 6, a + 10, 2.0, 8.0, 14.0]
    widths = {
        -1: [1.5, 1.05, 0.9, 1.0, 1.05, 0.9, 0.8, 0.8],  # the superior vena cava's edge
        1: [1.5, 1.2, 1.05, 0.9, 0.8, 0.7, 0.7, 0.7],
    }  # the left subclavian artery's edge
    middle_x = (0.5 * patient.turn + 0.5 * spine_x(patient, y))[:, None].astype(np.float32)
    half = {
        side: grid.blur((patient.mediastinum * np.interp(y, knots, widths[side]))[:, None].astype(np.float32), 0.9)
        for side in SIDES
    }
    q = (x - middle_x) / np.where(x < middle_x, half[-1], half[1])
    depth = (patient.depth * np.interp(y, [a, a + 8, a + 12], [0.6, 0.6, 0.52]))[:, None].astype(np.float32)
    middle[near] = depth * np.sqrt(np.maximum(1 - q * q, 0))
    knob_y = a + 8.2
    lobes = [
        ((patient.mediastinum - 0.5 + 0.5 * patient.turn, knob_y), (patient.knob, patient.knob * 1.1), 5.0, 0.0),
        ((patient.mediastinum - 0.4 + 0.5 * patient.turn, knob_y + 4.0), (1.7, 2.0), 4.0, 0.2),
    ]
    for side in SIDES:
        hx, hy = side * HILUM_X + 0.5 * patient.turn, HILUM_Y - 0.9 * (side > 0)
        lobes += [
            ((hx, hy), (1.1, 1.5), 2.2, 0.3 * side),
            ((hx + 0.5 * side, hy + 1.8), (0.75, 2.0), 1.6, -0.35 * side),
            ((hx + 0.3 * side, hy - 1.6), (0.7, 1.2), 1.3, 0.5 * side),
        ]
    for centre, radii, thick, tilt in lobes:
        window, chord = ellipsoid(grid, centre, radii, thick, tilt)
        np.maximum(middle[window], chord, out=middle[window])
    # The descending aorta runs down the left of the spine behind the heart.
    left = 1.7 + 0.4 * patient.knob + spine_x(patient, y)[:, None] - 0.05 * (grid.y - knob_y)
    aorta = 2.6 * np.sqrt(np.maximum(1 - ((x - left) / np.float32(1.25)) ** 2, 0)) * (grid.y > knob_y)
    np.maximum(middle[near], aorta, out=middle[near])
    return middle


def _breasts(grid: Grid, patient: Patient, soft: F32) -> None:
    if patient.breast <= 0:
        return
    for side in SIDES:
        cy = 0.6 * patient.dome[side] + 1.0
        window, chord = ellipsoid(
            grid,
            (side * 0.66 * patient.half_width, cy + 0.8 * patient.breast),
            (0.50 * patient.half_width, 5.5 + 0.5 * patient.breast),
            1.0,
            0.25 * side,
        )
        fade = smoothstep(-5.5, 4.0, grid.y[window[0]] - cy)  # a breast has no upper edge
        soft[window] += np.float32(0.75 * patient.breast) * chord * np.sqrt(chord) * fade


def _gas(grid: Grid, patient: Patient, soft: F32, rng: np.random.Generator) -> None:
    """Trachea and main bronchi, stomach bubble, bowel gas: holes in the soft tissue."""
    y, a = grid.y[:, 0], patient.apex
    carina = a + 10.8
    near = grid.around(0.0, 0.0, 7.0, 60.0)
    x = grid.x[:, near[1]]
    axis = (0.6 * patient.turn + 0.25 * np.clip((y - a) / 10, 0, 1))[:, None].astype(np.float32)
    tube = 1.7 * np.sqrt(np.maximum(1 - ((x - axis) / np.float32(0.85)) ** 2, 0))
    tube *= np.clip((carina - grid.y) / 0.8, 0, 1)
    for side, slope in ((-1, 0.75), (1, 1.25)):
        run = np.clip(grid.y - carina + 0.6, 0, 3.6 if side < 0 else 3.2)
        branch = axis + side * run * np.float32(slope)
        bronchus = 1.2 * np.sqrt(np.maximum(1 - ((x - branch) / np.float32(0.72)) ** 2, 0))
        bronchus *= (grid.y > carina - 0.5) * np.clip((carina + 3.2 - grid.y) / 1.5, 0, 1)
        np.maximum(tube, bronchus, out=tube)
    soft[near] -= np.minimum(tube, soft[near])
    holes = []
    if patient.bubble:
        dome = patient.dome[1] + 1.3
        r = patient.bubble
        holes.append(((0.42 * patient.half_width, dome + 0.75 * r), (1.35 * r, 0.75 * r), 1.7 * r))
    for _ in range(int(rng.integers(0, 5))):
        r = float(rng.uniform(0.8, 1.8))
        holes.append(((float(rng.uniform(1, 10)), patient.angle_y + float(rng.uniform(1.5, 6))), (1.3 * r, r), 1.5 * r))
    for centre, radii, depth in holes:
        window, chord = ellipsoid(grid, centre, radii, depth)
        soft[window] -= np.minimum(chord, np.maximum(soft[window] - 3, 0))


def _vessels(grid: Grid, patient: Patient, rng: np.random.Generator) -> F32:
    """Arteries and veins branching from the hila, as cm of soft tissue."""
    full = 1.1  # cm that a canvas value of 255 stands for
    canvas = np.zeros(grid.shape, np.uint8)
    levels: list[tuple[float, F32]] = []
    for side in SIDES:
        count = 13
        angle = np.linspace(-1.35, 1.4, count) + rng.normal(0, 0.12, count)
        x = np.full(count, side * (HILUM_X + 0.3) + 0.5 * patient.turn) + rng.normal(0, 0.4, count)
        y = HILUM_Y - 0.9 * (side > 0) + 1.6 * np.sin(angle) + rng.normal(0, 0.3, count)
        width = 0.62 * patient.vessels
        for length in (3.4, 2.9, 2.5, 2.1, 1.7):
            steps = length * rng.uniform(0.75, 1.25, angle.shape)
            bend = rng.normal(0, 0.3, angle.shape)
            points = [np.stack([x, y], -1)]
            for k in range(3):
                heading = angle + bend * k
                x = x + side * np.cos(heading) * steps / 3
                y = y + np.sin(heading) * steps / 3
                points.append(np.stack([x, y], -1))
            levels.append((width, np.stack(points, 1).astype(np.float32)))
            fork = rng.uniform(0.15, 0.55, angle.shape)
            heading = angle + 2 * bend
            x, y = np.concatenate([x, x]), np.concatenate([y, y])
            angle = np.concatenate([heading + fork, heading - fork * 0.8])
            width *= 0.66
    for width, branches in sorted(levels, key=lambda level: level[0]):
        grid.lines(canvas, branches, width, 255 * min(1.0, 1.25 * width / full))
    return grid.blur(canvas.astype(np.float32) * np.float32(full / 255), 0.045)
