"""Tables of metrics.json from measured films: sums over films, in the data and in each resample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge._statistics import Array, auroc, average_precision, ratio
from msloc_edge.train.calibration.rates import LabelledFilms, operating_point
from msloc_edge.train.calibration.resample import Figure, film_weights, mean_over
from msloc_edge.train.calibration.subgroups import band, in_order, subgroups
from msloc_edge.train.data import Record
from msloc_edge.train.data.films import label_array
from msloc_edge.train.evaluate import froc, maxbox, wang
from msloc_edge.train.evaluate.curves import FALSE_RATES, calibration_error, reliability_bins, roc
from msloc_edge.train.evaluate.measure import BLOB_T, COLUMNS, WIDTH, FilmMeasures
from msloc_edge.train.evaluate.truth import Truth

SIZE_BANDS = ((40.0, "under 40"), (80.0, "40-80"), (160.0, "80-160"), (1024.0, "over 160"))
"""Longest side of a finding's largest box, in pixels of a film whose longest side is 1024."""

ROW_METRICS = ("pointing", "blob_iou_0.1", "mean_iou", "maxboxaccv2", "wang_iou_0.1", "wang_iobb_0.1")
"""Figures of every row; the main row has all the others too."""

_Table = dict[str, Any]
_Ranked = Mapping[str, tuple[NDArray[np.intp], Array, NDArray[np.bool_]]]
"""Finding -> its films with a known label, where there are films of both kinds; their scores, their labels."""

Samples = tuple[dict[str, Array], dict[str, int]]
"""A figure of each finding: in the data and in each resample [B], and the number that it rests on."""


@dataclass(frozen=True, slots=True, eq=False)
class _Units:
    """The findings with boxes of one row and class, summed over each resample.

    sums   [B, WIDTH] of the measures
    drawn  [B] findings in each
    count  findings, and `boxes` true boxes, in the data
    """

    sums: Array
    drawn: Array
    count: int

    @classmethod
    def of(cls, values: Array, weights: NDArray[np.float32]) -> _Units:
        """Sum up measures [U, WIDTH] by the weight of each in the resamples [B, U]."""
        w = weights.astype(np.float64)
        return cls(w @ values, w.sum(axis=1), len(values))

    def total(self, column: str) -> Array:
        """Sums of a measure: [B, its width]."""
        return self.sums[:, COLUMNS[column]]

    def share(self, column: str) -> Array:
        """Mean over the findings: [B, its width]."""
        return ratio(self.total(column), self.drawn[:, None])

    @property
    def boxes(self) -> int:
        return round(float(self.total("boxes")[0, 0]))


