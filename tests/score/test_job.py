"""A dataset: its rows, what is done and what is not, what it refuses; the command line as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from pyarrow import dataset as arrow
from pyarrow import parquet

from msloc_edge.errors import BackendError, InputError, MslocError, OutputError
from msloc_edge.pipeline import Localizer, Outcome
from msloc_edge.score.archive import Film, Shard
from msloc_edge.score.dataset import FAILURES, FILMS, Dataset, Row, film_schema
from msloc_edge.score.job import GIVE_UP, unless_broken

SCRIPT = Path(sys.executable).with_name("msloc-edge")


def score(*words: object, code: int | None = 0) -> str:
    """Run `msloc-edge score`, which ends with `code`, or None: 0 or 1; its stderr."""
    done = subprocess.run([SCRIPT, "score", *map(str, words)], capture_output=True, text=True)
    assert done.returncode in ((0, 1) if code is None else (code,)), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def rows(out: Path, table: str = FILMS) -> list[dict[str, Any]]:
    return sorted(arrow.dataset(out / table).to_table().to_pylist(), key=lambda row: row["input"])


def test_rows_are_what_the_localizer_finds(scored: Path, made: Path, model: Path) -> None:
    found = rows(scored)
    assert [Path(row["input"]).name for row in found] == sorted(
        film.name for film in made.iterdir() if film.name != "bad.png"
    )
    with Localizer(model) as localizer:
        for row in found:
            result = localizer.localize(row["input"])
            shown = np.asarray(localizer.prepare(row["input"]).input)[result.geometry.content]
            for finding in result.findings:
                assert row[f"score_{finding.label}"] == pytest.approx(finding.score, abs=1e-6)
            boxes = [(box["label"], box["x"], box["y"], box["w"], box["h"]) for box in row["boxes"]]
            assert boxes == [(box.label, *map(np.float32, (box.x, box.y, box.w, box.h))) for box in result.boxes]
            assert row["findings"] == [finding.label for finding in result.positive]
            assert row["flagged"] == bool(result.positive)
            assert (row["sha256"], row["warnings"]) == (result.sha256, list(result.warnings))
            width, height = result.geometry.image_width, result.geometry.image_height
            assert (row["image_width"], row["image_height"]) == (width, height)
            assert row["abnormal"] == pytest.approx(result.gate.score if result.gate else None, abs=1e-6)
            assert (row["pixel_mean"], row["pixel_sd"]) == pytest.approx((shown.mean(), shown.std()), abs=1e-6)
            decided = row["profile"], row["model_sha256"], row["backend"]
            assert decided == ("first", result.model.sha256, "onnxruntime")
            uids = [row[name] for name in ("sop_instance_uid", "series_instance_uid", "study_instance_uid")]
            assert uids == (list(result.uids) if result.uids else [None] * 3)
            for kept, finding in zip(row["maps"], result.positive, strict=True):
                pixels = np.frombuffer(kept["pixels"], np.uint8).reshape(kept["height"], kept["width"])
                above = result.maps[finding.label] >= result.map_thresholds[finding.label]
                np.testing.assert_array_equal(pixels >= 128, above)
    assert any(row["flagged"] for row in found)
    assert not all(row["flagged"] for row in found)


def test_bad_films_have_a_table_of_their_own(scored: Path, made: Path) -> None:
    (row,) = rows(scored, FAILURES)
    assert (row["input"], row["reason"]) == (str(made / "bad.png"), "not_an_image")
    assert "expected PNG, JPEG, TIFF or DICOM" in row["message"]


def test_it_opens_in_pandas_and_says_what_it_is(scored: Path) -> None:
    frame = pandas.read_parquet(scored / FILMS)
    assert frame.shape[0] == 12
    assert frame["flagged"].dtype == bool
    part = parquet.read_schema(min((scored / FILMS).iterdir()))
    about = json.loads((part.metadata or {})[b"msloc_edge"])
    assert about == json.loads((scored / "dataset.json").read_text())
    assert about["schema"] == "msloc-edge/scores/1"
    assert part.remove_metadata().equals(film_schema(tuple(about["thresholds"]), maps=True))


def test_parts_are_of_the_size_that_was_asked_for(scored: Path) -> None:
    sizes = [parquet.read_metadata(path).num_rows for path in sorted((scored / FILMS).iterdir())]
    assert len(sizes) == 3
    assert sum(sizes) == 12
    assert max(sizes) <= 5


def test_a_second_run_does_what_is_left(scored: Path, made: Path, model: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(scored, tmp_path / "scores"))
    gone = min((out / FILMS).iterdir())
    lost = parquet.read_table(gone).num_rows
    gone.unlink()
    words = (made, out, "--model", model, "--maps", "--workers", "1")
    assert f"{lost} films scored, {13 - lost} done before" in score(*words)
    assert [row["input"] for row in rows(out)] == [row["input"] for row in rows(scored)]
    assert "0 films scored, 12 done before, 1 failed" in score(*words, "--retry", code=1)
    assert len(rows(out, FAILURES)) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "another settings"),
        (("--maps", "--no-input-gate"), "another settings"),
        (("--model", "cxr-edge"), "another model"),
    ],
)
def test_scores_of_two_kinds_do_not_mix(
    scored: Path, made: Path, model: Path, options: tuple[str, ...], says: str
) -> None:
    before = sorted(scored.rglob("*.parquet"))
    err = score(made, scored, "--model", model, *options, code=1)
    assert f"[out_occupied] {scored}: holds scores of {says}" in err
    assert sorted(scored.rglob("*.parquet")) == before


def test_what_is_no_dataset_is_left_alone(made: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert "[out_occupied]" in score(made, tmp_path, "--model", model, code=1)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    assert "[part_damaged]" in score(tmp_path, code=1)
    assert "expected I/N" in score(made, tmp_path, "--shard", "3/2", code=2)


@pytest.mark.parametrize("archive", ["nowhere", "empty", "*.png"])
def test_an_archive_of_nothing_leaves_no_rows(archive: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "scores"
    err = score(tmp_path / archive, out, "--model", model, code=1)
    assert f"[missing] {tmp_path / archive}: expected films in an archive" in err
    assert rows(out) == rows(out, FAILURES) == []


def test_out_may_lie_in_the_archive(shard: Path, model: Path, tmp_path: Path) -> None:
    shutil.copy(shard, tmp_path)
    words = (tmp_path, tmp_path / "scores", "--model", model, "--workers", "1")
    score(*words, "--select", "random", "20", code=1)  # bad.png
    assert len(list((tmp_path / "scores").rglob("*.png"))) == 11  # copies for the reader
    again = score(*words)
    assert "0 films to score, 13 done before" in again
    assert "passed over" not in again


def test_a_summary_that_cannot_be_written_is_named(scored: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(scored, tmp_path / "scores"))
    (out / "summary.json").unlink()
    (out / "summary.json").mkdir()
    assert f"[out_unwritable] {out / 'summary.json'}: cannot be written" in score(out, code=1)


def test_a_damaged_part_is_named(scored: Path, made: Path, model: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(scored, tmp_path / "scores"))
    part = min((out / FILMS).iterdir())
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(OutputError, match=part.name) as caught:
        Dataset.open(out).inputs()
    assert caught.value.reason == "part_damaged"


def test_shards_from_a_tar_and_a_list_make_one_dataset(made: Path, model: Path, shard: Path, tmp_path: Path) -> None:
    films = tmp_path / "list.csv"
    films.write_text("path\n" + "".join(f"{film}\n" for film in sorted(made.glob("*.png"))[:4]))
    out = tmp_path / "scores"
    for number in (1, 2):
        score(shard, films, out, "--model", model, "--workers", "1", "--shard", f"{number}/2", code=None)
    inputs = [row["input"] for row in rows(out) + rows(out, FAILURES)]
    assert len(inputs) == len(set(inputs)) == 13 + 4
    assert len({path.name[:17] for path in (out / FILMS).iterdir()}) == 2
    scores = {(row["sha256"], row["score_Mass"]) for row in rows(out)}
    assert len(scores) == 12  # a film scores alike, wherever it lies


def test_one_run_at_a_time_works_on_a_shard(scored: Path, tmp_path: Path, made: Path, model: Path) -> None:
    out = Path(shutil.copytree(scored, tmp_path / "scores"))
    words = (made, out, "--model", model, "--maps", "--workers", "1")
    with Dataset.open(out).claim(Shard(1, 2)):
        for shard in ("1/2", "1/1"):
            assert "[out_occupied]" in score(*words, "--shard", shard, code=1)
        score(*words, "--shard", "2/2")
    score(*words)


# Parts


@pytest.fixture
def empty(scored: Path, tmp_path: Path) -> Dataset:
    out = tmp_path / "empty"
    for table in (FILMS, FAILURES):
        (out / table).mkdir(parents=True)
    shutil.copy(scored / "dataset.json", out)
    return Dataset.open(out)


def failure(number: int) -> Row:
    return Row(FAILURES, {"input": str(number), "reason": "missing", "message": "none", "time": None})


def test_what_is_in_hand_is_written_whatever_ends_the_run(empty: Dataset) -> None:
    with suppress(KeyboardInterrupt), empty.claim(Shard()) as parts:
        parts.rows = 3
        for number in range(5):
            parts.add(failure(number))
        assert empty.inputs() == {"0", "1", "2"}
        raise KeyboardInterrupt
    assert empty.inputs() == {"0", "1", "2", "3", "4"}


def test_a_part_that_was_written_is_not_written_again(empty: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just behind the rename: the block ends, and flushes once more."""

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    from msloc_edge.score import dataset

    write = dataset._write
    with suppress(KeyboardInterrupt), empty.claim(Shard()) as parts:
        parts.rows = 1
        monkeypatch.setattr(dataset, "_write", interrupted)
        parts.add(failure(0))
    assert [row["input"] for row in rows(empty.folder, FAILURES)] == ["0"]


