"""Thresholds of a trained network: on phantoms from their masks, on real films by the height of their maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.kernels.fuse_cams.reference import fuse_cams
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.train.calibrate import MAP_STRIDE, calibrate
from msloc_edge.train.data import PHANTOM, Films
from msloc_edge.train.thresholds import map_threshold

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
    profiles = calibrate(net, sources, None, 4, Progress(disable=True))["profiles"]
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
    found = calibrate(net, [real, phantoms], None, 4, Progress(disable=True))
    assert found["profiles"]["youden"]["map"] == pytest.approx([share * height for height in heights], rel=1e-5)
    assert found["validation"]["films"] == 4  # scores are those of the real films alone
    assert found["validation"]["sources"] == ["nih:there"]
    assert list(found["validation"]["map_iou"]) == ["Mass"]


def test_inserted_lesions_count_as_they_are(net: CamNet) -> None:
    real = films("nih:there", BOTH, 3, masks=False)
    lesions = films("lesions in nih:there", [[1, 0], [1, 0]], 5, masks=True)
    phantoms = films(PHANTOM, BOTH, 2, masks=True)
    threshold, overlap = map_threshold(maps_of(net, lesions, 0), [half(0)] * 2)
    found = calibrate(net, [real, phantoms], lesions, 4, Progress(disable=True))
    assert found["profiles"]["youden"]["map"][0] == pytest.approx(threshold, rel=1e-5)
    assert found["validation"]["map_iou"]["Mass"] == pytest.approx(overlap, abs=1e-4)
    assert found["validation"]["films"] == 4  # lesions decide nothing about scores
    rules = found["calibration"]["maps"]
    assert "inserted" in rules["Mass"]
    assert "phantoms' masks, scaled" in rules["Nodule"]
    assert found["calibration"]["scores"] == "4 validation films of nih:there"


def test_scores_are_judged_on_what_is_known(net: CamNet) -> None:
    known = films("csv:there", BOTH, 3, masks=True)
    some = films("csv:there", [*BOTH, [np.nan, 1], [0, np.nan]], 3, masks=True)
    table = calibrate(net, [some], None, 4, Progress(disable=True))["validation"]
    assert table["films"] == 6
    assert set(table["auroc"]) == set(CLASSES)
    assert run(net, known)["score"] != run(net, some)["score"]


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        ([films("nih:there", BOTH, 3, masks=False)], "expected validation films with masks, got none"),
        ([films(PHANTOM, [[1, 0], [0, 0]], 1, masks=True)], "expected at least one validation film with each finding"),
        (
            [films("nih:there", [[1, 0], [0, 0]], 3, masks=False), films(PHANTOM, BOTH, 1, masks=True)],
            "expected at least one validation film with each finding",
        ),
        ([films(PHANTOM, [[1, 1], [1, 1]], 1, masks=True)], "with and without the finding, got only one kind"),
    ],
)
def test_what_cannot_be_calibrated_is_named(net: CamNet, sources: list[Films], why: str) -> None:
    with pytest.raises(TrainError, match=why) as caught:
        calibrate(net, sources, None, 4, Progress(disable=True))
    assert caught.value.reason == "data_missing"
