"""Rates of a bundle's profiles as tables: what validation films showed at each operating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msloc_edge._tables import NONE, Grid, cell

COLUMNS = {
    "normals_flagged": "normal films flagged",
    "abnormal_flagged": "abnormal films flagged",
    "label_recall": "labels found",
    "wrong_findings_per_film": "wrong findings a film",
    "boxes_per_normal_film": "boxes a normal film",
}
"""Key of a profile's rates -> head of its column."""


def rate_grids(manifest: Mapping[str, Any]) -> list[Grid]:
    """Make tables of a manifest's rates: the profiles; of the default one, the findings and subgroups.

    returns  none where nobody measured the profile
    """
    profiles = {name: profile for name, profile in manifest["profiles"].items() if profile.get("rates")}
    default = manifest["default_profile"]
    if not profiles:
        return []
    grids = [points_grid(profiles, default)]
    if default in profiles:
        rates = profiles[default]["rates"]
        grids += [_findings(default, profiles[default], manifest["classes"]), _subgroups(default, rates)]
    return grids


def points_grid(profiles: Mapping[str, Any], default: str) -> Grid:
    """Make the table of operating points, one or more, as entries of a manifest's `profiles` with rates."""
    rows = [
        (name, _number(profile.get("film")), *(cell(profile["rates"][key]) for key in COLUMNS))
        for name, profile in profiles.items()
    ]
    rates = next(iter(profiles.values()))["rates"]
    auroc = rates.get("abnormal_auroc")
    told = f" Abnormal against normal films: AUROC {cell(auroc)}." if auroc else ""
    note = (
        f"{rates['films']} films of {rates['patients']} patients, {rates['normals']} normal, of "
        f"{', '.join(rates['data'])}; {rates['protocol']}.{told}"
    )
    return Grid("Operating points", note, ("profile", "film threshold", *COLUMNS.values()), tuple(rows), (default,))


def _findings(name: str, profile: Mapping[str, Any], classes: list[str]) -> Grid:
    sensitivity, precision = (profile["rates"][key]["per_class"] for key in ("sensitivity", "precision"))
    rows = [
        (
            label,
            str(sensitivity[label]["n"]),
            cell(sensitivity[label]),
            cell(precision[label]),
            _number(profile["score"][k]),
        )
        for k, label in enumerate(classes)
    ]
    note = "Over the films whose label is known, gate included."
    return Grid(
        f"Findings at {name}", note, ("finding", "films with it", "sensitivity", "precision", "threshold"), tuple(rows)
    )


def _subgroups(name: str, rates: Mapping[str, Any]) -> Grid:
    rows = [
        (f"{kind} {group}", str(figure["n"]), cell(figure))
        for kind, groups in rates["normals_flagged_by"].items()
        for group, figure in groups.items()
    ]
    note = "Share of normal films with a positive finding."
    return Grid(f"Normal films at {name}", note, ("films", "normal", "flagged"), tuple(rows))


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
