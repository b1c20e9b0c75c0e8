"""From thicknesses to the 12-bit image a console shows: Beer-Lambert, scatter, quanta, logarithm, window.

Mass attenuation coefficients (cm^2/g) with coherent scattering, ICRU-44 tissues, of J. H. Hubbell and
S. M. Seltzer, "Tables of X-Ray Mass Attenuation Coefficients", NIST, table 4
(https://physics.nist.gov/PhysRefData/XrayMassCoef/tab4.html), at 60 and 80 keV; log-log interpolated between.
The effective energy is about 70 keV for a PA film (120 kVp, filtered by the patient) and 60 keV for a mobile
AP film (90 kVp).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from msloc_edge.train.phantom.grid import F32, Grid

MASS_ATTENUATION = {"soft": (0.2048, 0.1823), "lung": (0.2053, 0.1826), "bone": (0.3148, 0.2229)}
DENSITY = {"soft": 1.06, "lung": 0.26, "bone": 1.92}  # g/cm^3, ICRU-44; lung as inflated
ENERGY = {"PA": 70.0, "AP": 60.0}  # keV
MAX_STORED = 4095
SCATTER_REACH = 4.0  # cm, of the broad scatter kernel behind an anti-scatter grid


def attenuation(material: str, energy: float) -> float:
    """Linear attenuation coefficient in 1/cm of "soft", "lung" or "bone" at `energy` keV (60 to 80)."""
    low, high = MASS_ATTENUATION[material]
    t = math.log(energy / 60.0) / math.log(80.0 / 60.0)
    return DENSITY[material] * low * math.exp(t * math.log(high / low))


def line_integral(soft: F32, lung: F32, bone: F32, energy: float) -> F32:
    """Sum of attenuation times thickness along each beam, [H, W], from thicknesses in cm."""
    mu = {m: np.float32(attenuation(m, energy)) for m in DENSITY}
    return np.asarray(mu["soft"] * soft + mu["lung"] * lung + mu["bone"] * bone)


def transmit(integral: F32) -> F32:
    """Beer-Lambert: the fraction of the beam that passes, exp(-integral)."""
    return np.asarray(np.exp(-integral))


def scatter(grid: Grid, primary: F32, strength: float) -> F32:
    """Scattered radiation reaching the detector: a broad blur of the primary beam inside the patient."""
    # The direct beam beside the patient meets nothing to scatter from.
    inside = np.minimum(primary, np.float32(0.15)) * (primary < 0.85)
    return np.float32(strength) * grid.blur(inside, SCATTER_REACH)


def detect(signal: F32, quanta: float, rng: np.random.Generator) -> F32:
    """The signal (fraction of the beam) as counted, `quanta` per pixel of the full beam.

    Poisson counts in their normal limit, which is good beyond a few dozen quanta and far cheaper.
    """
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    return np.maximum(signal + np.sqrt(signal * np.float32(1 / quanta)) * noise, np.float32(1e-4))


def present(grid: Grid, signal: F32, rng: np.random.Generator) -> tuple[F32, tuple[float, float]]:
    """Stored values (float, 0 to 4095, bright = dense) and the window (center, width) a console would give.

    -log of the signal; a console then narrows the range of the coarse structures and sharpens the fine ones.
    """
    value = -np.log(signal)
    coarse = grid.blur(value, 3.5)
    fine = grid.blur(value, 0.2)
    compress, sharpen = np.float32(rng.uniform(0.1, 0.3)), np.float32(rng.uniform(0.15, 0.5))
    value = cv2.addWeighted(value, float(1 + sharpen), fine, -float(sharpen), 0.0)
    value = cv2.addWeighted(value, 1.0, coarse, -float(compress), float(compress * coarse.mean()))
    step = max(1, min(value.shape) // 128)
    sample, depth = value[::step, ::step], coarse[::step, ::step]
    height, across = sample.shape
    lungs = sample[height // 6 : 2 * height // 3, across // 5 : -across // 5]
    body = sample[depth > 0.9] if float(depth.max()) > 0.9 else sample
    low, high = float(np.percentile(lungs, 2.5)), float(np.percentile(body, 98.5))
    width = (high - low) * float(rng.uniform(1.03, 1.25))
    center = (high + low) / 2 + (high - low) * float(rng.uniform(-0.13, 0.0))
    # The stored range leaves room on both sides of the window, more or less of it from film to film.
    floor = center - width * float(rng.uniform(0.7, 1.0))
    scale = MAX_STORED / (width * float(rng.uniform(1.4, 1.9)))
    stored = np.clip((value - np.float32(floor)) * np.float32(scale), 0, MAX_STORED)
    return stored, (round((center - floor) * scale, 1), round(width * scale, 1))
