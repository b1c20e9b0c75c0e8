"""Launches of real size, for figures: what a form executes and moves, by the pixel."""

from __future__ import annotations

from dataclasses import replace

from . import fuse_cams, regions, window_resize
from .forms import Outcome, Shipped

SIZE = (512, 512)
GRIDS = tuple((SIZE[0] // stride, SIZE[1] // stride) for stride in fuse_cams.STRIDES)
FILM, INPUT = (750, 625), (128, 128)
"""A film of 3000 x 2500 pixels and an input of 512 x 512, each a quarter as high and wide."""


def measured(form: Shipped, partners: dict[str, Shipped]) -> dict[str, Outcome]:
    """Run a form at the sizes that its README speaks of: name of the launch -> outcome.

    partners  by variant: the forms that run before or after it, for the same device
    """
    if form.operation == "fuse_cams":
        return _fuse_cams(form, partners)
    if form.operation == "window_resize":
        return {"a film": _film(form)}
    noise = regions.Case(size=SIZE, wanted=2, threshold=0.5)
    if form.variant == "runs":
        return {"noise": regions.run(form, partners["regions"], noise)[0]}
    return {"noise": regions.run(partners["runs"], form, noise)[1]}


def _fuse_cams(form: Shipped, partners: dict[str, Shipped]) -> dict[str, Outcome]:
    if form.variant == "peaks":
        return {"64 keys a map": fuse_cams.run_peaks(form, 14, 64)}
    general = form.variant == "findings"
    cases = {
        f"tile_h {tile_h}": fuse_cams.Case(SIZE, tile_h, count=2, grids=GRIDS if general else None)
        for tile_h in (128, 32)
    }
    return {name: fuse_cams.run(form, partners["peaks"], case) for name, case in cases.items()}


def _film(form: Shipped) -> Outcome:
    bits = 8 if form.variant.startswith("u8") else 12
    if form.variant.endswith("enlarge"):
        return window_resize.run(form, window_resize.Case((100, 80), INPUT, bits))
    return replace(window_resize.run(form, window_resize.Case(FILM, INPUT, bits)), pixels=FILM[0] * FILM[1])
