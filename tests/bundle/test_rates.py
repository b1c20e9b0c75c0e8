"""Tables of a bundle's rates."""

from __future__ import annotations

from typing import Any

from msloc_edge.bundle.rates import rate_grids


def figure(value: float | None, n: int = 10) -> dict[str, Any]:
    return {"value": value, "low": None if value is None else value - 0.05, "high": value and value + 0.05, "n": n}


RATES = {
    "protocol": "5-fold cross-validation by patient",
    "data": ["nih:there"],
    "films": 20,
    "patients": 12,
    "normals": 8,
    "normals_flagged": figure(0.1),
    "abnormal_flagged": figure(0.6),
    "label_recall": figure(0.5),
    "wrong_findings_per_film": figure(1.25),
    "boxes_per_normal_film": figure(0.3),
    "sensitivity": {"per_class": {"Mass": figure(0.7, 6), "Nodule": figure(None, 0)}},
    "precision": {"per_class": {"Mass": figure(0.4), "Nodule": figure(None)}},
    "normals_flagged_by": {"view": {"PA": figure(0.08, 5), "AP": figure(0.15, 3)}},
    "abnormal_auroc": figure(0.86),
}
PROFILES = {
    "normal-90": {"film": 0.6, "score": [0.1, 0.2], "map": [0, 0], "rates": RATES},
    "youden": {"score": [0.3, 0.4], "map": [0, 0]},
}


def manifest(**entries: Any) -> dict[str, Any]:
    return {"profiles": PROFILES, "default_profile": "normal-90", "classes": ["Mass", "Nodule"]} | entries


def test_tables_by_hand() -> None:
    points, findings, groups = rate_grids(manifest())
    assert points.rows == (
        (
            *("normal-90", "0.600", "0.10 (0.05-0.15)", "0.60 (0.55-0.65)", "0.50 (0.45-0.55)", "1.25 (1.20-1.30)"),
            "0.30 (0.25-0.35)",
        ),
    )  # nobody measured the other
    assert "20 films of 12 patients, 8 normal, of nih:there; 5-fold" in points.note
    assert "AUROC 0.86 (0.81-0.91)" in points.note
    assert findings.rows == (
        ("Mass", "6", "0.70 (0.65-0.75)", "0.40 (0.35-0.45)", "0.100"),
        ("Nodule", "0", "-", "-", "0.200"),
    )
    assert groups.rows == (("view PA", "5", "0.08 (0.03-0.13)"), ("view AP", "3", "0.15 (0.10-0.20)"))


def test_a_default_that_nobody_measured_has_no_tables_of_its_own() -> None:
    assert [grid.title for grid in rate_grids(manifest(default_profile="youden"))] == ["Operating points"]


def test_a_bundle_of_before_has_none() -> None:
    assert rate_grids(manifest(profiles={"youden": PROFILES["youden"]}, default_profile="youden")) == []
