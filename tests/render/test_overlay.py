"""Overlay pictures: where things are drawn, and above all where nothing is."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from msloc_edge.render.colors import palette, rgb
from msloc_edge.render.overlay import grey_film, overlay
from msloc_edge.render.panel import _Page, operating_point, panel, share
from msloc_edge.result import Result
from msloc_edge.types import Box, FilmGate, Finding, OperatingPoint

NIH = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
]
THRESHOLDS = {"Effusion": 1.0, "Mass": 1.0, "Nodule": 1.0}


def film(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((height, width), np.float32)


def film_area(picture: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """The part of the picture that shows the film: at the left, centred vertically."""
    top = (picture.shape[0] - grey.shape[0]) // 2
    return picture[top : top + grey.shape[0], : grey.shape[1]]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((64, 64), (700, 700)),  # tiny: enlarged to be readable
        ((1024, 800), (1024, 800)),
        ((4000, 4000), (1400, 1400)),
        ((3000, 2500), (1400, 1167)),
        ((64, 640), (140, 1400)),  # enlarged as far as the longest side allows
        ((2000, 10), (1400, 7)),
        ((1, 3000), (1, 1400)),
        ((1, 1), (700, 700)),
    ],
)
def test_sizes_and_aspects(make_result, size: tuple[int, int], shown: tuple[int, int]) -> None:
    height, width = size
    box = (0.2 * width, 0.2 * height, 0.5 * width, 0.5 * height)
    picture = overlay(film(*size), make_result(size, {"Mass": box}), map_thresholds=THRESHOLDS)
    assert picture.dtype == np.uint8
    assert grey_film(film(*size), 1400).shape == shown
    assert picture.shape[0] >= max(shown[0], 200)
    assert picture.shape[1] > shown[1] + 200  # the panel
    assert picture.shape[2] == 3


def test_a_smaller_side_is_respected(make_result) -> None:
    assert grey_film(film(3000, 2500), 512).shape == (512, 427)
    assert overlay(film(3000, 2500), make_result((3000, 2500)), 512).shape[0] >= 512


def test_the_film_is_untouched_without_findings(make_result) -> None:
    display = film(900, 700)
    picture = overlay(display, make_result((900, 700)), map_thresholds=THRESHOLDS)
    np.testing.assert_array_equal(picture[:, :700], np.repeat(np.rint(display * 255)[:, :, None], 3, axis=2))
    assert picture[:, 700:].std() > 10  # the panel says so in words


def test_nothing_is_drawn_away_from_the_regions(make_result) -> None:
    display = film(1000, 1000)
    boxes = {"Effusion": (100.0, 600.0, 200.0, 250.0), "Nodule": (700.0, 150.0, 80.0, 80.0)}
    picture = overlay(display, make_result((1000, 1000), boxes), map_thresholds=THRESHOLDS)
    grey = grey_film(display, 1400)
    changed = (film_area(picture, grey) != grey[:, :, None]).any(axis=2)
    near = np.zeros_like(changed)
    for x, y, w, h in boxes.values():
        near[int(y) - 50 : int(y + h) + 50, int(x) - 50 : int(x + w) + 50] = True
    assert changed[near].any()
    assert not changed[~near].any()
    inside = np.s_[700:750, 170:230]  # a tint at most: the anatomy stays in sight
    difference = film_area(picture, grey)[inside].astype(int) - grey[inside][:, :, None]
    assert np.abs(difference).max() < 0.25 * 255


def test_a_box_is_drawn_where_it_is_with_a_dark_halo(make_result) -> None:
    display = np.ones((1000, 1000), np.float32)  # white bone
    result = make_result((1000, 1000), {"Mass": (200, 300, 400, 300)})
    picture = overlay(display, result)  # no thresholds: the box alone
    color = rgb(palette(NIH)["Mass"])[::-1]
    is_line = (film_area(picture, display) == color).all(axis=2)
    for y, x in [(300, 400), (599, 400), (450, 200), (450, 599)]:
        assert is_line[y - 1 : y + 2, x - 1 : x + 2].any(), (y, x)
    assert not is_line[310:590, 210:590].any()
    outward = picture[450, 195:202].astype(int).sum(axis=1)
    assert outward.min() < 0.5 * 3 * 255


def test_the_outline_runs_at_the_threshold(make_result) -> None:
    result = make_result((1000, 1000), {"Mass": (0, 0, 1000, 1000)})
    ramp = np.repeat(np.linspace(0, 2, 64, dtype=np.float32)[None], 64, axis=0)
    result.maps["Mass"] = ramp  # reaches 1.0 in the middle
    display = np.full((1000, 1000), 0.5, np.float32)
    picture = film_area(overlay(display, result, map_thresholds=THRESHOLDS), display)
    row = picture[500, 20:980].astype(int)
    saturation = row.max(axis=1) - row.min(axis=1)
    assert abs(int(saturation.argmax()) + 20 - 500) <= 2
    assert saturation[:470].max() == 0  # below the threshold: the film as it is


@pytest.mark.parametrize("threshold", [0.0, -2.0, float("inf"), float("nan")])
def test_odd_thresholds_and_flat_maps_do_not_flood_the_film(make_result, threshold: float) -> None:
    result = make_result((800, 800), {"Mass": (100, 100, 50, 50)})
    result.maps["Mass"] = np.full((64, 64), -5, np.float32)
    display = film(800, 800)
    picture = overlay(display, result, map_thresholds={"Mass": threshold})
    grey = grey_film(display, 1400)
    np.testing.assert_array_equal(film_area(picture, grey)[300:], np.repeat(grey[300:, :, None], 3, axis=2))


def test_many_boxes_hostile_names_and_long_lists(make_result) -> None:
    base = make_result((500, 500), name="films\\Thorax ü 胸部\n" + "x" * 300, warnings=("dicom.window_guessed",))
    boxes = tuple(Box(x, y, 60, 60, 0.9) for x in (-20, 0, 220, 460) for y in (-20, 0, 220, 460))
    findings = tuple(
        Finding(f"Class_{i}", 0.9 - 0.01 * i, 0.5, i < 20, (1.0,), None, boxes if i < 2 else ()) for i in range(60)
    )
    picture = overlay(film(500, 500), type(base)(base.input, "", base.model, "", base.geometry, findings))
    assert picture.shape[0] > 700  # the panel grows, and the film stays centred beside it
    grey = grey_film(film(500, 500), 1400)
    middle = np.s_[180:290, 180:290]
    np.testing.assert_array_equal(film_area(picture, grey)[middle], np.repeat(grey[middle][:, :, None], 3, axis=2))


FIVE = {
    label: (100.0 + 160 * order, 100.0 + 160 * order, 80.0, 80.0)
    for order, label in enumerate(("Effusion", "Mass", "Nodule", "Pneumothorax", "Edema"))
}


@pytest.mark.parametrize(("show", "drawn"), [(None, 5), (7, 5), (3, 3), (1, 1), (0, 0)])
def test_the_strongest_findings_are_drawn_and_no_more(make_result, show: int | None, drawn: int) -> None:
    """Label after label is fainter (0.9, 0.8, ...) at one threshold, so they are drawn in the order of FIVE."""
    display = np.full((1000, 1000), 0.5, np.float32)
    result = make_result((1000, 1000), FIVE, labels=tuple(FIVE))
    picture = film_area(overlay(display, result, show=show), display)
    colored = [np.ptp(picture[int(y) - 40 : int(y) + 120, int(x) - 40 : int(x) + 120], axis=2).max() > 50
               for x, y, _, _ in FIVE.values()]  # fmt: skip
    assert colored == [True] * drawn + [False] * (5 - drawn)


def test_three_findings_are_drawn_where_nobody_asks_for_more(make_result) -> None:
    display, result = film(500, 500), make_result((500, 500), FIVE, labels=tuple(FIVE))
    np.testing.assert_array_equal(overlay(display, result), overlay(display, result, show=3))


def words(monkeypatch: pytest.MonkeyPatch, result: Result, show: int | None = None) -> list[str]:
    """What the panel of a result says, text by text, from the top down; the footer comes last."""
    said: list[str] = []
    write = _Page._write

    def remember(page: _Page, text: str, *place: Any, **anchor: Any) -> None:
        said.append(text)
        write(page, text, *place, **anchor)

    with monkeypatch.context() as patch:
        patch.setattr(_Page, "_write", remember)
        panel(result, palette(f.label for f in result.findings), 16, 700, show)
    return said


def test_the_panel_lists_what_is_not_drawn(make_result, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result((1000, 1000), {label: FIVE[label] for label in list(FIVE)[:4]}, labels=tuple(FIVE))
    said = words(monkeypatch, result, show=3)
    assert said[:2] == ["film.png", "4 findings"]
    parts = ("Also found, not drawn", "Not positive")
    also, rest = (said.index(part) for part in parts)
    assert [text for text in said[:also] if text in FIVE] == ["Effusion", "Mass", "Nodule"]
    assert [text for text in said[also:rest] if text in FIVE] == ["Pneumothorax"]
    assert [text for text in said[rest:] if text in FIVE] == ["Edema"]
    assert parts[0] not in words(monkeypatch, result, show=4)
    assert parts[1] not in words(monkeypatch, make_result((1000, 1000), FIVE, labels=tuple(FIVE)))


def test_the_panel_says_why_a_score_above_its_threshold_is_no_finding(
    make_result, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result((80, 100), {"Mass": (10, 10, 20, 20)})
    findings = tuple(replace(found, positive=False, boxes=()) for found in result.findings)
    said = words(monkeypatch, replace(result, findings=findings))
    at = said.index("Not positive")
    assert said[at + 1 : at + 4] == ["Mass", "0.80", "no region"]
    assert said.count("no region") == 1


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        (FilmGate(0.62, 0.5), "Film as a whole: 0.62, above 0.50"),
        (FilmGate(0.031, 0.5), "Film as a whole: 0.031, below 0.50"),
        (FilmGate(0.62, None), "Film as a whole: 0.62"),
    ],
)
def test_the_panel_says_what_the_film_is_as_a_whole(
    make_result, monkeypatch: pytest.MonkeyPatch, gate: FilmGate, line: str
) -> None:
    said = words(monkeypatch, make_result((80, 100), gate=gate))
    assert said[:3] == ["film.png", "No finding", line]
    assert not any("whole" in text for text in words(monkeypatch, make_result((80, 100))))


def test_the_panel_names_the_profile_and_its_rate(make_result, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result((80, 100), operating_point=OperatingPoint("normal-90", 0.098))
    said = words(monkeypatch, result)
    at = said.index("Profile normal-90")
    assert said[at + 1] == "It flags about 1 normal film in 10 (measured)"
    assert not any("Profile" in text or "flags" in text for text in words(monkeypatch, make_result((80, 100))))


@pytest.mark.parametrize(
    ("normals_flagged", "words"),
    [
        (0.0, "hardly any normal film"),
        (0.0019, "hardly any normal film"),
        (0.002, "about 1 normal film in 500"),
        (0.05, "about 1 normal film in 20"),
        (0.098, "about 1 normal film in 10"),
        (0.103, "about 1 normal film in 10"),
        (0.34, "about 1 normal film in 3"),
        (0.35, "35 of 100 normal films"),
        (0.95, "95 of 100 normal films"),
        (1.0, "100 of 100 normal films"),
    ],
)
def test_a_share_is_said_as_people_count(normals_flagged: float, words: str) -> None:
    assert share(normals_flagged) == words


def test_an_operating_point_says_what_is_known() -> None:
    assert operating_point(OperatingPoint("")) == []
    assert operating_point(OperatingPoint("youden")) == ["Profile youden"]
    assert operating_point(OperatingPoint("youden", 0.95)) == [
        *("Profile youden", "It flags 95 of 100 normal films (measured)")
    ]


def test_colors_are_stable_and_distinct() -> None:
    colors = palette(NIH)
    assert len(set(colors.values())) == 14
    assert palette(["Mass"])["Mass"] == palette(["Lung lesion", "Mass"])["Mass"] == colors["Mass"]
    unknown = [f"label {i}" for i in range(14)]
    assert len(set(palette(unknown).values())) == 14
    assert palette(unknown) == palette(unknown)
    assert set(palette([f"{i}" for i in range(40)])) == {f"{i}" for i in range(40)}
    assert palette(["\udcff"])  # a label that UTF-8 cannot write


# Machado, Oliveira and Fernandes 2009, full strength, on linear RGB
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_findings_that_can_be_boxed_are_told_apart_without_red_or_green(deficiency: str) -> None:
    colors = palette(NIH)
    srgb = np.array([rgb(colors[label]) for label in NIH[:8]], np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    back = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(back[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    distances = {
        (NIH[i], NIH[j]): float(np.linalg.norm(lab[i] - lab[j])) for i, j in itertools.combinations(range(8), 2)
    }
    assert min(distances.values()) > 10, min(distances.items(), key=lambda item: item[1])
