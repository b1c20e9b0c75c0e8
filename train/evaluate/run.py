"""An evaluation: which films need maps, measuring them, the figures, the pictures."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
from rich.progress import Progress

import msloc_edge
from msloc_edge._tables import counted
from msloc_edge.errors import MslocError, TrainError
from msloc_edge.imaging.reading import read_frame
from msloc_edge.pipeline import in_order
from msloc_edge.train.data import Record
from msloc_edge.train.data.collection import in_fitting_half, spelled
from msloc_edge.train.data.names import speller
from msloc_edge.train.evaluate.against import compare
from msloc_edge.train.evaluate.cases import Case, choose_cases, draw_case
from msloc_edge.train.evaluate.measure import FilmMaps, FilmMeasures, measure_film
from msloc_edge.train.evaluate.priors import Priors
from msloc_edge.train.evaluate.probe import Probe
from msloc_edge.train.evaluate.sources import ModelSource, Source
from msloc_edge.train.evaluate.summary import Summary
from msloc_edge.train.evaluate.truth import Truth
from msloc_edge.train.evaluate.write import SCHEMA

FROC_FILMS = 200
"""Films without any box whose maps are made, to count false boxes on them."""


def scoring_half(records: Sequence[Record]) -> tuple[tuple[Record, ...], str]:
    """Keep the films of the patients on whose boxes no threshold was fitted; the sentence says how many were left out.

    Raises TrainError when none is left.
    """
    kept = tuple(record for record in records if not in_fitting_half(record.patient))
    if not kept:
        raise TrainError(
            "data_missing", "map thresholds were fitted on the boxes of all these patients; use other films"
        )
    out = len(records) - len(kept)
    return (
        kept,
        f"{counted(out, 'film')} left out: of the half of the patients on whose boxes the map thresholds were fitted",
    )


class Evaluation:
    """A source of maps on films with labels and true regions.

    source     a model, or a folder of heatmaps
    records    the films
    truth      their true regions
    classes    findings whose labels the collection knows; a label is the source's also with blanks for underscores,
               and those that the source lacks are told as problems
    resamples  of the bootstrap; `seed` draws them, the priors' noise and the films without boxes

    Raises TrainError when nothing in common is left to be scored.
    """

    def __init__(
        self,
        source: Source,
        records: Sequence[Record],
        truth: Truth,
        classes: Sequence[str],
        resamples: int,
        seed: int,
    ) -> None:
        self._source, self._resamples, self._seed = source, resamples, seed
        spell = speller(source.parts)
        truth, classes = truth.spelled(spell), tuple(dict.fromkeys(map(spell, classes)))
        self._records = {record.name: record for record in spelled(records, spell)}
        self._problems = _unknown(truth, classes, source.parts)
        self._truth = truth.only(list(self._records), list(source.parts))
        self._labels = tuple(label for label in classes if label in source.parts)
        answered = any(record.labels for record in records)
        if not (self._labels and answered) and not self._truth.count:
            raise TrainError("option_invalid", _nothing_in_common(classes if answered else (), source.parts))
        boxed = [name for name in self._records if name in self._truth.regions]
        others = [name for name in self._records if name not in self._truth.regions]
        rng = np.random.default_rng(seed)
        some = set(rng.permutation(len(others))[: FROC_FILMS if boxed else 0].tolist())
        sampled = {name for at, name in enumerate(others) if at in some}
        self._localized = [name for name in self._records if name in self._truth.regions or name in sampled]
        self._plain = [name for name in others if name not in sampled]
        self._measured: list[FilmMeasures] = []
        self._errors: list[str] = []

    @property
    def failed(self) -> bool:
        """True where some film could not be read or localized."""
        return bool(self._errors)

    def measure(self, progress: Progress) -> None:
        """Measure all films. Raises TrainError when none could be scored."""
        self._measured = list(self._measure(progress))
        if not self._measured:
            raise TrainError("data_missing", f"none of {len(self._records)} films could be scored: {self._errors[0]}")

    def metrics(self, about: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Measure all films: the content of metrics.json. `about` is told in it."""
        self.measure(progress)
        names = {film.name for film in self._measured}
        truth, summary = self._summary(self._measured)
        tables = summary.tables(self._labels)
        problems = [*about["problems"], *self._problems, *self._errors, *dict.fromkeys(self._source.problems)]
        return {
            "schema": SCHEMA,
            "run": {
                **self._source.about(),
                **about,
                "versions": _versions(),
                "films": len(self._measured),
                "films_with_boxes": len(truth.regions),
                "films_for_false_boxes": len([name for name in self._localized if name in names]),
                "patients": summary.patients,
                "boxes": truth.count,
                "boxes_by_class": {
                    label: sum(len(found.get(label, ())) for found in truth.regions.values()) for label in truth.labels
                },
                "truth": truth.source,
                "truth_kind": truth.kind,
                "findings": list(self._labels),
                "intervals": f"95%, {self._resamples} bootstrap resamples of patients, seed {self._seed}",
                "problems": problems,
            },
            **tables,
        }

    def probe(self, count: int, progress: Progress) -> dict[str, Any] | None:
        """Probe the model on at most `count` of the films with boxes; None without one. What fails is a problem."""
        boxed = [record for name, record in self._records.items() if name in self._truth.regions]
        if not boxed or not isinstance(self._source, ModelSource):
            return None
        probe = Probe(self._source, boxed, self._truth, count, self._resamples, self._seed)
        tables = probe.tables(progress)
        return None if tables is None else {**tables, "problems": probe.problems}

    def against(self, other: Evaluation) -> dict[str, Any]:
        """Compare with another method, measured on the same films: differences, this one's figure less the other's."""
        mine, others = ({film.name: film for film in side._measured} for side in (self, other))
        names = [name for name in self._records if name in mine and name in others]
        labels = [label for label in self._labels if label in other._labels]
        _, first = self._summary([mine[name] for name in names])
        _, second = other._summary([others[name] for name in names])
        about = other._source.about()
        return {
            "what": about["what"],
            "threshold_rule": about["threshold_rule"],
            "films": len(names),
            "problems": [*other._problems, *other._errors, *dict.fromkeys(other._source.problems)],
            "figures": compare(first, second, labels),
        }

    def _summary(self, films: Sequence[FilmMeasures]) -> tuple[Truth, Summary]:
        truth = self._truth.only(sorted(film.name for film in films), list(self._source.parts))
        main = self._source.main_row
        return truth, Summary(films, self._records, truth, main, self._resamples, self._seed)

    def pictures(self) -> list[tuple[Case, Any]]:
        """Draw the best, median and worst finding of each class."""
        cases = choose_cases(self._measured, self._source.main_row, self._truth.labels)
        films = dict.fromkeys(case.film for case in cases)
        drawn = {}
        with closing(self._source.films([self._records[name] for name in films], localize=True)) as found:
            for record, maps in found:
                if isinstance(maps, MslocError):
                    continue  # it was read once before: the file has gone since
                display = read_frame(record.path).display()
                for case in cases:
                    if case.film == record.name:
                        drawn[case] = draw_case(
                            display, maps.main(case.label), self._truth.regions[case.film][case.label]
                        )
        return [(case, drawn[case]) for case in cases if case in drawn]

    def _measure(self, progress: Progress) -> Iterator[FilmMeasures]:
        task = progress.add_task("films", total=len(self._records))
        patients = {name: record.patient for name, record in self._records.items()}
        priors = Priors(self._truth, patients, self._seed)
        for names, localize in ((self._localized, True), (self._plain, False)):
            measure = partial(self._measure_film, localize=localize, priors=priors)
            with (
                closing(self._source.films([self._records[name] for name in names], localize)) as films,
                ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="measure") as pool,
                closing(in_order(pool, measure, films, ahead=4)) as measured,
            ):
                for (record, _), found in measured:
                    progress.advance(task)
                    if isinstance(found, MslocError):
                        name = "" if record.name in found.message else f"{record.name}: "
                        self._errors.append(f"[{found.reason}] {name}{found.message}")
                    else:
                        yield found

    def _measure_film(self, film: tuple[Record, FilmMaps | MslocError], localize: bool, priors: Priors) -> FilmMeasures:
        record, maps = film
        if isinstance(maps, MslocError):
            raise maps
        regions = self._truth.regions.get(record.name, {})
        absent = [
            label for label in self._truth.labels if localize and label not in regions and record.labels.get(label) == 0
        ]
        return measure_film(record.name, maps, regions, absent, self._source.main_row, priors)


