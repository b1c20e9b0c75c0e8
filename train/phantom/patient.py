"""The numbers that make one patient: sizes in cm, drawn once per seed, before any finding is added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDES = (-1, 1)  # -1: left half of the film, the patient's right


@dataclass(frozen=True, slots=True)
class Patient:
    """Body measures in cm (angles in radians); y is counted downwards from the middle of the lungs."""

    view: str
    female: bool
    half_width: float  # inner half width of the rib cage at its widest
    wall: float  # chest wall beyond it
    depth: float  # front to back of the trunk
    apex: float  # y of the lung apices
    apex_x: float  # distance of the apices from the midline
    dome: dict[int, float]  # y of the top of each hemidiaphragm
    dome_drop: float  # from there to the costophrenic angle
    rib_count: int
    rib_tilt: float  # how far ribs drop to the front, relative to the mean patient
    rib_shift: float
    rib_width: float
    turn: float  # x shift of the front of the chest: the patient is turned a little
    roll: float  # rotation in the film plane
    scoliosis: float
    ctr: float  # cardiothoracic ratio: heart width / inner chest width
    ctr_enlarged: float  # the same, should this patient have cardiomegaly
    heart_angle: float
    mediastinum: float  # half width of the upper mediastinum
    knob: float  # radius of the aortic knob
    breast: float  # thickness of the breasts, 0 for none
    vessels: float  # calibre of the lung vessels, relative
    bubble: float  # radius of the stomach bubble, 0 for none
    clavicle: float  # y of the inner ends of the clavicles, below the apices
    film_width: float
    film_shift: tuple[float, float]

    def lateral(self, y: NDArray[np.float32] | float) -> NDArray[np.float32]:
        """Distance (cm) of the outer lung border from the midline at height y."""
        u = np.clip((np.asarray(y, np.float32) - self.apex) / (0.95 * (self.angle_y - self.apex)), 0, 1)
        return np.asarray(self.apex_x + (self.half_width - self.apex_x) * (1 - (1 - u) ** 2.4) ** 0.58, np.float32)

    def medial(self, y: NDArray[np.float32] | float) -> NDArray[np.float32]:
        """Distance (cm) of the inner lung border from the midline at height y."""
        u = np.clip((np.asarray(y, np.float32) - self.apex) / 6.0, 0, 1)
        return np.asarray(self.apex_x - (self.apex_x - 1.6) * (1 - (1 - u) ** 2) ** 0.5, np.float32)

    @property
    def angle_y(self) -> float:
        """y of the costophrenic angles."""
        return max(self.dome.values()) + self.dome_drop

    @property
    def heart_width(self) -> float:
        """Width of the heart in cm."""
        return self.ctr * 2 * self.half_width


def draw_patient(rng: np.random.Generator, view: str | None) -> Patient:
    """One patient; `view` "PA" or "AP", None to draw it too (65% PA)."""
    drawn_view = "PA" if rng.random() < 0.65 else "AP"
    view = view or drawn_view
    ap = view == "AP"
    female = bool(rng.random() < 0.47)
    size = float(np.clip(rng.normal(0.96 if female else 1.03, 0.045), 0.84, 1.16))
    habitus = float(rng.beta(2, 3))  # 0 lean, 1 obese
    breath = float(rng.beta(4, 2)) - (0.35 if ap else 0.0)  # 1: full inspiration
    half_width = 13.9 * size * float(rng.uniform(0.96, 1.04))
    apex = -13.2 * size
    dome = apex + (18.6 + 3.2 * breath) * size
    enlarged = float(rng.uniform(0.57, 0.71))
    normal = float(rng.uniform(0.40, 0.47)) + (0.02 if ap else 0.0)
    wall = 1.3 + 3.6 * habitus
    return Patient(
        view=view,
        female=female,
        half_width=half_width,
        wall=wall,
        depth=(18.5 + 7.0 * habitus) * size,
        apex=apex,
        apex_x=float(rng.uniform(4.6, 5.4)) * size,
        dome={-1: dome, 1: dome + float(rng.uniform(0.4, 1.7))},
        dome_drop=float(rng.uniform(2.8, 4.6)) * size,
        rib_count=int(rng.choice([10, 11, 11, 12])),
        rib_tilt=float(rng.uniform(0.8, 1.2)) * (0.85 if ap else 1.0),
        rib_shift=float(rng.uniform(-0.8, 0.8)),
        rib_width=float(rng.uniform(0.48, 0.66)),
        turn=float(rng.normal(0, 0.45)),
        roll=float(np.deg2rad(np.clip(rng.normal(0, 1.8), -5, 5))),
        scoliosis=float(rng.normal(0, 0.5)),
        ctr=normal,
        ctr_enlarged=enlarged,
        heart_angle=float(rng.uniform(0.35, 0.75)),
        mediastinum=float(rng.uniform(2.3, 3.2)) * size * (1.12 if ap else 1.0),
        knob=float(rng.uniform(1.3, 2.1)),
        breast=float(rng.uniform(1.5, 4.0) + 2 * habitus) if female else float(max(0.0, habitus - 0.6) * 4),
        vessels=float(rng.uniform(0.85, 1.2)),
        bubble=float(rng.uniform(1.4, 2.8)) if rng.random() < 0.6 else 0.0,
        clavicle=float(rng.uniform(1.5, 3.8)) - (1.6 if ap else 0.0),
        film_width=2 * (half_width + 0.55 * wall) * float(rng.uniform(1.10, 1.28)),
        film_shift=(float(rng.normal(0, 0.5)), float(rng.uniform(-0.3, 1.6))),
    )