class Summary:
    """All figures of an evaluation, each with a 95% interval by bootstrap over patients.

    films    what was measured, one of each record that could be read
    records  film name -> record, for labels, patient and subgroups
    truth    the true regions of those films
    """

    def __init__(
        self,
        films: Sequence[FilmMeasures],
        records: Mapping[str, Record],
        truth: Truth,
        main_row: str,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self._films, self._records, self._truth, self._main = films, [records[f.name] for f in films], truth, main_row
        self._everywhere = np.ones(len(films), bool)
        patients = [record.patient for record in self._records]
        self.patients = len(set(patients))
        self._weights = film_weights(patients, resamples, seed)
        self._resampled = resamples, seed
        self._places = [(row, label, at) for at, film in enumerate(films) for row, label in film.rows]
        self.row_names = tuple(dict.fromkeys(row for row, _, _ in self._places))
        found = {label for _, label, _ in self._places}
        self.box_labels = tuple(label for label in truth.labels if label in found)

    def tables(self, labels: Sequence[str]) -> _Table:
        """Every table: name -> figures. `labels` are the findings whose scores are told."""
        rows = {row: self._units(row, self._places) for row in self.row_names}
        main, ranked = rows.get(self._main, {}), self._ranked(labels, self._everywhere)
        return {
            "auroc": _table(*self._ranking(ranked, auroc)),
            "ap": _table(*self._ranking(ranked, average_precision)),
            "roc": _roc(ranked),
            "reliability": self._reliability(ranked),
            "profiles": self._profiles(labels),
            "operating_points": self._operating_points(),
            "pointing": _shares(main, "pointing"),
            "wang": _wang(main),
            "blob": {
                kind: {f"{t:g}": _shares(main, f"blob_{kind}", at) for at, t in enumerate(BLOB_T)}
                for kind in ("iou", "iobb")
            },
            "mean_iou": _shares(main, "blob_overlap"),
            "mask_iou": _shares(main, "mask_iou") if self._truth.kind == "masks" else None,
            "mask_iou_found": _mask_iou_found(main) if self._truth.kind == "masks" else None,
            "maxboxaccv2": _max_box(main),
            "froc": self._froc(),
            "subgroups": self._subgroups(labels),
            "rows": {row: _row(units) for row, units in rows.items()},
        }

    def samples(self, labels: Sequence[str]) -> dict[str, Samples]:
        """The main figures of the main row as samples, to be compared with another method's on the same films."""
        units = self._units(self._main, self._places)
        counts = {label: mine.count for label, mine in units.items()}
        ranked = self._ranked(labels, self._everywhere)
        shares = {"pointing": "pointing", "blob_iou_0.1": "blob_iou", "mean_iou": "blob_overlap"}
        curve, boxes, _ = self._froc_samples()
        return {
            "auroc": self._ranking(ranked, auroc),
            "ap": self._ranking(ranked, average_precision),
            **{
                name: ({label: mine.share(column)[:, 0] for label, mine in units.items()}, counts)
                for name, column in shares.items()
            },
            "froc_mean": ({label: values.mean(axis=1) for label, values in curve.items()}, boxes),
        }

    def _units(self, row: str, places: Sequence[tuple[str, str, int]]) -> dict[str, _Units]:
        """Label -> the findings with boxes of a row among `places` (row, label, film)."""
        chosen: dict[str, list[int]] = {label: [] for label in self.box_labels}
        for name, label, film in places:
            if name == row:
                chosen[label].append(film)
        return {
            label: _Units.of(
                np.array([self._films[film].rows[row, label] for film in films]).reshape(-1, WIDTH),
                self._weights[:, films],
            )
            for label, films in chosen.items()
            if films
        }

    def _known(self, label: str, films: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The films with a score of a finding whose label is known, and whether they have it."""
        at = [
            i
            for i in np.flatnonzero(films).tolist()
            if label in self._films[i].scores and label in self._records[i].labels
        ]
        positive = np.array([self._records[i].labels[label] > 0.5 for i in at], bool)
        return np.array(at, np.intp), positive

    def _ranking(
        self, ranked: _Ranked, metric: Callable[[Array, NDArray[np.bool_], NDArray[np.float32]], Array]
    ) -> Samples:
        samples, counts = {}, {}
        for label, (at, scores, positive) in ranked.items():
            samples[label], counts[label] = metric(scores, positive, self._weights[:, at]), len(at)
        return samples, counts

    def _ranked(self, labels: Sequence[str], films: NDArray[np.bool_]) -> _Ranked:
        found = {}
        for label in labels:
            at, positive = self._known(label, films)
            if positive.any() and not positive.all():
                found[label] = at, np.array([self._films[i].scores[label] for i in at], np.float64), positive
        return found

    def _reliability(self, ranked: _Ranked) -> _Table | None:
        """ECE and the bins of the diagram; None where some score is no probability."""
        if not ranked or any(scores.min() < 0 or scores.max() > 1 for _, scores, _ in ranked.values()):
            return None
        return {
            "ece": _table(*self._ranking(ranked, calibration_error)),
            "bins": {label: reliability_bins(scores, positive) for label, (_, scores, positive) in ranked.items()},
        }

    def _profiles(self, labels: Sequence[str]) -> _Table:
        names = dict.fromkeys(profile for film in self._films for profile in film.called)
        tables: _Table = {}
        for profile in names:
            parts: dict[str, tuple[dict[str, Array], dict[str, int]]] = {
                "sensitivity": ({}, {}),
                "specificity": ({}, {}),
            }
            for label in labels:
                at, positive = self._known(label, self._everywhere)
                called = np.array([self._films[i].called[profile][label] for i in at], bool)
                found = rates(called, positive, self._weights[:, at])
                for name, samples, count in zip(parts, found, (positive.sum(), (~positive).sum()), strict=True):
                    if count:
                        parts[name][0][label], parts[name][1][label] = samples, int(count)
            tables[profile] = {name: _table(*part) for name, part in parts.items()}
        return tables

    def _operating_points(self) -> dict[str, Any]:
        """Measure the rates of each profile, over all findings of the method; none of a method without profiles."""
        first = self._films[0]
        if not first.called:
            return {}
        classes = tuple(dict.fromkeys(label for called in first.called.values() for label in called))
        films = LabelledFilms(
            classes,
            label_array((record.labels for record in self._records), classes),
            tuple(record.patient for record in self._records),
            subgroups(self._records),
        )
        known = first.abnormal is not None
        abnormal = np.array([film.abnormal for film in self._films], np.float64) if known else None
        points = {}
        for name in first.called:
            positive = np.array([[film.called[name][label] for label in classes] for film in self._films], bool)
            boxes = np.array([[film.boxes.get(label, 0) for label in classes] for film in self._films])
            points[name] = operating_point(films, positive, (positive * boxes).sum(axis=1), abnormal, *self._resampled)
        return points

    def _froc_samples(self) -> tuple[dict[str, Array], dict[str, int], dict[str, dict[str, int]]]:
        """Label -> sensitivity at each rate [B, rates]; true boxes; films with boxes and without."""
        samples, counts, films_used = {}, {}, {}
        for label in self.box_labels:
            at = [i for i, film in enumerate(self._films) if label in film.detections]
            found = [self._films[i].detections[label] for i in at]
            true, false = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
            owners = [np.repeat(at, [len(pair[side]) for pair in found]) for side in (0, 1)]
            weights = [self._weights[:, owner] for owner in owners]
            films = self._weights[:, at].sum(axis=1, dtype=np.float64)
            samples[label] = froc.sensitivity_at(true, weights[0], false, weights[1], films)
            counts[label] = len(true)
            with_boxes = sum(bool(len(pair[0])) for pair in found)
            films_used[label] = {"with_boxes": with_boxes, "without": len(at) - with_boxes}
        return samples, counts, films_used

    def _froc(self) -> _Table | None:
        samples, counts, films_used = self._froc_samples()
        if not samples:
            return None
        curve = {
            f"{rate:g}": _table({label: values[:, column] for label, values in samples.items()}, counts)
            for column, rate in enumerate(froc.RATES)
        }
        mean = _table({label: values.mean(axis=1) for label, values in samples.items()}, counts)
        return {"iou": froc.MATCH_IOU, "false_boxes_per_film": curve, "mean": mean, "films": films_used}

    def _subgroups(self, labels: Sequence[str]) -> _Table:
        tables: _Table = {}
        for name, groups in subgroups(self._records).items():
            tables[name] = {}
            for group in in_order({group for group in groups if group}):
                films = np.array([mine == group for mine in groups])
                units = self._units(self._main, [place for place in self._places if films[place[2]]])
                ranking = _table(*self._ranking(self._ranked(labels, films), auroc))
                tables[name][group] = {
                    "films": int(films.sum()),
                    "auroc": ranking["macro"] if ranking else None,
                    **_row_macros(units),
                }
        if not self._places:
            return tables
        by_size: dict[str, list[tuple[str, str, int]]] = {name: [] for _, name in SIZE_BANDS}
        for place in self._places:
            by_size[self._size_band(place[2], place[1])].append(place)
        tables["box_size"] = {name: _row_macros(self._units(self._main, places)) for name, places in by_size.items()}
        return tables

    def _size_band(self, film: int, label: str) -> str:
        name = self._films[film].name
        scale = 1024 / max(self._truth.sizes[name])
        longest = max(max(region.box[2:]) for region in self._truth.regions[name][label])
        return band(longest * scale, SIZE_BANDS)


def rates(called: NDArray[np.bool_], positive: NDArray[np.bool_], weights: NDArray[np.float32]) -> tuple[Array, Array]:
    """Sensitivity and specificity, both [B], of N films that were called positive or not: [N], [N], [B, N]."""
    w = weights.astype(np.float64)
    sensitivity = ratio(w[:, called & positive].sum(axis=1), w[:, positive].sum(axis=1))
    return sensitivity, ratio(w[:, ~called & ~positive].sum(axis=1), w[:, ~positive].sum(axis=1))


def _table(samples: Mapping[str, Array], counts: Mapping[str, int]) -> _Table | None:
    """{"macro": the mean over the classes, "per_class": each}; None without any class."""
    if not samples:
        return None
    macro = Figure.of(mean_over(list(samples.values())), sum(counts.values()))
    per_class = {label: Figure.of(values, counts[label]).to_dict() for label, values in samples.items()}
    return {"macro": macro.to_dict(), "per_class": per_class}


def _roc(ranked: _Ranked) -> _Table | None:
    if not ranked:
        return None
    curves = {label: roc(scores, positive) for label, (_, scores, positive) in ranked.items()}
    return {
        "false_positive_rate": list(FALSE_RATES),
        "macro": np.mean(list(curves.values()), axis=0).round(5).tolist(),
        "per_class": {label: curve.round(5).tolist() for label, curve in curves.items()},
    }


def _shares(units: Mapping[str, _Units], column: str, at: int = 0) -> _Table | None:
    samples = {label: mine.share(column)[:, at] for label, mine in units.items()}
    return _table(samples, {label: mine.count for label, mine in units.items()})


def _mask_iou_found(units: Mapping[str, _Units]) -> _Table | None:
    """Mean IoU with the masks over the films on which something was found, as CheXlocalize has it."""
    samples = {
        label: ratio(mine.total("mask_iou")[:, 0], mine.total("mask_found")[:, 0]) for label, mine in units.items()
    }
    return _table(samples, {label: int(mine.total("mask_found")[0, 0]) for label, mine in units.items()})


def _wang_accuracy(units: Mapping[str, _Units], kind: str, at: int) -> _Table | None:
    samples = {
        label: ratio(mine.total(f"wang_{kind}_hits")[:, at], mine.total("boxes")[:, 0]) for label, mine in units.items()
    }
    return _table(samples, {label: mine.boxes for label, mine in units.items()})


def _wang(units: Mapping[str, _Units]) -> _Table | None:
    if not units:
        return None
    everything = np.sum([mine.total("boxes")[:, 0] for mine in units.values()], axis=0)
    number = sum(mine.boxes for mine in units.values())
    tables: _Table = {}
    for kind, thresholds in (("iou", wang.IOU_T), ("iobb", wang.IOBB_T)):
        tables[kind] = {}
        for at, threshold in enumerate(thresholds):
            false = {label: mine.total(f"wang_{kind}_false")[:, at] for label, mine in units.items()}
            afp = {label: ratio(values, everything) for label, values in false.items()}
            key = f"{threshold:g}"
            tables[kind][key] = {
                "accuracy": _wang_accuracy(units, kind, at),
                "afp": _table(afp, dict.fromkeys(units, number)),
                "published": {
                    figure: known for figure in ("accuracy", "afp") if (known := wang.published(kind, key, figure))
                },
            }
    return tables


def _max_box(units: Mapping[str, _Units]) -> _Table | None:
    if not units:
        return None
    shape = (-1, len(maxbox.LEVELS), len(maxbox.DELTAS))
    shares = {label: mine.share("maxbox").reshape(shape) for label, mine in units.items()}
    macro, level = maxbox.max_box_acc(mean_over(list(shares.values())))
    at_best = {label: np.take_along_axis(values, level[:, None], axis=1)[:, 0] for label, values in shares.items()}
    counts = {label: mine.count for label, mine in units.items()}
    number = sum(counts.values())
    return {
        "macro": Figure.of(macro.mean(axis=1), number).to_dict(),
        "per_class": {
            label: Figure.of(values.mean(axis=1), counts[label]).to_dict() for label, values in at_best.items()
        },
        "iou": {
            f"{delta:g}": {
                "macro": Figure.of(macro[:, column], number).to_dict(),
                "level": maxbox.LEVELS[level[0, column]],
            }
            for column, delta in enumerate(maxbox.DELTAS)
        },
    }


def _row(units: Mapping[str, _Units]) -> _Table:
    return {
        "pointing": _shares(units, "pointing"),
        "blob_iou_0.1": _shares(units, "blob_iou"),
        "mean_iou": _shares(units, "blob_overlap"),
        "maxboxaccv2": _max_box(units),
        "wang_iou_0.1": _wang_accuracy(units, "iou", 0),
        "wang_iobb_0.1": _wang_accuracy(units, "iobb", 0),
    }


def _row_macros(units: Mapping[str, _Units]) -> _Table:
    """The main figures of a subgroup, macro only."""
    tables = {
        "pointing": _shares(units, "pointing"),
        "blob_iou_0.1": _shares(units, "blob_iou"),
        "blob_iobb_0.1": _shares(units, "blob_iobb"),
        "mean_iou": _shares(units, "blob_overlap"),
    }
    found: _Table = {name: table["macro"] if table else None for name, table in tables.items()}
    return {"boxed_findings": sum(mine.count for mine in units.values()), **found}
