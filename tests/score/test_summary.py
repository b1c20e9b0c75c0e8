"""The summary page, against numbers of other tools, and the queries of docs/archive.md as they stand there."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pyarrow.compute as pc
import pytest
from pyarrow import parquet
from scipy import stats

from msloc_edge.bundle import DEFAULT_MODEL, Bundle
from msloc_edge.score.dataset import FILMS, Dataset
from msloc_edge.score.summary import VALIDATION, columns_of, distance, write_summary

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "archive.md").read_text()
QUERIES = list(filter(None, map(str.strip, "".join(re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)).split(";"))))


@pytest.fixture
def copy(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The dataset as scores/ in the current folder, as the page's commands find it."""
    shutil.copytree(scored, tmp_path / "scores")
    monkeypatch.chdir(tmp_path)
    return Dataset.open(Path("scores"))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.splitlines()[0].removeprefix("-- ")[:30])
def test_the_queries_of_the_page_run(query: str, copy: Dataset) -> None:
    answer = duckdb.sql(query).df()
    frame = pandas.read_parquet("scores/films")
    if "share" in answer:
        assert answer.iloc[0].tolist() == [12, pytest.approx(frame["flagged"].mean())]
    elif "score_Mass" in answer:
        assert answer["score_Mass"].tolist() == sorted(frame["score_Mass"], reverse=True)[:10]
    elif "label" in answer:
        assert len(answer) == frame["boxes"].map(len).sum() > 0
    elif "reason" in answer:
        assert answer.values.tolist() == [["not_an_image", 1]]
    else:
        assert answer.empty  # one film a study


def test_columns_of_the_page_are_those_of_the_schema(copy: Dataset) -> None:
    table = PAGE.partition("| column of films |")[2].partition("```")[0]
    named = {name for line in table.splitlines()[2:] if line for name in line.split("|")[1].strip().split(", ")}
    schema = {name if not name.startswith("score_") else "score_LABEL" for name in copy.schema(FILMS).names}
    assert named == schema


def test_a_summary_counts(copy: Dataset) -> None:
    summary = write_summary(copy)
    frame = pandas.read_parquet("scores/films")
    assert summary["films"] == {"localized": 12, "refused": 0, "failed": 1, "flagged": int(frame["flagged"].sum())}
    assert summary["failures"] == {"not_an_image": 1}
    assert summary["positive"]["Mass"] == sum("Mass" in found for found in frame["findings"])
    mass = summary["distributions"]["score_Mass"]
    assert mass["percentiles"]["p50"] == pytest.approx(frame["score_Mass"].median(), abs=1e-6)
    assert json.loads(Path("scores/summary.json").read_text()) == summary
    page = Path("scores/summary.html").read_text()
    assert "not_an_image" in page
    assert "<script" not in page


def test_drift_shows(copy: Dataset, scored: Path) -> None:
    alike = write_summary(copy, Dataset.open(scored))["distributions"]
    assert {found["distance"] for found in alike.values()} == {0.0}
    for part in sorted((copy.folder / FILMS).iterdir()):
        table = parquet.read_table(part)
        at = table.schema.get_field_index("pixel_mean")
        brighter = pc.cast(pc.add(table.column(at), 1), "float")
        parquet.write_table(table.set_column(at, "pixel_mean", brighter), part)
    drifted = write_summary(copy, Dataset.open(scored))["distributions"]
    assert drifted["pixel_mean"]["distance"] == 1.0
    assert drifted["pixel_sd"]["distance"] == 0.0


def test_the_shipped_model_is_compared_with_its_validation_films(scored: Path, tmp_path: Path) -> None:
    films = Dataset.open(VALIDATION / DEFAULT_MODEL)
    assert films.about["model"] == asdict(Bundle.open(DEFAULT_MODEL).id)
    table = parquet.read_table(films.folder / FILMS, partitioning=None)
    named = [name for name in table.column_names if table.column(name).null_count < len(table)]
    assert set(named) == {*columns_of(films), "warnings", "refused", "flagged", "findings"}  # nothing names a film
    shutil.copytree(films.folder, tmp_path / "same")
    summary = write_summary(Dataset.open(tmp_path / "same"))
    assert summary["against"] == f"validation films of {DEFAULT_MODEL} {films.about['model']['version']}"
    assert {found["distance"] for found in summary["distributions"].values()} == {0.0}


def test_the_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=200).round(1), rng.normal(0.5, size=77).round(1)  # with ties
    assert distance(ours, theirs) == pytest.approx(stats.ks_2samp(ours, theirs).statistic, abs=1e-6)
    assert distance(ours, theirs[:0]) is None


def test_a_dataset_without_films_has_a_summary(copy: Dataset) -> None:
    for part in copy.folder.rglob("part-*"):
        part.unlink()
    summary = write_summary(copy)
    assert summary["films"] == {"localized": 0, "refused": 0, "failed": 0, "flagged": 0}