def _unknown(truth: Truth, classes: Sequence[str], known: Collection[str]) -> list[str]:
    """Name the findings with boxes or labels that are not among those scored.

    Raises TrainError (option_invalid) for a file of boxes or masks in which there is nothing else.
    """
    lacking = [label for label in truth.labels if label not in known]
    if lacking and len(lacking) == len(truth.labels) and not truth.comes_with_films:
        raise TrainError(
            "option_invalid",
            f"{truth.source}: expected {truth.kind} of {_named(known)}, got {', '.join(lacking)}; rename them, or add "
            f'--map "{lacking[0]}=A+B"',
        )
    films = {label: sum(label in found for found in truth.regions.values()) for label in lacking}
    problems = [
        f"{label}: {truth.kind} on {counted(count, 'film')}, and no such finding among those scored; "
        f'--map "{label}=..." names what makes it up'
        for label, count in films.items()
    ]
    if unscored := [label for label in classes if label not in known]:
        problems.append(f"{', '.join(unscored)}: labels, and no such findings among those scored")
    return problems


def _nothing_in_common(classes: Sequence[str], known: Collection[str]) -> str:
    if not classes:
        return "expected labels or boxes, got films alone; fill in a column of 1 and 0, or give --boxes or --masks"
    return (
        f"expected labels or boxes of {_named(known)}, got {', '.join(classes)}; rename them, or add "
        f'--map "{classes[0]}=A+B"'
    )


def _named(findings: Collection[str]) -> str:
    return ", ".join(findings) or "the findings with maps"


def _versions() -> dict[str, str]:
    names = ("numpy", "onnxruntime")
    return {
        "msloc-edge": msloc_edge.__version__,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        **{name: version(name) for name in names},
    }
