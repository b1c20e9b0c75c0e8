"""Normal films with inserted lesions as a set of films whose true regions are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msloc_edge.train.data import PHANTOM, Films
from msloc_edge.train.lesions.insertion import MIN_FILM, insert
from msloc_edge.train.lesions.labels import LABELS, Inserter, shown
from msloc_edge.train.lesions.lungs import lung_fields

PER_KIND = 100
"""Films of each kind of lesion, where there are so many normal ones."""


def lesion_films(sources: Sequence[Films], classes: Sequence[str], least: int, seed: int = 0) -> Films | None:
    """Copies of normal real films with one lesion each, and its mask; None where there is no normal film.

    sources: the one with the largest films is used, if these have at least `least` pixels a side, and as many as an
    insertion needs. A label that the lesion does not change keeps its value.
    """
    kinds = Inserter(classes).kinds
    large = [films for films in sources if films.source != PHANTOM and films.side >= max(least, MIN_FILM)]
    source = max(large, key=lambda films: films.side, default=None)
    if source is None:
        return None
    known = ~np.isnan(source.labels)
    normal = np.flatnonzero(known.any(axis=1) & ~np.where(known, source.labels > 0, False).any(axis=1))
    order = np.random.default_rng(seed).permutation(normal)
    chosen = [(int(at), kind) for kind in kinds for at in order[:PER_KIND]]
    if not chosen:
        return None
    pixels = np.empty((len(chosen), source.side, source.side), np.uint8)
    labels = source.labels[[at for at, _ in chosen]].copy()
    regions: list[Mapping[str, NDArray[np.bool_]]] = []
    for row, (at, kind) in enumerate(chosen):
        film = np.array(source.pixels[at])
        pixels[row], lesion = insert(film, np.random.default_rng([seed, row]), kind, lungs=lung_fields(film))
        for label, value in LABELS[kind].items():
            if label in classes:
                labels[row, classes.index(label)] = value
        regions.append({label: lesion.mask for label in shown(kind) if label in classes})
    names = tuple(f"{source.names[at]} with a {kind.lower()}" for at, kind in chosen)
    patients = tuple(source.patients[at] for at, _ in chosen)
    return Films(
        f"lesions in {source.source}", tuple(classes), pixels, labels, names, patients, masks=regions.__getitem__
    )
