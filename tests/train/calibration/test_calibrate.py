"""Calibration of a trained network: map thresholds by masks and heights, the gate, and figures of unseen films."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.bundle import Bundle, Profile
from msloc_edge.errors import TrainError
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.train.calibration.abnormal import FOLDS
from msloc_edge.train.calibration.calibrate import GATED, calibrate, check_films, cross_validate, fit
from msloc_edge.train.calibration.map_thresholds import HALF, MapThresholds, MaskedMap, Masks, masked_maps
from msloc_edge.train.calibration.network import MAP_STRIDE, TorchNetwork
from msloc_edge.train.calibration.observe import Observed, observe
from msloc_edge.train.calibration.thresholds import PROFILES, map_threshold
from msloc_edge.train.data import PHANTOM, Films
from msloc_edge.train.data.collection import fold_of

CLASSES, SIDE = ("Mass", "Nodule"), 64
GRID = SIDE // MAP_STRIDE


@pytest.fixture(scope="module")
def net() -> CamNet:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return build(ModelConfig(CLASSES, size=SIDE, pool="lse")).eval()


def films(source: str, labels: list[list[float]], seed: int, masks: bool) -> Films:
    """Random films; where there are masks, the class's half of the film."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), SIDE, SIDE), np.uint8)
    array = np.array(labels, np.float32)

    def regions(index: int) -> Mapping[str, NDArray[np.bool_]]:
        found = {}
        for k, label in enumerate(CLASSES):
            if array[index, k] == 1:
                found[label] = np.zeros((SIDE, SIDE), bool)
                found[label][:, k * SIDE // 2 : (k + 1) * SIDE // 2] = True
        return found

    names = tuple(f"{source} {at}" for at in range(len(labels)))
    return Films(source, CLASSES, pixels, array, names, names, masks=regions if masks else None)


def maps_of(net: CamNet, source: Films, k: int) -> list[NDArray[np.float32]]:
    """The maps of a class's positive films."""
    with torch.no_grad():
        return [
            fuse_cams(net(torch.from_numpy(film / np.float32(255))[None, None]).cams, net.head.relevance, (GRID, GRID))[
                0, k
            ].numpy()
            for film, labels in zip(source.pixels, source.labels, strict=True)
            if labels[k] == 1
        ]


def half(k: int) -> NDArray[np.bool_]:
    mask = np.zeros((GRID, GRID), bool)
    mask[:, k * GRID // 2 : (k + 1) * GRID // 2] = True
    return mask


def run(net: CamNet, *sources: Films) -> dict[str, list[float]]:
    profiles = calibrate(TorchNetwork(net), sources, None, 4, Progress(disable=True))["profiles"]
    assert list(profiles) == [*GATED, *PROFILES]
    assert {tuple(profile["map"]) for profile in profiles.values()} == {tuple(profiles["youden"]["map"])}
    assert isinstance(profiles["youden"], dict)
    return profiles["youden"]


BOTH = [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_phantoms_give_thresholds_by_their_masks(net: CamNet) -> None:
    phantoms = films(PHANTOM, BOTH, 1, masks=True)
    expected = []
    for k in range(2):
        maps = maps_of(net, phantoms, k)
        expected.append(map_threshold(maps, [half(k)] * len(maps))[0])
    assert run(net, phantoms)["map"] == pytest.approx(expected, rel=1e-5)


def test_real_films_take_the_share_of_the_height(net: CamNet) -> None:
    phantoms = films(PHANTOM, [[1, 0], [1, 0], [0, 0]], 2, masks=True)  # no mask of a nodule
    real = films("nih:there", BOTH, 3, masks=False)
    maps = maps_of(net, phantoms, 0)
    share = map_threshold(maps, [half(0)] * 2)[0] / np.median([found.max() for found in maps])
    heights = [np.median([found.max() for found in maps_of(net, real, k)]) for k in range(2)]
    found = calibrate(TorchNetwork(net), [real, phantoms], None, 4, Progress(disable=True))
    assert found["profiles"]["youden"]["map"] == pytest.approx([share * height for height in heights], rel=1e-5)
    assert found["validation"]["films"] == 4  # scores are those of the real films alone
    assert found["validation"]["sources"] == ["nih:there"]
    assert list(found["validation"]["map_iou"]) == ["Mass"]


def test_inserted_lesions_count_as_they_are(net: CamNet) -> None:
    real = films("nih:there", BOTH, 3, masks=False)
    lesions = films("lesions in nih:there", [[1, 0], [1, 0]], 5, masks=True)
    phantoms = films(PHANTOM, BOTH, 2, masks=True)
    threshold, overlap = map_threshold(maps_of(net, lesions, 0), [half(0)] * 2)
    found = calibrate(TorchNetwork(net), [real, phantoms], lesions, 4, Progress(disable=True))
    assert found["profiles"]["youden"]["map"][0] == pytest.approx(threshold, rel=1e-5)
    assert found["validation"]["map_iou"]["Mass"] == pytest.approx(overlap, abs=1e-4)
    assert found["validation"]["films"] == 4  # lesions decide nothing about scores
    rules = found["calibration"]["maps"]
    assert "inserted" in rules["Mass"]
    assert "phantoms' masks, scaled" in rules["Nodule"]
    assert rules["Nodule"].endswith("of real positives")
    assert found["calibration"]["scores"] == "4 validation films of nih:there"


def test_scores_are_judged_on_what_is_known(net: CamNet) -> None:
    known = films("csv:there", BOTH, 3, masks=True)
    some = films("csv:there", [*BOTH, [np.nan, 1], [0, np.nan]], 3, masks=True)
    table = calibrate(TorchNetwork(net), [some], None, 4, Progress(disable=True))["validation"]
    assert table["films"] == 6
    assert set(table["auroc"]) == set(CLASSES)
    assert run(net, known)["score"] != run(net, some)["score"]


def test_without_any_mask_half_of_the_height_is_taken(net: CamNet) -> None:
    real = films("csv:there", BOTH, 3, masks=False)
    heights = [np.median([found.max() for found in maps_of(net, real, k)]) for k in range(2)]
    found = calibrate(TorchNetwork(net), [real], None, 4, Progress(disable=True))
    expected = [height - (1 - HALF) * abs(height) for height in heights]
    assert found["profiles"]["youden"]["map"] == pytest.approx(expected, rel=1e-5)
    assert found["validation"]["map_iou"] == {}
    assert set(found["calibration"]["maps"].values()) == {"half of the height of the maps of real positives"}


def test_a_class_that_no_film_shows_gets_guesses_that_are_named(net: CamNet) -> None:
    real = films("csv:there", [[1, 0], [0, 0], [1, 0], [0, 0]], 3, masks=False)
    assert [sentence.split(":")[0] for sentence in check_films([real])] == ["Nodule"]
    found = calibrate(TorchNetwork(net), [real], None, 4, Progress(disable=True))
    assert found["calibration"]["guessed"] == ["Nodule"]
    assert "other findings" in found["calibration"]["maps"]["Nodule"]
    assert np.isfinite([number for p in found["profiles"].values() for number in (*p["score"], *p["map"])]).all()
    assert found["profiles"]["normal-90"]["rates"]["sensitivity"]["per_class"]["Nodule"]["value"] is None


def test_without_normal_films_there_is_no_gate(net: CamNet) -> None:
    found = calibrate(
        TorchNetwork(net), [films("csv:there", [[1, 0], [0, 1]] * 3, 3, masks=False)], None, 4, Progress(disable=True)
    )
    assert "abnormal" not in found
    assert list(found["profiles"]) == list(PROFILES)
    assert found["default_profile"] == "youden"
    assert found["profiles"]["youden"]["rates"]["normals_flagged"]["value"] is None


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        ([[1, 1], [1, 1]], "none without one"),
        ([[0, 0], [0, 0]], "none with a finding"),
        ([[np.nan, np.nan], [np.nan, np.nan]], "none with a finding, none without one"),
        ([[1, 0]], "no two patients"),
    ],
)
def test_what_cannot_be_calibrated_is_named_before_training(
    net: CamNet, labels: list[list[float]], missing: str
) -> None:
    sources = [films("csv:there", labels, 3, masks=False)]
    with pytest.raises(TrainError, match=f"expected validation films of several patients.* {missing}") as caught:
        check_films(sources)
    assert caught.value.reason == "data_missing"
    with pytest.raises(TrainError, match="expected validation films of several patients"):
        calibrate(TorchNetwork(net), sources, None, 4, Progress(disable=True))


def test_a_threshold_that_silences_real_films_is_lowered() -> None:
    # Ten positive films at levels 0.1 to 1, ten without at the same levels and lower scores. A mask that is fitted at
    # 0.7 would leave three of them: nine in ten have a region below 0.2.
    labels = np.repeat([[1.0], [0.0]], 10, axis=0).astype(np.float32)
    levels = np.tile(np.arange(1, 11, dtype=np.float32) / 10, 2)[:, None]
    patients = np.array([f"patient {at}" for at in range(20)])
    films = Observed(("Mass",), 4 * labels, levels, levels, labels, patients, {}, np.ones(20, bool))
    found = np.where(np.arange(16).reshape(4, 4) < 8, 1.0, 0.7).astype(np.float32)
    lesion = MaskedMap(0, "patient 0", found, found > 0.7)
    fitted = Masks([lesion], [], complete=False).fit(films)
    assert fitted.thresholds[0] == pytest.approx(0.2, abs=1e-6)
    assert fitted.thresholds[0] < np.float32(0.2)  # so that the film at this level has a region
    assert fitted.rules[0].endswith("lowered, so that 90% of real positives have a region")
    higher = replace(films, levels=levels + 1)
    assert 0.7 <= Masks([lesion], [], complete=False).fit(higher).thresholds[0] < 1
    assert "lowered" not in Masks([lesion], [], complete=False).fit(higher).rules[0]


# The gate, on observations that are made


MAPS = MapThresholds((0.0, 0.0), {}, ("by hand", "by hand"))


def observed(count: int, seed: int) -> Observed:
    """Films of `count` patients, two of each: normal or with one finding, whose logit and level are higher."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((2 * count, 2), np.float32)
    ill = rng.random(2 * count) < 0.6
    labels[np.flatnonzero(ill), rng.integers(0, 2, ill.sum())] = 1
    logits = (rng.normal(-2, 1, labels.shape) + 2.5 * labels).astype(np.float32)
    levels = (rng.normal(0, 1, labels.shape) + labels).astype(np.float32)
    patients = np.repeat([f"patient {at}" for at in range(count)], 2)
    groups = {"source": np.full(2 * count, "csv:there", object)}
    return Observed(("Mass", "Nodule"), logits, levels, levels, labels, patients, groups, np.ones(2 * count, bool))


def numbers(profile: Any) -> tuple[float, ...]:
    return (*profile.score, profile.film or -1.0)


def test_a_gate_lets_one_normal_film_in_ten_pass() -> None:
    films = observed(400, 0)
    fitted = fit(films, MAPS)
    assert fitted.abnormal
    chance = fitted.abnormal.model.probability(films.logits, fitted.temperature)
    normal = ~films.labels.any(axis=1)
    for name, rate in GATED.items():
        film = fitted.profiles[name].film
        assert film is not None
        assert (chance[normal] >= film).mean() == pytest.approx(rate, abs=0.01)
    assert all(fitted.profiles[name].film is None for name in PROFILES)


def test_films_are_judged_by_the_others_alone() -> None:
    films = observed(60, 1)
    folds = np.array([fold_of(patient, FOLDS) for patient in films.patients])
    asked: list[frozenset[str]] = []

    def fit_fold(others: Observed, left_out: frozenset[str]) -> Any:
        assert not left_out & set(others.patients)
        assert len(left_out | set(others.patients)) == 60
        asked.append(left_out)
        return fit(others, MAPS)

    names = [*GATED, *PROFILES]
    unseen = cross_validate(films, fit_fold, names)
    assert frozenset().union(*asked) == set(films.patients)
    assert (unseen.thresholds == 0).all()
    assert (unseen.folds == folds).all()
    for fold in range(FOLDS):  # the same by hand
        inside = folds == fold
        fitted = fit(films.take(~inside), MAPS)
        assert fitted.abnormal
        chance = fitted.abnormal.model.probability(films.logits[inside], fitted.temperature)
        assert unseen.abnormal[inside] == pytest.approx(chance)
        scores = 1 / (1 + np.exp(-films.logits[inside].astype(float) / fitted.temperature))
        for name in names:
            own = fitted.profiles[name].positive(chance, scores, films.levels[inside] > 0)
            assert (unseen.positive[name][inside] == own).all()


def test_poisoned_films_change_no_number_that_judges_them() -> None:
    films = observed(60, 2)
    inside = np.array([fold_of(patient, FOLDS) == 0 for patient in films.patients])
    poison = replace(
        films,
        logits=np.where(inside[:, None], np.float32(1e3), films.logits),
        levels=np.where(inside[:, None], np.float32(np.nan), films.levels),
        labels=np.where(inside[:, None], 1 - films.labels, films.labels),
    )
    kept: list[list[Any]] = [[], []]
    for fits, source in zip(kept, (films, poison), strict=True):

        def fit_fold(others: Observed, left_out: frozenset[str], fits: list[Any] = fits) -> Any:
            fitted = fit(others, MAPS)
            if left_out & set(films.patients[inside].tolist()):
                fits.append(fitted)
            return fitted

        cross_validate(source, fit_fold, [*GATED, *PROFILES])
    (clean,), (poisoned,) = kept
    assert clean.temperature == poisoned.temperature
    assert clean.abnormal == poisoned.abnormal
    for name, profile in clean.profiles.items():
        assert numbers(profile) == numbers(poisoned.profiles[name])


def test_masks_of_the_measured_patients_do_not_count(net: CamNet) -> None:
    real = films("nih:there", BOTH, 3, masks=False)
    lesions = replace(films("lesions in nih:there", [[1, 0], [1, 0]], 5, masks=True), patients=real.patients[:2])
    network, silent = TorchNetwork(net), Progress(disable=True)
    masks = Masks(masked_maps(network, [lesions], 4, silent), [], complete=False)
    seen = observe(network, [real], 16, 4, silent)
    maps = maps_of(net, lesions, 0)
    alone = map_threshold(maps[1:], [half(0)])[0]
    assert masks.fit(seen, real.patients[:1]).thresholds[0] == pytest.approx(alone, rel=1e-5)
    assert masks.fit(seen).thresholds[0] == pytest.approx(map_threshold(maps, [half(0)] * 2)[0], rel=1e-5)


def test_a_class_without_films_keeps_the_thresholds_of_the_bundle_before(bundle_with: Any) -> None:
    profile = {"score": [0.9, 0.8], "map": [0.0, 0.0]}
    before = replace(
        Bundle.open(bundle_with()), classes=("Mass", "Nodule"), temperature=2.0, profiles={"youden": Profile(**profile)}
    )
    films = observed(60, 3)
    films.labels[:, 1] = 0
    fitted = fit(films, MAPS, before)
    assert fitted.guessed == ("Nodule",)
    logit = math.log(0.8 / 0.2) * 2.0 / fitted.temperature  # the same logit, at another temperature
    assert fitted.profiles["youden"].score[1] == pytest.approx(1 / (1 + math.exp(-logit)))
    assert fitted.profiles["normal-90"].score[1] == fitted.profiles["youden"].score[1]
