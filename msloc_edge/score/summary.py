"""A page of what a dataset holds: counts, scores, pixels; beside another dataset, so that drift shows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from msloc_edge._files import atomic_write, writing
from msloc_edge._tables import NONE
from msloc_edge.errors import REASONS, WARNINGS
from msloc_edge.render.page import facts, page, section, table
from msloc_edge.score.dataset import AGAIN, DATASET, FAILURES, FILMS, Dataset, score_column

JSON, PAGE = "summary.json", "summary.html"
PERCENTILES = (1, 10, 50, 90, 99)
PIXELS = ("pixel_mean", "pixel_sd", "image_width", "image_height")
VALIDATION = Path(__file__).with_name("validation")
"""Datasets of the films that shipped models were validated on (tools/validation_scores.py)."""


def write_summary(dataset: Dataset, against: Dataset | None = None) -> dict[str, Any]:
    """Write summary.json and summary.html into a dataset's folder, and return the former. Raises OutputError.

    against  a dataset to compare with; None: that of the films that the model was validated on, where it is here
    """
    summary = summarize(dataset, against or validation_of(dataset))
    with writing(dataset.folder, AGAIN):
        atomic_write(dataset.folder / JSON, json.dumps(summary, indent=1).encode())
        atomic_write(dataset.folder / PAGE, summary_page(summary).encode())
    return summary


def validation_of(dataset: Dataset) -> Dataset | None:
    """Find the dataset of the films on which the model of another one was validated; None where it is not here."""
    for file in VALIDATION.glob(f"*/{DATASET}"):
        found = Dataset.open(file.parent)
        if found.about["model"] == dataset.about["model"]:
            return found
    return None


def columns_of(dataset: Dataset) -> list[str]:
    """Name the columns of the films whose distributions are shown."""
    return ["abnormal", *map(score_column, dataset.classes), *PIXELS]


def summarize(dataset: Dataset, against: Dataset | None = None) -> dict[str, Any]:
    """Count and measure a dataset: plain JSON types."""
    refused = dataset.column(FILMS, "refused")
    flagged = dataset.column(FILMS, "flagged")
    looked = len(flagged) - flagged.null_count
    positive = _counts(_flat(dataset.column(FILMS, "findings")))
    return {
        "about": dict(dataset.about),
        "films": {
            "localized": looked,
            "refused": len(refused) - refused.null_count,
            "failed": len(dataset.column(FAILURES, "input")),
            "flagged": pc.sum(flagged).as_py() or 0,
        },
        "warnings": _counts(_flat(dataset.column(FILMS, "warnings"))),
        "failures": _counts(dataset.column(FAILURES, "reason")),
        "positive": {label: positive.get(label, 0) for label in dataset.classes},
        "distributions": {name: _distribution(dataset, against, name) for name in columns_of(dataset)},
        "against": _name(against) if against else None,
    }


def _name(against: Dataset) -> str:
    model = against.about["model"]
    return (
        f"validation films of {model['name']} {model['version']}"
        if against.folder.parent == VALIDATION
        else str(against.folder)
    )


def _distribution(dataset: Dataset, against: Dataset | None, name: str) -> dict[str, Any]:
    """Percentiles of a column, and its distance from another dataset's (Kolmogorov-Smirnov, 0 alike to 1 apart)."""
    values = _values(dataset, name)
    found: dict[str, Any] = {"films": len(values), "percentiles": _percentiles(values)}
    if against and name in against.schema(FILMS).names:
        other = _values(against, name)
        found |= {"against": _percentiles(other), "distance": distance(values, other)}
    return found


def _values(dataset: Dataset, name: str) -> NDArray[np.float64]:
    return np.asarray(dataset.column(FILMS, name).drop_null().to_numpy(), np.float64)


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    found = np.percentile(values, PERCENTILES)
    return {f"p{percent}": round(float(value), 6) for percent, value in zip(PERCENTILES, found, strict=True)}


def distance(values: NDArray[np.float64], others: NDArray[np.float64]) -> float | None:
    """Largest difference of two samples' distribution functions (Kolmogorov-Smirnov); None where one is empty.

    >>> distance(np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6]))
    0.5
    """
    if not len(values) or not len(others):
        return None
    steps = np.concatenate([values, others])
    shares = [np.searchsorted(np.sort(sample), steps, "right") / len(sample) for sample in (values, others)]
    return round(float(np.abs(shares[0] - shares[1]).max()), 6)


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def summary_page(summary: Mapping[str, Any]) -> str:
    """Make the page of a summary."""
    about, films = summary["about"], summary["films"]
    model, total = about["model"], films["localized"] + films["refused"]
    usual = about["normals_flagged"]
    told = "" if usual is None else f" Of normal validation films, the profile flags {usual:.1%}."
    rows = [(kind, f"{count:,}", _share(count, total + films["failed"])) for kind, count in films.items()]
    drift = " The distance (Kolmogorov-Smirnov) is from the other dataset's: 0 alike, 1 apart."
    sections = [
        section("Films", f"Flagged of the localized: {_share(films['flagged'], films['localized'])}.{told}",
                table(("films", "count", "share"), rows)),
        section("Findings", "Films on which a finding is positive.",
                table(("finding", "films", "share"),
                      [(label, f"{n:,}", _share(n, films["localized"])) for label, n in summary["positive"].items()])),
        section("Scores and pixels", "Percentiles over films." + drift * bool(summary["against"]),
                table(_HEAD, _distributions(summary["distributions"]))),
        section("Warnings", "", _codes(summary["warnings"], total, WARNINGS)),
        section("Failures", "", _codes(summary["failures"], total + films["failed"],
                                       {code: reason.came for code, reason in REASONS.items()})),
        section("How this came about", "", facts({**about, "against": summary["against"] or "nothing"})),
    ]  # fmt: skip
    return page(f"Archive scored by {model['name']} {model['version']}", f"profile {about['profile']}", sections)


_HEAD = ("column", "films", *(f"p{percent}" for percent in PERCENTILES), "median there", "distance")


def _distributions(columns: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, found in columns.items():
        there, apart = found.get("against", {}), found.get("distance")
        cells = [f"{found['percentiles'][f'p{p}']:.4g}" if found["percentiles"] else NONE for p in PERCENTILES]
        median = f"{there['p50']:.4g}" if there else NONE
        yield (name, f"{found['films']:,}", *cells, median, NONE if apart is None else f"{apart:.3f}")


def _codes(counts: Mapping[str, int], total: int, words: Mapping[str, str]) -> str:
    rows = [(code, f"{n:,}", _share(n, total), words.get(code, "")) for code, n in counts.items()]
    return table(("code", "films", "share", "says"), rows or [("none", "0", NONE, "")])


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else NONE
