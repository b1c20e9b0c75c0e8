"""Calibration of a trained network: temperature, film gate, thresholds, and what they do, measured. No box is used.

Everything is fitted on validation films, and measured by cross-validation: a film is judged by numbers that no film of
its patient had a part in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge._tables import counted
from msloc_edge.backends import Backend
from msloc_edge.bundle import Bundle, Profile, RegionRule
from msloc_edge.bundle.profile import film_evidence
from msloc_edge.errors import TrainError
from msloc_edge.model import build
from msloc_edge.train.calibration.abnormal import (
    FOLDS,
    AbnormalFit,
    abnormal_films,
    film_threshold,
    fit_abnormal,
    normal_films,
)
from msloc_edge.train.calibration.coarse import choose_films
from msloc_edge.train.calibration.map_thresholds import MapThresholds, Masks, masked_maps
from msloc_edge.train.calibration.network import BundleNetwork, Network, TorchNetwork
from msloc_edge.train.calibration.observe import Observed, count_boxes, observe
from msloc_edge.train.calibration.rates import LabelledFilms, operating_point
from msloc_edge.train.calibration.region_rule import fit_region_rule, lesion_regions
from msloc_edge.train.calibration.thresholds import PROFILES, fit_temperature, missing_thresholds, score_thresholds
from msloc_edge.train.calibration.tradeoff import GatedFilms, TradeOff
from msloc_edge.train.config import TrainConfig
from msloc_edge.train.data import Films, real
from msloc_edge.train.data.collection import fold_of
from msloc_edge.train.lesions.films import lesion_films
from msloc_edge.train.validate import Validation
from msloc_edge.types import MIN_AREA

GATED: Mapping[str, float] = {"normal-90": 0.10, "normal-95": 0.05}
"""Profiles with a film gate, and the share of normal films that may pass it. The first sets the trade-off of both."""

UNGATED_DEFAULT = "youden"
RESAMPLES = 1000

FitMaps = Callable[[Observed, Collection[str]], MapThresholds]
"""(films, patients whose masks must not count) -> map thresholds."""


def check_films(sources: Sequence[Films]) -> list[str]:
    """Check before training that its end can be calibrated on these validation films.

    returns  a sentence for each class whose thresholds will be guesses

    Raises TrainError (data_missing) when there is nothing to fit on.
    """
    labels = np.concatenate([source.labels for source in real(sources)])
    patients = {patient for source in real(sources) for patient in source.patients}
    missing = [
        what
        for what, lacks in (
            ("no two patients for a cross-validation", len({fold_of(patient, FOLDS) for patient in patients}) < 2),
            ("none with a finding", not (labels > 0.5).any()),
            ("none without one", not (labels < 0.5).any()),
        )
        if lacks
    ]
    if missing:
        got = f"{counted(len(labels), 'film')} of {counted(len(patients), 'patient')}, {', '.join(missing)}"
        raise TrainError(
            "data_missing",
            f"expected validation films of several patients, with findings and without, got {got}; add films "
            "or labels, tell the split in a column, or, in a recipe, raise val_films",
        )
    return [
        f"{label}: expected validation films with and without it, got only one kind; its thresholds are guesses"
        for k, label in enumerate(sources[0].classes)
        if np.unique(labels[~np.isnan(labels[:, k]), k]).size < 2
    ]


def calibrate(
    network: Network, sources: Sequence[Films], lesions: Films | None, batch: int, progress: Progress
) -> dict[str, Any]:
    """Calibrate a trained network on validation films; plain values, for the bundle.

    sources  validation films; scores are fitted on the real ones where there are any
    lesions  real films of them with inserted lesions and their masks, if there are any

    Returns the manifest's `temperature`, `abnormal`, `regions`, `profiles`, `default_profile`, `calibration` (what was
    fitted on what) and `validation` (figures). Raises TrainError (data_missing) when there is nothing to fit on.
    """
    check_films(sources)
    judged = real(sources)
    masks = Masks(
        masked_maps(network, [lesions] if lesions else [], batch, progress),
        masked_maps(network, [source for source in sources if source.masks], batch, progress),
        all(source.masks for source in judged),
    )
    films = Chosen.of(network, judged, MIN_AREA, batch, progress)
    rule, about_rule = _region_rule(network, lesions, masks.fit(films.observed), batch, progress)
    if rule.min_area != MIN_AREA:
        films = replace(films, observed=observe(network, films.sources, rule.min_area, batch, progress))
    found = _calibrated(network, films, masks.fit, rule, None, batch, progress)
    return found | {"calibration": found["calibration"] | about_rule}


def calibrate_run(state: Mapping[str, Any], sources: Sequence[Films], batch: int, progress: Progress) -> dict[str, Any]:
    """Calibrate the checkpoint of a run, also of one that was never calibrated; its state with what was found.

    Where the run inserted lesions, some are inserted into the normal films.
    """
    config = TrainConfig.from_dict(state["config"])
    net = build(config.model)
    net.load_state_dict(state["model"])
    lesions = lesion_films(sources, config.model.classes, config.model.size // 2) if config.insert else None
    return {"films": {}, **state, **calibrate(TorchNetwork(net), sources, lesions, batch, progress)}


def recalibrate(
    bundle: Bundle, backend: Backend, sources: Sequence[Films], batch: int, progress: Progress
) -> dict[str, Any]:
    """Calibrate a bundle on other films, as `calibrate` does a network.

    Map thresholds and the rule of fragments stay: they belong to the network, and were fitted on masks. A class that
    the films do not show keeps its score thresholds. Raises TrainError (data_missing) also where films of one kind,
    normal or abnormal, are missing.
    """
    check_films(sources)
    labels = np.concatenate([source.labels for source in sources])
    if not normal_films(labels).any() or not abnormal_films(labels).any():
        raise TrainError(
            "data_missing",
            f"expected films without any finding and films with one, got {len(labels)} of one kind; add some",
        )
    network = BundleNetwork(bundle, backend)
    told = bundle.manifest["calibration"]["maps"]
    kept = MapThresholds(bundle.profile().map, {}, tuple(told[label] for label in bundle.classes))
    films = Chosen.of(network, sources, bundle.regions.min_area, batch, progress)
    found = _calibrated(network, films, lambda *_: kept, bundle.regions, bundle, batch, progress)
    about_rule = {key: value for key, value in bundle.manifest["calibration"].items() if key == "regions"}
    return found | {"calibration": found["calibration"] | about_rule}


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Films that an operating point is fitted and measured on.

    sources     that count
    observed    what the network says of their films
    coarse      what was measured of films coarser than the input; None where there are none
    validation  figures of all films, also of those that do not count
    """

    sources: Sequence[Films]
    observed: Observed
    coarse: Mapping[str, Any] | None
    validation: Mapping[str, Any]

    @classmethod
    def of(cls, network: Network, sources: Sequence[Films], min_area: int, batch: int, progress: Progress) -> Chosen:
        """Run the network over all films, and choose."""
        observed = observe(network, sources, min_area, batch, progress)
        chosen, coarse = choose_films(observed)
        auroc = Validation(observed.logits, observed.labels, math.nan).auroc
        validation = {
            "films": len(observed),
            "sources": [source.source for source in sources],
            "auroc": {
                label: None if np.isnan(value) else round(float(value), 4)
                for label, value in zip(observed.classes, auroc, strict=True)
            },
        }
        used = set(observed.groups["source"][chosen])
        kept = [source for source in sources if source.source in used]
        return cls(kept, observed.take(chosen), coarse, validation)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Numbers fitted on some films. `abnormal` is None, and no profile gated, where one kind of film is missing."""

    temperature: float
    abnormal: AbnormalFit | None
    profiles: Mapping[str, Profile]
    maps: MapThresholds
    guessed: tuple[str, ...]


def fit(observed: Observed, maps: MapThresholds, previous: Bundle | None = None) -> Fitted:
    """Fit temperature, film gate and score thresholds on films, given the map thresholds.

    previous  whose score thresholds a class keeps that has not both kinds of films
    """
    temperature = fit_temperature(observed.logits, observed.labels)
    odds = observed.logits.astype(np.float64) / temperature
    scores = _sigmoid(odds)
    plain, guessed = _plain_thresholds(observed, scores, previous, temperature)
    profiles = {name: Profile(tuple(table[name] for table in plain), maps.thresholds) for name in PROFILES}
    normal, ill = normal_films(observed.labels), abnormal_films(observed.labels)
    if not normal.any() or not ill.any():
        return Fitted(temperature, None, profiles, maps, guessed)
    known = normal | ill
    evidence = film_evidence(observed.logits[known], temperature)
    abnormal = fit_abnormal(evidence, ill[known], observed.patients[known].tolist())
    chance = abnormal.model.probability(observed.logits, temperature)
    regions = observed.levels > np.array(maps.thresholds, np.float32)
    gated: dict[str, Profile] = {}
    posterior = None
    for name, rate in GATED.items():
        film = film_threshold(chance[normal], rate)
        films = GatedFilms(odds, observed.labels, regions, chance >= film)
        trade_off = TradeOff.fit(films, observed.classes)
        posterior = posterior or trade_off.posterior(films)
        score = _sigmoid(trade_off.thresholds(posterior))
        others = [_kept(previous, name, k, temperature) or plain[k][UNGATED_DEFAULT] for k in range(len(score))]
        gated[name] = Profile(tuple(np.where(np.isnan(score), others, score).tolist()), maps.thresholds, film)
    return Fitted(temperature, abnormal, gated | profiles, maps, guessed)


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """Films as they are judged by numbers that no film of their patient had a part in. N films, K classes.

    positive    profile -> [N, K] whether each finding is positive
    abnormal    [N] p_abnormal; nan without a gate
    thresholds  [N, K] of the maps
    folds       [N]
    """

    positive: Mapping[str, NDArray[np.bool_]]
    abnormal: NDArray[np.float64]
    thresholds: NDArray[np.float32]
    folds: NDArray[np.intp]


def cross_validate(
    observed: Observed, fit_fold: Callable[[Observed, frozenset[str]], Fitted], profiles: Sequence[str]
) -> Unseen:
    """Judge every film by numbers fitted without its patient.

    fit_fold  (films of the other folds, patients to be left out) -> numbers
    """
    folds = np.array([fold_of(patient, FOLDS) for patient in observed.patients])
    positive = {name: np.zeros(observed.logits.shape, np.bool_) for name in profiles}
    abnormal = np.full(len(observed), np.nan)
    thresholds = np.zeros(observed.logits.shape, np.float32)
    for fold in np.unique(folds):
        inside = folds == fold
        fitted = fit_fold(observed.take(~inside), frozenset(observed.patients[inside].tolist()))
        logits = observed.logits[inside]
        scores = _sigmoid(logits.astype(np.float64) / fitted.temperature)
        if fitted.abnormal:
            abnormal[inside] = fitted.abnormal.model.probability(logits, fitted.temperature)
        thresholds[inside] = fitted.maps.thresholds
        regions = observed.levels[inside] > thresholds[inside]
        for name in profiles:
            profile = fitted.profiles.get(name, fitted.profiles[UNGATED_DEFAULT])
            positive[name][inside] = profile.positive(abnormal[inside], scores, regions)
    return Unseen(positive, abnormal, thresholds, folds)


def _calibrated(
    network: Network,
    films: Chosen,
    fit_maps: FitMaps,
    rule: RegionRule,
    previous: Bundle | None,
    batch: int,
    progress: Progress,
) -> dict[str, Any]:
    """Fit on all films that count, measure by cross-validation, and tell it as plain values."""
    observed = films.observed
    fitted = fit(observed, fit_maps(observed, ()), previous)
    unseen = cross_validate(
        observed, lambda others, left_out: fit(others, fit_maps(others, left_out), previous), tuple(fitted.profiles)
    )
    flagged = np.logical_or.reduce([called.any(axis=1) for called in unseen.positive.values()])
    looked_at = normal_films(observed.labels) & flagged
    boxes = count_boxes(network, films.sources, looked_at, unseen.thresholds, rule, batch, progress)
    rates = _rates(observed, unseen, boxes, fitted.abnormal is not None)
    classes, maps = observed.classes, fitted.maps
    return {
        "temperature": fitted.temperature,
        **({"abnormal": _plain_abnormal(fitted.abnormal)} if fitted.abnormal else {}),
        "regions": {"min_area": rule.min_area, "min_share": rule.min_share},
        "profiles": {name: _plain_profile(profile, rates[name]) for name, profile in fitted.profiles.items()},
        "default_profile": next(iter(GATED)) if fitted.abnormal else UNGATED_DEFAULT,
        "calibration": {
            "scores": f"{len(observed)} validation films of {', '.join(_sources(observed))}",
            "maps": dict(zip(classes, maps.rules, strict=True)),
            **({"abnormal": _about_abnormal(fitted.abnormal)} if fitted.abnormal else {}),
            **({"coarse": films.coarse} if films.coarse else {}),
            **({"guessed": list(fitted.guessed)} if fitted.guessed else {}),
        },
        "validation": {
            **films.validation,
            "map_iou": {classes[k]: round(iou, 4) for k, iou in maps.overlap.items()},
        },
    }


def _rates(films: Observed, unseen: Unseen, boxes: NDArray[np.intp], gated: bool) -> dict[str, dict[str, Any]]:
    """Measure the rates of each profile."""
    protocol = f"{FOLDS}-fold cross-validation by patient, 95% intervals by {RESAMPLES} resamples of patients"
    labelled = LabelledFilms(films.classes, films.labels, tuple(films.patients.tolist()), films.groups)
    return {
        name: {"protocol": protocol, "data": _sources(films)}
        | operating_point(
            labelled,
            called,
            (boxes * called).sum(axis=1),
            unseen.abnormal if gated else None,
            RESAMPLES,
            folds=unseen.folds,
        )
        for name, called in unseen.positive.items()
    }


def _sources(films: Observed) -> list[str]:
    return sorted({str(name) for name in films.groups["source"]})


def _region_rule(
    network: Network, lesions: Films | None, maps: MapThresholds, batch: int, progress: Progress
) -> tuple[RegionRule, dict[str, Any]]:
    """Fit the rule of fragments, and tell `calibration` how."""
    found = list(lesion_regions(network, lesions, maps.thresholds, batch, progress)) if lesions else []
    if not found:
        return RegionRule(), {}
    rule, f1, without = fit_region_rule(found, network.size)
    figures = {"lesions": len(found), "f1": round(f1, 4), "f1_without_rule": round(without, 4)}
    return rule, {"regions": figures}


def _plain_thresholds(
    observed: Observed, scores: NDArray[np.float64], previous: Bundle | None, temperature: float
) -> tuple[list[dict[str, float]], tuple[str, ...]]:
    """Fit each class's thresholds of the profiles without a gate; name the classes without both kinds of films."""
    tables, guessed = [], []
    for k, label in enumerate(observed.classes):
        try:
            tables.append(score_thresholds(scores[:, k], observed.labels[:, k]))
        except ValueError:
            guess = missing_thresholds(scores[:, k], observed.labels[:, k])
            tables.append({name: _kept(previous, name, k, temperature) or guess for name in PROFILES})
            guessed.append(label)
    return tables, tuple(guessed)


def _kept(previous: Bundle | None, name: str, k: int, temperature: float) -> float | None:
    """Give a class's score threshold in an earlier bundle, at this temperature; None where there is none."""
    if previous is None or name not in previous.profiles:
        return None
    score = min(max(previous.profiles[name].score[k], 1e-12), 1 - 1e-12)
    return float(_sigmoid(math.log(score / (1 - score)) * previous.temperature / temperature))


def _plain_profile(profile: Profile, rates: Mapping[str, Any]) -> dict[str, Any]:
    film = {} if profile.film is None else {"film": profile.film}
    return film | {"score": list(profile.score), "map": list(profile.map), "rates": dict(rates)}


def _plain_abnormal(found: AbnormalFit) -> dict[str, Any]:
    return {"weights": list(found.model.weights), "bias": found.model.bias}


def _about_abnormal(found: AbnormalFit) -> dict[str, Any]:
    strength = "equal weights" if math.isinf(found.strength) else found.strength
    return {
        "regularisation": strength,
        "auroc_weighted": round(found.auroc, 4),
        "auroc_sum": round(found.sum_auroc, 4),
    }


def _sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
