"""The eight findings: each changes the thickness maps and returns one mask [H, W] per region.

Sizes follow the quartiles of the NIH ChestX-ray14 boxes (BBox_List_2017.csv, of 1024 pixels, which are
about 37 cm here): a nodule's median box is 68 x 63, a mass's 125 x 138, atelectasis 171 x 115,
infiltration 236 x 280, pneumonia 222 x 297, effusion 221 x 272, pneumothorax 202 x 166, a heart's 478 x 387.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.phantom.anatomy import HILUM_X, HILUM_Y, Maps, dome_line, lung_chord
from msloc_edge.train.phantom.grid import F32, Window, ellipsoid, ribbon, smoothstep
from msloc_edge.train.phantom.patient import SIDES, Patient

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
Mask = NDArray[np.bool_]
AERATED = 3.0  # cm of lung along the beam from which a pixel counts as lung field


def prepare(patient: Patient, findings: frozenset[str], side: dict[str, int]) -> Patient:
    """The patient's shape with these findings: a wide heart, a raised diaphragm over collapsed lung."""
    if "Cardiomegaly" in findings:
        patient = replace(patient, ctr=patient.ctr_enlarged)
    if "Atelectasis" in findings:
        raised = dict(patient.dome)
        raised[side["Atelectasis"]] -= 1.2
        patient = replace(patient, dome=raised)
    return patient


