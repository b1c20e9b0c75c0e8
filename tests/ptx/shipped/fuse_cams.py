"""Cases of fuse_cams: maps of a network; peaks and masks of maps of any size; the last step of peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from interpreter import Memory
from numpy.typing import NDArray

from msloc_edge.cuda.compiled import grid_size
from msloc_edge.kernels.fuse_cams import reference

from .forms import LIMITS, Outcome, Shipped, exact, rms_error, written

STRIDES = (4, 8, 16, 32)
LANES = 32


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes of a launch, and what is unusual about its inputs.

    grids    (h, w) of each stage; None: those of a network
    classes  of each film; None: all K
    content  of each film: top, left, height, width of where a peak may be; None: anywhere
    spoilt   (stage, value): one cell of each of its maps has that value
    flat     all maps are 0, and so is the threshold
    """

    size: tuple[int, int]
    tile_h: int
    batch: int = 1
    count: int = 2
    grids: tuple[tuple[int, int], ...] | None = None
    classes: tuple[tuple[int, ...], ...] | None = None
    content: tuple[tuple[int, int, int, int], ...] | None = None
    spoilt: tuple[int, float] | None = None
    flat: bool = False
    ulps: int = 0

    @property
    def wanted(self) -> int:
        return len(self.classes[0]) if self.classes else self.count


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arrays of a case, and the maps [B, J, H, W] in float64 that are right for them."""

    cams: tuple[NDArray[np.floating], ...]
    relevance: NDArray[np.float32]
    classes: NDArray[np.int32]
    maps: NDArray[np.float64]


def inputs(case: Case, dtype: type[np.floating]) -> Inputs:
    """Draw them; the same for the same case."""
    draw = np.random.default_rng(sum(case.size) + case.count)
    height, width = case.size
    grids = case.grids or tuple((height // stride, width // stride) for stride in STRIDES)
    scale = 0.0 if case.flat else 1.0
    cams = tuple((scale * draw.normal(size=(case.batch, case.count, *grid))).astype(dtype) for grid in grids)
    if case.spoilt:
        stage, value = case.spoilt
        cams[stage][:, :, grids[stage][0] // 2, grids[stage][1] // 2] = value
    relevance = draw.dirichlet(np.ones(len(grids)), case.count).astype(np.float32)
    classes = np.asarray(case.classes or [range(case.count)] * case.batch, np.int32)
    known = (classes >= 0) & (classes < case.count)
    maps = reference.fuse_cams(
        [torch.from_numpy(cam).double() for cam in cams],
        torch.from_numpy(relevance).double(),
        case.size,
        torch.from_numpy(np.where(known, classes, 0)).long(),
    ).numpy()
    return Inputs(cams, relevance, classes, np.where(known[:, :, None, None], maps, np.nan))


def run(form: Shipped, peaks_form: Shipped, case: Case) -> Outcome:
    """Run a form and hold whatever it makes of maps, peaks and mask to the reference.

    peaks_form  the last step of peaks, for a form that makes them
    """
    given, memory = inputs(case, form.numpy_type), Memory()
    planes, (height, width) = case.batch * case.wanted, case.size
    thresholds = _thresholds(given, case.count)
    values = _values(form, case, given, memory) | {"thresholds": form.put(memory, "thresholds", thresholds)}
    parts = grid_size(form.grid, values)[0] // planes * (form.block // LANES)
    outputs = {
        "maps": (given.maps.shape, form.numpy_type),
        "peaks": ((planes, parts), np.int64),
        "mask": ((case.batch, case.wanted, -(-height // 8), width), np.uint8),
    }
    made = {
        name: form.empty(memory, name, shape, kind) for name, (shape, kind) in outputs.items() if name in form.arguments
    }
    executed = form.launch(memory, values | made, case.ulps)
    found = {name: memory[address].reshape(outputs[name][0]) for name, address in made.items()}
    error = max(written(memory, *made.values()), _error(form, case, given, thresholds, found))
    if "peaks" in made:
        error = max(error, _peaks_error(peaks_form, case, given, memory, made["peaks"], parts))
    return Outcome(error, LIMITS[form.dtype], given.maps.size, executed)


def run_peaks(form: Shipped, maps_count: int, parts: int, width: int = 37) -> Outcome:
    """Run the last step of peaks alone, on drawn keys: of ties, the highest key has the first place."""
    draw, memory = np.random.default_rng(parts), Memory()
    found = draw.normal(size=(maps_count, parts)).astype(np.float32)
    places = draw.integers(0, 2**20, (maps_count, parts))
    bits = found.view(np.int32).astype(np.int64)
    keys = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32 | 0x7FFFFFFF - places
    values = {
        **{"peaks": form.put(memory, "peaks", keys), "parts": parts, "W": width, "B": 1, "J": maps_count},
        "values": form.empty(memory, "values", maps_count, np.float32),
        "positions": form.empty(memory, "positions", 2 * maps_count, np.int32),
    }
    executed = form.launch(memory, values)
    best = keys.argmax(axis=1)[:, None]
    place = np.take_along_axis(places, best, axis=1)
    error = max(
        exact(memory[values["values"]], np.take_along_axis(found, best, axis=1)),
        exact(memory[values["positions"]], np.concatenate([place // width, place % width], axis=1).astype(np.int32)),
    )
    return Outcome(error, 0.0, keys.size, executed)


def _values(form: Shipped, case: Case, given: Inputs, memory: Memory) -> dict[str, int]:
    """All arguments but the outputs and the thresholds."""
    height, width = case.size
    values = {"B": case.batch, "J": case.wanted, "K": case.count, "H": height, "W": width, "tile_h": case.tile_h}
    for stage, cam in enumerate(given.cams, start=1):
        values[f"cams_{stage}"] = form.put(memory, f"cams_{stage}", cam)
        values |= {f"heights_{stage}": cam.shape[2], f"widths_{stage}": cam.shape[3]}
    values["relevance"] = form.put(memory, "relevance", given.relevance)
    values["classes"] = form.put(memory, "classes", given.classes)
    values["content"] = form.put(memory, "content", _content(case))
    return values


def _content(case: Case) -> NDArray[np.int32]:
    return np.asarray(case.content or [(0, 0, *case.size)] * case.batch, np.int32)


def _thresholds(given: Inputs, count: int) -> NDArray[np.float32]:
    """One for each class, in the widest gap between the middle values of its maps: no rounding crosses it."""
    found = np.zeros(count, np.float32)
    for k in range(count):
        values = np.sort(given.maps[given.classes == k].ravel())
        values = values[np.isfinite(values)]
        middle = values[len(values) // 4 : -(-3 * len(values) // 4)]
        if len(middle) > 1:
            widest = int(np.diff(middle).argmax())
            found[k] = (middle[widest] + middle[widest + 1]) / 2
    return found


def _error(
    form: Shipped, case: Case, given: Inputs, thresholds: NDArray[np.float32], found: dict[str, NDArray[np.generic]]
) -> float:
    """Of all that was made but the peaks."""
    maps = torch.from_numpy(given.maps)
    of_maps = torch.from_numpy(thresholds[given.classes.clip(0, case.count - 1)]).double()
    error = 0.0
    if "maps" in found:
        right = np.where(np.isfinite(given.maps), given.maps, np.nan)
        error = rms_error(*_beside_the_spoilt(found["maps"].astype(np.float64), right, case.tile_h))
    if "mask" in found:
        error = max(error, exact(found["mask"], reference.mask(maps, of_maps).numpy()))
    return error


def _peaks_error(form: Shipped, case: Case, given: Inputs, memory: Memory, keys: int, parts: int) -> float:
    planes = case.batch * case.wanted
    values = {
        **{"peaks": keys, "parts": parts, "W": case.size[1], "B": case.batch, "J": case.wanted},
        "values": form.empty(memory, "values", planes, np.float32),
        "positions": form.empty(memory, "positions", 2 * planes, np.int32),
    }
    executed = form.launch(memory, values)
    # Rounded: beyond the last cell's centre all pixels are equal, but for the last bits of float64.
    maps, content = torch.from_numpy(given.maps.round(12)), torch.from_numpy(_content(case))
    right, places = (found.numpy() for found in reference.peaks(maps, content))
    return max(
        float("inf") if executed.races else 0.0,
        rms_error(memory[values["values"]], right),
        exact(memory[values["positions"]], places),
    )


def _beside_the_spoilt(
    found: NDArray[np.float64], right: NDArray[np.float64], tile_h: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both without what a value that is not finite may spoil: its columns, down to the end of the program's rows."""
    bad = np.isnan(right)
    may_be = bad.copy()
    for first in range(0, right.shape[2], tile_h):
        rows = slice(first, first + tile_h)
        may_be[:, :, rows] = np.logical_or.accumulate(bad[:, :, rows], axis=2)
    found = np.where(bad & ~np.isfinite(found), np.nan, found)
    hidden = may_be & ~bad
    return np.where(hidden, 0, found), np.where(hidden, 0, right)