def test_what_a_kill_left_unfinished_goes(empty: Dataset) -> None:
    scrap = empty.folder / FILMS / ".part-0001-of-0001-000000.parquet"
    scrap.write_bytes(b"half")
    assert empty.inputs() == set()
    with empty.claim(Shard()):
        assert not scrap.exists()


def test_a_retry_forgets_the_failures_of_its_shard_alone(empty: Dataset) -> None:
    names = list(map(str, range(20)))
    with empty.claim(Shard()) as parts:  # before the archive was divided
        for name in names:
            parts.add(failure(int(name)))
    for number in (1, 2):
        shard = Shard(number, 2)
        with empty.claim(shard):
            empty.forget_failures(shard)
        left = [name for name in names if number == 1 and not shard.holds(name)]
        assert [row["input"] for row in rows(empty.folder, FAILURES)] == sorted(left)
    assert list((empty.folder / FAILURES).iterdir()) == []


# A backend that fails


def outcomes(*errors: MslocError | None) -> Iterator[Outcome[Film]]:
    return (Outcome(Film(str(number), ""), error=error) for number, error in enumerate(errors))


def test_a_backend_that_fails_ends_the_run_and_calls_no_film_bad() -> None:
    broken, bad = BackendError("backend_failed", "no"), InputError("corrupt", "no")
    got = unless_broken(outcomes(bad, broken, None, *[broken] * GIVE_UP, None))
    assert [next(got).film.input for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(BackendError):
        next(got)
    some = [bad, *[broken] * (GIVE_UP - 1), bad, *[broken] * (GIVE_UP - 1)]
    assert len(list(unless_broken(outcomes(*some)))) == len(some)
