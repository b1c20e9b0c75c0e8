"""Probes of a model that run it again: deletion and insertion, randomised weights, changed films.

All on a few films with true boxes, for the findings with a box. A probe asks what boxes cannot tell: do the maps show
what the score hangs on, do they hang on the weights, do they stay where they are when nothing of note changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from msloc_edge._statistics import Array, ratio
from msloc_edge.backends.torch.backend import TorchBackend
from msloc_edge.backends.torch.backend import load as load_torch
from msloc_edge.errors import MslocError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.maps.boxes import iou
from msloc_edge.train.calibration.resample import Figure, film_weights
from msloc_edge.train.data import Record
from msloc_edge.train.evaluate import perturb
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.measure import FilmMaps, largest_box
from msloc_edge.train.evaluate.priors import Priors
from msloc_edge.train.evaluate.sources import ModelSource
from msloc_edge.train.evaluate.truth import Truth

RANDOMISED = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the layers whose weights are shuffled, from the output to the input."""


@dataclass(frozen=True, slots=True, eq=False)
class _Probed:
    """A film, and what the model says of it."""

    record: Record
    film: Prepared
    seen: FilmMaps


class Probe:
    """Probes of one model.

    records  films with true boxes, of which at most `count`, evenly spread, are probed
    truth    their boxes
    """

    def __init__(
        self, source: ModelSource, records: Sequence[Record], truth: Truth, count: int, resamples: int, seed: int
    ) -> None:
        self.problems: list[str] = []
        self._source, self._truth, self._seed, self._resamples = source, truth, seed, resamples
        self._records = records[:: -(-len(records) // count)]
        self._priors = Priors(truth, {record.name: record.patient for record in records}, seed)

    def tables(self, progress: Progress) -> dict[str, Any] | None:
        """Run all probes: figures with 95% intervals over patients; None where no film could be read."""
        films = list(self._films())
        if not films:
            return None
        task = progress.add_task("probes", total=len(films) * (2 + len(RANDOMISED)))
        labels = [(film, label) for film in films for label in self._truth.regions[film.record.name]]
        self._weights = film_weights([film.record.patient for film, _ in labels], self._resamples, self._seed)
        return {
            "films": len(films),
            "findings": len(labels),
            **self._faithfulness(films, progress, task),
            "randomised_weights": self._randomised(films, progress, task),
            "stability": self._stability(films, progress, task),
        }

    def _films(self) -> Iterator[_Probed]:
        for record in self._records:
            try:
                film = self._source.prepare(record)
                yield _Probed(record, film, self._source.look(film))
            except MslocError as error:
                self.problems.append(f"[{error.reason}] {record.name}: {error.message}")

    def _figure(self, values: Sequence[float]) -> dict[str, Any]:
        """Mean over the findings for which a value is known."""
        known = np.isfinite(values)
        weights = self._weights[:, known].astype(np.float64)
        samples = ratio(weights @ np.asarray(values, np.float64)[known], weights.sum(axis=1))
        return Figure.of(samples, int(known.sum())).to_dict()

    def _faithfulness(self, films: Sequence[_Probed], progress: Progress, task: TaskID) -> dict[str, Any]:
        """Deletion and insertion by the model's map, and by a random one."""
        curves: dict[str, dict[str, list[Array]]] = {"deletion": {}, "insertion": {}}
        for probed in films:
            for label in self._truth.regions[probed.record.name]:
                for row, map in self._maps(probed, label).items():
                    for kind, curve in _curves(self._source, probed.film, label, map).items():
                        curves[kind].setdefault(row, []).append(curve)
            progress.advance(task)
        return {
            kind: {
                "share": [step / perturb.STEPS for step in range(perturb.STEPS + 1)],
                "score": {row: np.mean(found, axis=0).round(5).tolist() for row, found in rows.items()},
                "auc": {row: self._figure([perturb.area(curve) for curve in found]) for row, found in rows.items()},
            }
            for kind, rows in curves.items()
        }

    def _maps(self, probed: _Probed, label: str) -> dict[str, NDArray[np.float32]]:
        film = perturb.film_of(probed.film)
        noise = self._priors.evidence(probed.record.name, label)["random"].values
        height, width = film.shape
        enlarged = np.asarray(cv2.resize(noise, (width, height)), np.float32)
        return {"model": _main(probed.seen, label).values, "random": enlarged}

    def _randomised(self, films: Sequence[_Probed], progress: Progress, task: TaskID) -> dict[str, Any] | None:
        """Rank correlation of maps with those of the same network with shuffled weights (Adebayo et al. 2018)."""
        try:
            tables = {}
            for share, source in self._shuffled():
                values = []
                for probed in films:
                    seen = source.look(probed.film)
                    for label in self._truth.regions[probed.record.name]:
                        maps = (_main(found, label).values for found in (probed.seen, seen))
                        values.append(perturb.rank_correlation(*maps))
                    progress.advance(task)
                tables[f"{share:g}"] = self._figure(values)
            return tables
        except MslocError as error:
            self.problems.append(f"[{error.reason}] randomised weights: {error.message}")
            return None

    def _shuffled(self) -> Iterator[tuple[float, ModelSource]]:
        backend = load_torch(self._source.bundle)
        source = self._source.within(backend)
        generator = torch.Generator().manual_seed(self._seed)
        for share in RANDOMISED:
            shuffle_weights(backend, share, generator)
            yield share, source

    def _stability(self, films: Sequence[_Probed], progress: Progress, task: TaskID) -> dict[str, Any]:
        """IoU of the largest region's box before and after a change, and how far the score goes."""
        overlaps: dict[str, list[float]] = {}
        changes: dict[str, list[float]] = {}
        for number, probed in enumerate(films):
            for name, (changed, back) in _changes(probed.film, np.random.default_rng([self._seed, number])).items():
                seen = self._source.look(changed)
                for label in self._truth.regions[probed.record.name]:
                    overlaps.setdefault(name, []).append(
                        box_overlap(_main(probed.seen, label), _main(seen, label), back)
                    )
                    changes.setdefault(name, []).append(abs(seen.scores[label] - probed.seen.scores[label]))
            progress.advance(task)
        return {
            name: {"box_iou": self._figure(overlaps[name]), "score_change": self._figure(changes[name])}
            for name in overlaps
        }


def shuffle_weights(backend: TorchBackend, share: float, generator: torch.Generator) -> None:
    """Shuffle the weights of the last `share` of a network's layers, each tensor within itself.

    Their distribution stays, and with it the scale of the features: what is lost is what was learned. Only tensors of
    two dimensions and more are weights; biases and statistics stay.
    """
    tensors = [tensor for tensor in backend.net.state_dict().values() if tensor.ndim > 1 and tensor.is_floating_point()]
    for tensor in tensors[len(tensors) - max(1, round(share * len(tensors))) :]:
        order = torch.randperm(tensor.numel(), generator=generator)
        tensor.copy_(tensor.flatten()[order].view(tensor.shape))


def box_overlap(before: Evidence, after: Evidence, back: tuple[int, int]) -> float:
    """IoU of the boxes of the largest regions of two maps, the second moved back by (down, right) pixels first.

    nan where the first has no region, 0 where the second has none.
    """
    first = largest_box(before.regions())
    if not len(first):
        return float("nan")
    moved = Evidence(*(perturb.moved(values, *back) for values in (after.values, after.margin)))
    return float(iou(first, largest_box(moved.regions())).max(initial=0))


def _main(seen: FilmMaps, label: str) -> Evidence:
    evidence = seen.main(label)
    assert evidence is not None  # a model has a map of each finding
    return evidence


def _curves(source: ModelSource, film: Prepared, label: str, map: NDArray[np.float32]) -> dict[str, Array]:
    whole = perturb.film_of(film)

    def score(changed: perturb.Film) -> float:
        return source.look(perturb.with_film(film, changed)).scores[label]

    curve = partial(perturb.replacement_curve, score, map=map)
    return {
        "deletion": curve(first=whole, second=perturb.plain(whole)),
        "insertion": curve(first=perturb.blurred(whole), second=whole),
    }


def _changes(film: Prepared, rng: np.random.Generator) -> Mapping[str, tuple[Prepared, tuple[int, int]]]:
    """Name -> the changed film, and by how much its maps are to be moved back."""
    whole = perturb.film_of(film)
    down, right = perturb.shift_of(whole)
    changed = {
        "shift": perturb.moved(whole, down, right),
        "noise": perturb.noisy(whole, rng),
        "narrower window": perturb.windowed(whole, perturb.CONTRAST),
        "wider window": perturb.windowed(whole, 1 / perturb.CONTRAST),
    }
    return {
        name: (perturb.with_film(film, values), (-down, -right) if name == "shift" else (0, 0))
        for name, values in changed.items()
    }
