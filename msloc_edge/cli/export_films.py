"""Films of `msloc-edge export`: for the parity of a bundle, to calibrate a precision on, and for the localization gate.

Export knows no films of its own, and training no export: the command brings them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from msloc_edge.bundle import Bundle
from msloc_edge.cli.inputs import Search
from msloc_edge.errors import ExportError
from msloc_edge.imaging.geometry import Geometry

if TYPE_CHECKING:
    from rich.progress import Progress

    from msloc_edge.export.precision.convert import Films
    from msloc_edge.train.data import Films as Collected

Array = NDArray[np.float32]
Item = TypeVar("Item")

PARITY_SEED, CALIBRATION_SEED, GATE_SEED = 3_000_000, 4_000_000, 6_000_000
"""First phantoms of each: neither trained on, nor validated or tested on."""
CALIBRATION_FILMS = 48
"""Films to calibrate on, at most, of each source; `count` bounds those of the gate."""


def parity_films() -> list[Array]:
    """Phantoms of every kind, displayed [H, W] in [0, 1], over which torch and onnxruntime must agree."""
    from msloc_edge.train.phantom import FINDINGS, generate

    kinds: list[tuple[str, ...]] = [(), *((finding,) for finding in FINDINGS)]
    films = [generate(PARITY_SEED + n, 512, kind).display() for n, kind in enumerate(kinds)]
    return [*films, generate(PARITY_SEED, (700, 560)).display()]  # not square: the letterbox takes part


def gate_films(bundle: Bundle, specs: Sequence[str], progress: Progress, count: int) -> Films:
    """Films from `--calibration`, phantoms where it is not given; the gate always has phantoms too.

    nih:DIR and csv:FILE give validation films: half of the patients to calibrate on, the others for the gate. A folder
    is only calibrated on. Raises ExportError (data_missing) without a film to calibrate on.
    """
    from msloc_edge.export.precision.convert import Films
    from msloc_edge.export.precision.gate import GateFilms
    from msloc_edge.train.data.collection import in_fitting_half
    from msloc_edge.train.data.films import load_films
    from msloc_edge.train.data.phantoms import phantom_films
    from msloc_edge.train.data.sources import open_collection

    side = max(bundle.input_size)
    phantoms = phantom_films(GATE_SEED, count, side, progress, bundle.classes)
    calibration: list[Array] = []
    judged: list[tuple[Collected, list[int]]] = [(phantoms, list(range(count)))]
    sources, names = [], [f"{count} phantoms"]
    for spec in specs:
        if Path(spec).is_dir():
            calibration += (found := _folder(Path(spec)))
            sources.append(f"{len(found)} of {spec}")
            continue
        films = load_films(open_collection(spec, "validation"), side, bundle.classes, progress)
        halves: list[list[int]] = [[], []]
        for index, patient in enumerate(films.patients):
            halves[in_fitting_half(patient)].append(index)
        own, other = _spread(halves[1], CALIBRATION_FILMS), _spread(halves[0], count)
        calibration += [_display(films, index) for index in own]
        judged.append((films, other))
        sources.append(f"{len(own)} validation films of {spec}")
        names.append(f"{len(other)} validation films of {spec}, of other patients")
    if not specs:
        made = phantom_films(CALIBRATION_SEED, CALIBRATION_FILMS, side, progress, bundle.classes)
        calibration, sources = [_display(made, index) for index in range(len(made))], [f"{len(made)} phantoms"]
    if not calibration:
        raise ExportError("data_missing", f"{', '.join(specs)}: expected films to calibrate on, found none")
    gate = GateFilms(
        [_display(films, index) for films, chosen in judged for index in chosen],
        np.concatenate([films.labels[chosen] for films, chosen in judged]),
        ", ".join(names),
    )
    return Films([_fitted(film, bundle) for film in calibration], ", ".join(sources), gate)


def _folder(folder: Path) -> list[Array]:
    from msloc_edge.imaging.reading import read_frame

    return [read_frame(path).display() for path in _spread(Search().films_in(folder), CALIBRATION_FILMS)]


def _display(films: Collected, index: int) -> Array:
    return films.pixels[index].astype(np.float32) / 255


def _fitted(film: Array, bundle: Bundle) -> Array:
    return Geometry.fit((film.shape[0], film.shape[1]), bundle.input_size).letterbox(film)


def _spread(items: list[Item], count: int) -> list[Item]:
    """Take at most `count` of them, from all over the list."""
    return items[:: max(1, -(-len(items) // count))]