def apply(maps: Maps, label: str, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    """Add one finding to the maps; its regions' masks. `taken`: regions that it should stay clear of."""
    return _APPLY[label](maps, side, taken, rng)


def _side(maps: Maps, side: int) -> NDArray[np.bool_]:
    return np.asarray(maps.grid.x * side > 0)


def _place(
    maps: Maps,
    side: int,
    taken: list[Mask],
    rng: np.random.Generator,
    radius: tuple[float, float],
    zone: tuple[float, float],
) -> tuple[float, float]:
    """A centre (x, y) in cm at which an ellipse lies well inside the aerated lung of a side.

    zone: the range of heights, 0 at the apex and 1 at the dome of the diaphragm.
    """
    grid, patient = maps.grid, maps.patient
    n = 40
    span = patient.dome[side] - patient.apex
    y = np.asarray(patient.apex + span * rng.uniform(*zone, n), np.float32)
    inner, outer = patient.medial(y), patient.lateral(y)
    x = side * (inner + (outer - inner) * rng.uniform(0.1, 0.9, n))
    disc = np.array([(a, b) for a in (-0.7, 0.0, 0.7) for b in (-0.7, 0.0, 0.7)])
    spots = np.stack([x, y], -1)[:, None] + disc * radius
    height, width = grid.shape
    column = np.clip(((spots[..., 0] - grid.x[0, 0]) / grid.pitch).astype(int), 0, width - 1)
    row = np.clip(((spots[..., 1] - grid.y[0, 0]) / grid.pitch).astype(int), 0, height - 1)
    free = (maps.lung[row, column] > 0.5 * float(maps.lung.max())).astype(float)
    for mask in taken:
        free -= 0.7 * mask[row, column]
    score = free.mean(1)
    best = np.flatnonzero(score >= score.max() - 0.05)
    chosen = int(best[rng.integers(len(best))])
    return float(x[chosen]), float(y[chosen])


def _blob(
    maps: Maps,
    centre: tuple[float, float],
    radius: tuple[float, float],
    rng: np.random.Generator,
    rough: float,
    angle: float = 0.0,
) -> tuple[Window, F32]:
    """A window and, in it, the distance from the centre as a fraction of an irregular outline's (1 = on it)."""
    grid = maps.grid
    reach = 1.15 * max(radius) * (1 + rough)
    window = grid.around(*centre, reach, reach)
    x, y = grid.x[:, window[1]] - np.float32(centre[0]), grid.y[window[0]] - np.float32(centre[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (c * x + s * y) / np.float32(radius[0]), (c * y - s * x) / np.float32(radius[1])
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for k in (2, 3, 5, 7):
        outline += np.float32(rough / k**0.7 * rng.normal(0, 0.6)) * np.cos(k * theta + np.float32(rng.uniform(0, 6.3)))
    return window, np.sqrt(along * along + across * across) / np.clip(outline, 0.6, 1.3)


def _whole(maps: Maps, window: Window, part: NDArray[np.bool_]) -> Mask:
    mask = np.zeros(maps.grid.shape, np.bool_)
    mask[window] = part
    return mask


def _cardiomegaly(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    return [maps.heart > 0]


def _nodule(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    r = float(np.clip(rng.lognormal(np.log(1.15), 0.24), 0.8, 1.75))
    centre = _place(maps, side, taken, rng, (1.3 * r, 1.3 * r), (0.12, 0.9))
    window, d = _blob(maps, centre, (r, r * float(rng.uniform(0.88, 1.0))), rng, 0.06, float(rng.uniform(0, 3)))
    # Somewhat more than a water sphere, as if partly calcified: the smallest ones must stay visible.
    maps.exchange(np.float32(2.3 * r + 1.3) * np.sqrt(np.maximum(1 - d * d, 0)), window)
    return [_whole(maps, window, d < 1)]


def _mass(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    r = float(np.clip(rng.lognormal(np.log(2.35), 0.25), 1.8, 4.2))
    cx, cy = _place(maps, side, taken, rng, (r, r), (0.12, 0.85))
    grid = maps.grid
    window = grid.around(cx, cy, 2 * r, 2 * r)
    thick = np.zeros(grid.shape, np.float32)
    turns = np.linspace(0, 2 * np.pi, int(rng.integers(3, 6)), endpoint=False) + rng.uniform(0, 6)
    for turn in turns:  # lobes about the middle
        lobe = r * float(rng.uniform(0.6, 0.8))
        part, chord = ellipsoid(
            grid,
            (cx + 0.42 * r * float(np.cos(turn)), cy + 0.42 * r * float(np.sin(turn))),
            (lobe, lobe * float(rng.uniform(0.85, 1.0))),
            2.8 * lobe,
        )
        np.maximum(thick[part], chord, out=thick[part])
    core = thick > 0
    if rng.random() < 0.5:  # spicules
        canvas = np.zeros(grid.shape, np.uint8)
        for turn in rng.uniform(0, 2 * np.pi, 16):
            tip = r * float(rng.uniform(1.1, 1.55))
            line = np.array([[cx, cy], [cx + tip * np.cos(turn), cy + tip * np.sin(turn)]])
            grid.fill(canvas, ribbon(line, np.array([0.22, 0.02])), 255)
        np.maximum(thick, grid.blur(canvas.astype(np.float32) * np.float32(1.2 / 255), 0.08), out=thick)
    maps.exchange(thick[window], window)
    return [core]


def _effusion(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    grid, patient = maps.grid, maps.patient
    depth = float(rng.triangular(2.4, 6.0, 13.0))  # cm of fluid along the chest wall, above the angle
    window = grid.side(side)
    x = np.abs(grid.x[:, window[1]])
    t = np.clip(x / np.float32(patient.half_width), 0, 1)
    # The meniscus climbs the chest wall; small effusions lie in the angle only.
    level = np.float32(patient.angle_y - 0.5 * depth) - np.float32(0.6 * depth + 0.8) * (t**4)
    level = level + np.float32(max(0.0, 8.0 - depth) * 0.9) * (1 - t) ** 2
    fill = smoothstep(-0.9, 0.7, np.asarray(grid.y - level, np.float32))
    before = maps.lung[window].copy()
    cavity = before > 0.3
    maps.exchange(np.float32(0.8) * before * fill, window)
    maps.vessels[window] *= 1 - fill
    # Fluid is seen where there was lung, and lies in front of the dome below it down to the angle.
    space = (x < patient.lateral(grid.y)) & (grid.y < patient.angle_y) & (x > patient.medial(grid.y))
    dome = dome_line(patient, side, x)
    mask = (fill > 0.5) & space & (cavity | (grid.y > dome)) & (grid.y < dome + 0.9)
    return [_whole(maps, window, mask)]


def _pneumothorax(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    grid, patient = maps.grid, maps.patient
    fallen = float(rng.uniform(1.6, 4.2))
    inset = float(rng.uniform(1.2, 3.2))
    end = patient.apex + float(rng.triangular(0.22, 0.27, 0.7)) * (patient.angle_y - patient.apex)  # the air ends here
    window = grid.side(side)
    x = np.abs(grid.x[:, window[1]])
    # The visceral pleura: the outline of the lung, lowered and drawn in, meeting the chest wall at `end`.
    open_ = np.clip((np.float32(end) - grid.y) / np.float32(end - patient.apex), 0, 1)
    border = patient.lateral(grid.y - fallen * open_) - np.float32(inset) * np.sqrt(open_)
    slope = np.maximum(np.float32(patient.apex_x) - x, 0)
    top = grid.y - np.float32(patient.apex) - np.float32(fallen) * open_ - np.float32(0.12) * slope * slope
    inside = np.minimum(border - x, top * 1.5)  # > 0 within the fallen lung, about cm
    before = maps.lung[window]
    gone = smoothstep(0.06, -0.06, inside) * (before > 0)
    gap = patient.lateral(grid.y) - border  # the last sliver of air beside the lung is not seen
    mask = (gone > 0.5) & (lung_chord(grid, patient, side) > 1.0) & (before > 1.0) & (gap > 0.3) & (open_ > 0)
    gone *= mask
    # Air takes the lung's place; the fallen lung is denser; its edge is a hairline of pleura.
    maps.soft[window] += np.float32(0.06) * before * ((inside > 0) & (open_ > 0))
    maps.soft[window] -= np.minimum(np.float32(0.9) * gone, np.maximum(maps.soft[window] - 1, 0))
    maps.lung[window] = before * (1 - gone)
    maps.vessels[window] *= 1 - gone
    line = np.exp(-((inside / np.float32(0.09)) ** 2)) * (gap > 0.3) * (open_ > 0) * (before > 1.0)
    maps.soft[window] += np.float32(1.1) * line
    return [_whole(maps, window, mask)]


def _zone(
    maps: Maps,
    side: int,
    taken: list[Mask],
    rng: np.random.Generator,
    size: tuple[float, float],
    zone: tuple[float, float],
    rough: float,
) -> tuple[Window, F32, NDArray[np.bool_]]:
    """A large irregular part of a lung: window, distance as a fraction of its outline, mask in the window."""
    k = float(np.clip(rng.lognormal(0, 0.22), 0.65, 1.5))
    radius = (size[0] / 2 * k, size[1] / 2 * k * float(rng.uniform(0.8, 1.2)))
    centre = _place(maps, side, taken, rng, radius, zone)
    window, d = _blob(maps, centre, radius, rng, rough, float(rng.uniform(-0.3, 0.3)))
    d = np.where(maps.grid.x[:, window[1]] * side > 0, d, np.float32(9))
    return window, d, np.asarray((d < 1) & (maps.lung[window] > AERATED))


def _infiltration(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    grid = maps.grid
    window, d, mask = _zone(maps, side, taken, rng, (7.6, 9.4), (0.25, 0.85), 0.12)
    mesh = grid.noise(rng, 0.8)[window] + grid.noise(rng, 0.63)[window]  # two scales, or their lattice would show
    net = 1 - np.minimum(np.abs(mesh) * np.float32(1.6), 1)  # lines where the noise crosses 0
    dots = np.clip(grid.noise(rng, 0.6)[window] - 0.7, 0, 1.3)
    patches = np.clip(0.85 + 0.4 * grid.noise(rng, 2.2)[window], 0.45, 1.4)
    strength = float(rng.uniform(2.2, 3.0))
    thick = strength * patches * (0.5 + 0.75 * net + 0.8 * dots) * smoothstep(1.15, 0.6, d)
    maps.exchange(np.asarray(thick * smoothstep(0, 6, maps.lung[window]), np.float32), window)
    return [_whole(maps, window, mask)]


def _pneumonia(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    grid = maps.grid
    window, d, mask = _zone(maps, side, taken, rng, (7.0, 8.6), (0.3, 0.9), 0.18)
    fluff = np.float32(0.05) * grid.noise(rng, 0.8)[window] + np.float32(0.08) * grid.noise(rng, 2.0)[window]
    solid = smoothstep(1.15, 0.55, d + fluff)
    # Bronchi stay open and show as dark branches fanning out from the hilum.
    canvas = np.zeros(grid.shape, np.uint8)
    hx, hy = side * HILUM_X, HILUM_Y
    rows, columns = np.nonzero(mask)
    if rows.size:
        tx = float(grid.x[0, window[1]][columns].mean())
        ty = float(grid.y[window[0], 0][rows].mean())
        heading, far = float(np.arctan2(ty - hy, tx - hx)), float(np.hypot(ty - hy, tx - hx)) + 2.5
        for turn in heading + np.linspace(-0.55, 0.55, 5) + rng.normal(0, 0.06, 5):
            r = np.linspace(0, far, 12)
            bend = turn + float(rng.normal(0, 0.25)) * r / far
            line = np.stack([hx + r * np.cos(bend), hy + r * np.sin(bend)], 1)
            grid.fill(canvas, ribbon(line, np.linspace(0.24, 0.09, 12)), 255)
    open_ = grid.blur(canvas.astype(np.float32) / np.float32(255), 0.06)[window]
    strength = float(rng.uniform(0.38, 0.52))
    thick = np.float32(strength) * maps.lung[window] * solid * (1 + np.float32(0.10) * grid.noise(rng, 1.2)[window])
    maps.vessels[window] *= 1 - solid  # vessels drown in consolidation
    maps.exchange(np.maximum(thick - np.float32(1.5) * open_ * solid, 0), window)
    return [_whole(maps, window, mask)]


def _atelectasis(maps: Maps, side: int, taken: list[Mask], rng: np.random.Generator) -> list[Mask]:
    grid = maps.grid
    length = float(np.clip(rng.lognormal(np.log(6.2), 0.22), 4.0, 9.0))
    canvas = np.zeros(grid.shape, np.uint8)
    x0, y0 = _place(maps, side, taken, rng, (0.5 * length, 1.2), (0.72, 0.97))
    tilt = float(rng.normal(0, 0.22)) * side
    along = np.linspace(-0.5, 0.5, 16)
    if rng.random() < 0.6:  # plates: parallel bands across the base
        for k in range(int(rng.integers(2, 4))):
            span = length * float(rng.uniform(0.75, 1.0))
            angle = tilt + float(rng.normal(0, 0.12))
            x = x0 + span * along * np.cos(angle) + float(rng.normal(0, 0.4))
            y = y0 - 1.15 * k + span * along * np.sin(angle) + 0.5 * (4 * along**2)
            half = float(rng.uniform(0.22, 0.42)) * np.sqrt(1.02 - (2 * along) ** 2)
            grid.fill(canvas, ribbon(np.stack([x, y], 1), half), 255)
        depth = float(rng.uniform(2.6, 3.8))
    else:  # a collapsed segment: a wedge from the hilum, its upper edge a sharp fissure
        wide = float(rng.uniform(0.14, 0.22)) * length
        slope = float(rng.uniform(0.15, 0.6))
        x = x0 + side * length * along
        y = y0 + length * slope * along + 0.7 * (4 * along**2)
        grid.fill(canvas, ribbon(np.stack([x, y], 1), wide * np.sqrt(np.linspace(0.02, 1, 16))), 255)
        depth = float(rng.uniform(3.0, 4.4))
    shape = grid.blur(canvas.astype(np.float32) / np.float32(255), 0.14)
    mask = (shape > 0.4) & (maps.lung > 1.0) & _side(maps, side)
    maps.exchange(np.float32(depth) * shape * (1 + np.float32(0.08) * grid.noise(rng, 0.8)))
    return [mask]


_APPLY: dict[str, Callable[[Maps, int, list[Mask], np.random.Generator], list[Mask]]] = {
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
    "Pneumonia": _pneumonia,
    "Infiltration": _infiltration,
    "Atelectasis": _atelectasis,
    "Mass": _mass,
    "Nodule": _nodule,
}
ORDER = tuple(_APPLY)  # what changes the shape of the lung comes before what is put into it
BILATERAL = {"Effusion": 0.25, "Infiltration": 0.3, "Pneumonia": 0.2, "Nodule": 0.25}  # chance of a second region


def sides(findings: frozenset[str], rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """Which side(s) of the chest each finding takes; findings of one film share a side as little as they can."""
    load = {-1: 0, 1: 0}
    chosen: dict[str, tuple[int, ...]] = {}
    for label in ORDER:
        first = SIDES[int(rng.integers(2))]
        both = float(rng.random()) < BILATERAL.get(label, 0.0)
        if label not in findings:
            continue
        if load[first] > load[-first]:
            first = -first
        chosen[label] = (first, -first) if both and load[-first] == 0 else (first,)
        for side in chosen[label]:
            load[side] += label != "Cardiomegaly"
    return chosen
