"""Rates of an operating point, by hand on six films."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from msloc_edge.train.calibration.rates import LabelledFilms, operating_point

NAN = math.nan

FILMS = LabelledFilms(
    ("Mass", "Nodule"),
    # normal, normal, normal with one unknown, mass, both, nothing known
    np.array([[0, 0], [0, 0], [0, NAN], [1, 0], [1, 1], [NAN, NAN]], np.float32),
    ("1", "1", "2", "3", "4", "5"),
    {"view": ["PA", "AP", "AP", "PA", "PA", None], "age": ["60 and over", "under 40", "under 40", None, None, None]},
)
POSITIVE = np.array([[1, 0], [0, 0], [0, 1], [1, 1], [0, 1], [1, 1]], bool)
BOXES = np.array([3, 0, 2, 5, 5, 5])
ABNORMAL = np.array([0.2, 0.3, 0.6, 0.5, 0.9, 1.0])


def value(figure: dict[str, Any]) -> float | None:
    assert set(figure) == {"value", "low", "high", "n"}
    return figure["value"]


@pytest.fixture(scope="module")
def rates() -> dict[str, Any]:
    return operating_point(FILMS, POSITIVE, BOXES, ABNORMAL)


def test_counts(rates: dict[str, Any]) -> None:
    assert [rates[name] for name in ("films", "normals", "abnormals", "patients")] == [6, 3, 2, 5]


def test_flagged_films(rates: dict[str, Any]) -> None:
    assert value(rates["normals_flagged"]) == pytest.approx(2 / 3, abs=1e-5)
    assert rates["normals_flagged"]["n"] == 3
    assert value(rates["abnormal_flagged"]) == 1


def test_flagged_normals_by_subgroup(rates: dict[str, Any]) -> None:
    by = rates["normals_flagged_by"]
    assert {group: (value(figure), figure["n"]) for group, figure in by["view"].items()} == {
        "AP": (0.5, 2),
        "PA": (1, 1),
    }
    assert list(by["age"]) == ["under 40", "60 and over"]


def test_labels_found_and_wrong_findings(rates: dict[str, Any]) -> None:
    assert value(rates["label_recall"]) == pytest.approx(2 / 3, abs=1e-5)  # the mass of film 4, the nodule of film 5
    assert rates["label_recall"]["n"] == 3
    assert value(rates["wrong_findings_per_film"]) == pytest.approx(2 / 6, abs=1e-5)  # mass of film 1, nodule of film 4


def test_boxes_of_normal_films(rates: dict[str, Any]) -> None:
    assert value(rates["boxes_per_normal_film"]) == pytest.approx(5 / 3, abs=1e-5)


def test_each_class(rates: dict[str, Any]) -> None:
    sensitivity, precision = (rates[name]["per_class"] for name in ("sensitivity", "precision"))
    assert {label: value(figure) for label, figure in sensitivity.items()} == {"Mass": 0.5, "Nodule": 1}
    # Mass: films 1 wrong, 4 right. Nodule: film 3 unknown, 4 wrong, 5 right.
    assert {label: value(figure) for label, figure in precision.items()} == {"Mass": 0.5, "Nodule": 0.5}


def test_abnormal_against_normal(rates: dict[str, Any]) -> None:
    # abnormal 0.5, 0.9 against normal 0.2, 0.3, 0.6: 5 of 6 pairs
    assert value(rates["abnormal_auroc"]) == pytest.approx(5 / 6, abs=1e-5)
    assert "abnormal_auroc" not in operating_point(FILMS, POSITIVE, BOXES)


def test_only_films_of_one_fold_are_compared() -> None:
    # Folds of films 1, 2, 4 and of 3, 5: 0.5 above 0.2 and 0.3, 0.9 above 0.6. Film 6 is neither.
    found = operating_point(FILMS, POSITIVE, BOXES, ABNORMAL, folds=np.array([0, 0, 1, 0, 1, 1]))
    assert found["abnormal_auroc"]["value"] == 1
    assert found["abnormal_auroc"]["n"] == 5
    alone = operating_point(FILMS, POSITIVE, BOXES, ABNORMAL, folds=np.array([0, 0, 1, 1, 1, 2]))
    assert alone["abnormal_auroc"]["value"] == 0.5  # 0.5 below 0.6, 0.9 above: fold 0 has normal films alone


def test_intervals_are_over_patients() -> None:
    # Twenty films of two patients: a resample has one of them twice, or each once.
    labels = np.zeros((20, 1), np.float32)
    films = LabelledFilms(("Mass",), labels, ("1",) * 10 + ("2",) * 10, {})
    found = operating_point(films, np.arange(20)[:, None] < 10, np.zeros(20, int))["normals_flagged"]
    assert (found["value"], found["low"], found["high"]) == (0.5, 0, 1)


def test_what_the_films_cannot_tell_is_null() -> None:
    films = LabelledFilms(("Mass",), np.zeros((3, 1), np.float32), ("1", "2", "3"), {"view": [None] * 3})
    found = operating_point(films, np.zeros((3, 1), bool), np.zeros(3, int), np.zeros(3))
    for name in ("abnormal_flagged", "label_recall", "abnormal_auroc"):
        assert found[name] == {"value": None, "low": None, "high": None, "n": 0} | (
            {"n": 3} if name == "abnormal_auroc" else {}
        )
    assert found["normals_flagged"]["value"] == 0
    assert found["normals_flagged_by"] == {"view": {}}
