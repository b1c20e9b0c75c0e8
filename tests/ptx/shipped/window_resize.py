"""Cases of window_resize: films of many sizes, letterboxed into inputs of many sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from interpreter import Memory

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.window_resize import reference

from .forms import LIMITS, Outcome, Shipped, rms_error, written


@dataclass(frozen=True, slots=True)
class Case:
    """A film and an input.

    image, size  of the film, of the input: height, width
    bits         of the film's table
    stray        the pixels have higher bits, too
    """

    image: tuple[int, int]
    size: tuple[int, int]
    bits: int
    stray: bool = False
    ulps: int = 0


def run(form: Shipped, case: Case) -> Outcome:
    """Run a form whose pixels and direction suit the case."""
    draw, memory = np.random.default_rng(sum(case.image)), Memory()
    kind = np.uint8 if form.variant.startswith("u8") else np.uint16
    pixels = draw.integers(0, 2**case.bits, case.image).astype(kind)
    table = draw.random(2**case.bits, np.float32)
    geometry = Geometry.fit(case.image, case.size)
    right = reference.window_resize(torch.from_numpy(pixels), torch.from_numpy(table), geometry, torch.float64).numpy()
    if case.stray:
        pixels |= (draw.integers(0, 2**16, case.image) << case.bits).astype(kind)
    values = {
        **asdict(geometry),
        "pixels": form.put(memory, "pixels", pixels),
        "table": form.put(memory, "table", table),
        "last": len(table) - 1,
        "output": form.empty(memory, "output", case.size, form.numpy_type),
    }
    executed = form.launch(memory, values, case.ulps)
    error = max(rms_error(memory[values["output"]], right), written(memory, values["output"]))
    return Outcome(error, LIMITS[form.dtype], right.size, executed)
