"""A folder of results outlives its run: what is done stays, is not done again, and belongs to one run at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.cli.lines import Lines

PATIENCE = 120  # seconds until something that should happen counts as lost
Run = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[bytes]"]


def inputs(out: Path, name: str = "results.jsonl") -> list[str]:
    text = (out / name).read_text() if (out / name).exists() else ""
    assert text == "" or text.endswith("\n")
    return [Path(json.loads(line)["input"]).name for line in text.splitlines()]


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "what should happen did not"
        time.sleep(0.02)


# A second run


def test_a_second_run_goes_on(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("infer", films, "--model", bundle, "--out", out)
    (films / "bad.png").write_bytes(b"no film")
    assert msloc(*arguments).code == 1
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.suffix in (".png", ".jsonl")}
    shutil.copy(films / "b.png", films / "d.png")
    ran = msloc(*arguments)
    assert (ran.code, ran.inputs, ran.reasons) == (1, ["d.png"], ["not_an_image"])  # what failed is tried again
    assert "1 film localized, 3 done before, 1 failed" in ran.err
    assert inputs(out) == ["a.dcm", "b.png", "c.dcm", "d.png"]
    assert inputs(out, "failures.jsonl") == ["bad.png"]
    assert {name: (out / name).read_bytes() for name in before if name != "results.jsonl"} == {
        name: data for name, data in before.items() if name != "results.jsonl"
    }
    report = (out / "report.html").read_text()
    assert [report.count(f'class="{kind}">') for kind in ("card", "film", "failure", "pages")] == [4, 4, 1, 1]

    (films / "bad.png").unlink()
    again = msloc(*arguments)
    assert (again.code, again.lines) == (0, [])
    assert "0 films localized, 4 done before" in again.err
    assert inputs(out) == ["a.dcm", "b.png", "c.dcm", "d.png"]


def test_overwrite_begins_anew(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    msloc("infer", films, "--model", bundle, "--out", out)
    (out / "mine.txt").touch()
    ran = msloc("infer", films / "b.png", "--model", bundle, "--profile", "all", "--out", out, "--overwrite")
    assert (ran.code, ran.inputs, inputs(out)) == (0, ["b.png"], ["b.png"])
    assert sorted(file.name for file in out.iterdir()) == [
        *("b.heatmap.npy", "b.heatmap.png", "b.overlay.png", "journal.sqlite", "mine.txt"),
        *("report.html", "results.jsonl"),
    ]


@pytest.mark.parametrize(
    ("options", "other"),
    [
        (("--profile", "all"), "profile"),
        (("--all-classes",), "--all-classes"),
        (("--write", "json"), "--write"),
        (("--show", "1"), "--show"),
    ],
)
def test_results_of_two_kinds_do_not_mix(
    msloc: Run, films: Path, bundle: Path, tmp_path: Path, options: tuple[str, ...], other: str
) -> None:
    arguments = ("infer", films / "b.png", "--model", bundle, "--out", tmp_path / "out")
    msloc(*arguments)
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    ran = msloc(*arguments, *options)
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["out_occupied"])
    assert f"holds results of another {other}" in ran.err
    assert "--overwrite" in ran.err
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_results_without_a_journal_are_not_added_to(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text('{"of": "an older version"}\n')
    ran = msloc("infer", films, "--model", bundle, "--out", tmp_path / "out")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["out_occupied"])
    assert msloc("infer", films, "--model", bundle, "--out", tmp_path / "out", "--overwrite").code == 0
    assert inputs(tmp_path / "out") == ["a.dcm", "b.png", "c.dcm"]


def test_a_damaged_journal(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.sqlite").write_bytes(b"damaged" * 1000)
    ran = msloc("infer", films, "--model", bundle, "--out", tmp_path / "out")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["journal_unusable"])
    assert msloc("infer", films, "--model", bundle, "--out", tmp_path / "out", "--overwrite").code == 0


def test_lines_that_were_removed_are_written_again(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    msloc("infer", films, "--model", bundle, "--out", tmp_path / "out")
    (tmp_path / "out" / "results.jsonl").unlink()
    assert msloc("infer", films, "--model", bundle, "--out", tmp_path / "out").code == 0
    assert inputs(tmp_path / "out") == ["a.dcm", "b.png", "c.dcm"]


def test_a_film_is_known_by_its_content(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    """Touched or moved it is the same film; under the same name with other content, or copied, it is another."""
    arguments = ("infer", films, "--model", bundle, "--out", tmp_path / "out")
    msloc(*arguments)
    os.utime(films / "a.dcm")
    (films / "sub").mkdir()
    (films / "c.dcm").rename(films / "sub" / "moved.dcm")
    ran = msloc(*arguments)
    assert (ran.lines, "3 done before" in ran.err) == ([], True)
    shutil.copy(films / "a.dcm", films / "copy.dcm")
    shutil.copy(films / "sub" / "moved.dcm", films / "b.png")
    ran = msloc(*arguments)
    assert ran.inputs == ["b.png", "copy.dcm"]
    assert ran.lines[0]["files"]["overlay"] == "b.overlay.png"  # a path keeps its name
    assert inputs(tmp_path / "out") == ["a.dcm", "b.png", "c.dcm", "b.png", "copy.dcm"]


def test_names_of_files_outlive_a_run(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    """The name of a film of another run is never given again, nor is that of another film on stdin."""
    (films / "two").mkdir()
    shutil.copy(films / "b.png", films / "two" / "a.png")
    run = ("infer", "--model", bundle, "--out", tmp_path / "out", "--write", "json,overlay")
    names = []
    for film in ("a.dcm", "two/a.png", "two/a.png"):
        names += [line["files"]["overlay"] for line in msloc(*run, films / film).lines]
    for film in ("a.dcm", "b.png", "b.png"):
        names += [line["files"]["overlay"] for line in msloc(*run, "-", stdin=(films / film).read_bytes()).lines]
    assert names == ["a.overlay.png", "a-2.overlay.png", "stdin.overlay.png", "stdin-2.overlay.png"]


def test_a_folder_belongs_to_one_run_at_a_time(start: Start, films: Path, bundle: Path, tmp_path: Path) -> None:
    (films / "inbox").mkdir()
    out = tmp_path / "out"
    watcher = start("infer", films / "inbox", "--watch", "--model", bundle, "--out", out)
    wait_until((out / "results.jsonl").exists)
    for options in ((), ("--overwrite",)):
        second = start("infer", films, "--model", bundle, "--out", out, *options)
        stdout, stderr = second.communicate(timeout=PATIENCE)
        assert (second.returncode, stdout) == (1, b"")
        assert stderr.startswith(b"msloc-edge: [out_occupied]")
        assert stderr.count(b"\n") == 1
    watcher.kill()
    watcher.wait()
    third = start("infer", films / "b.png", "--model", bundle, "--out", out, "--write", "json,overlay,heatmap")
    assert (third.wait(PATIENCE), inputs(out)) == (0, ["b.png"])


# After a kill


def test_a_killed_run_is_gone_on_with(start: Start, msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    for number in range(30):
        shutil.copy(films / "b.png", folder / f"{number:02}.png")
    process = start("infer", folder, "--model", bundle, "--out", out)
    assert process.stdout
    printed = [json.loads(process.stdout.readline())["input"] for _ in range(5)]
    process.kill()
    process.wait()
    lines = (out / "results.jsonl").read_bytes().splitlines()
    assert len(lines) >= len(printed)
    (out / ".msloc-0123.tmp").write_bytes(b"half a picture")
    ran = msloc("infer", folder, "--model", bundle, "--out", out)
    assert ran.code == 0
    assert (out / "results.jsonl").read_bytes().splitlines()[: len(lines)] == lines
    assert sorted(inputs(out)) == [f"{number:02}.png" for number in range(30)]
    assert list(out.glob(".*")) == []
    report = (out / "report.html").read_text()
    assert [report.count(f'class="{kind}">') for kind in ("card", "film", "pages")] == [30, 30, 1]
    assert all((out / f"{number:02}.overlay.png").exists() for number in range(30))


def forget(out: Path, name: str) -> None:
    """As if the program had been killed after a line, and before its note in the journal."""
    with sqlite3.connect(out / "journal.sqlite") as db:
        db.execute("DELETE FROM items WHERE name LIKE ?", (f"%{name}",))
    db.close()


def test_killed_between_a_line_and_its_note(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (films / "bad.png").write_bytes(b"no film")
    msloc("infer", films, "--model", bundle, "--out", out)
    for name in ("c.dcm", "bad.png"):
        forget(out, name)
    ran = msloc("infer", films, "--model", bundle, "--out", out)
    assert (ran.lines, ran.reasons) == ([], ["not_an_image"])
    assert inputs(out) == ["a.dcm", "b.png", "c.dcm"]
    assert inputs(out, "failures.jsonl") == ["bad.png"]
    assert (out / "report.html").read_text().count('class="film"') == 3


def test_killed_in_the_middle_of_a_line(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    msloc("infer", films, "--model", bundle, "--out", out)
    forget(out, "c.dcm")
    text = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(text[:-1000])
    ran = msloc("infer", films, "--model", bundle, "--out", out)
    assert (ran.inputs, inputs(out)) == (["c.dcm"], ["a.dcm", "b.png", "c.dcm"])
    assert (out / "report.html").read_text().count('class="film"') == 3


@pytest.mark.parametrize(
    ("torn", "whole"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b"', b'{"a": 1}\n'),
        (b'{"a"', b""),
        (b'{"a": 1}\n\0\0\0\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n\n17\n', b'{"a": 1}\n'),
    ],
)
def test_a_torn_last_line_goes(tmp_path: Path, torn: bytes, whole: bytes) -> None:
    (tmp_path / "lines").write_bytes(torn)
    lines = Lines(tmp_path / "lines")
    lines.open()
    assert (tmp_path / "lines").read_bytes() == whole
    lines.add('{"c": 2}')
    lines.add('{"d": 3}')
    lines.remove('{"d": 3}')
    lines.close()
    assert (tmp_path / "lines").read_bytes() == whole + b'{"c": 2}\n'
    assert next(Lines(tmp_path / "lines").backwards()) == {"c": 2}


# Watching


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_a_watch_that_starts_again(
    start: Start, films: Path, bundle: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    """What was moved away keeps its line, what is still there is not done again, what has come is done."""
    inbox, out = films / "inbox", tmp_path / "out"
    inbox.mkdir()
    for name in ("a.dcm", "b.png"):
        shutil.copy(films / name, inbox)
    (inbox / "bad.png").write_bytes(b"no film")
    arguments = ("infer", inbox, "--watch", "--model", bundle, "--out", out, "--write", "json")
    first = start(*arguments)
    wait_until(lambda: len(inputs(out)) + len(inputs(out, "failures.jsonl")) == 3)
    first.send_signal(stop)
    first.wait(PATIENCE)
    (inbox / "a.dcm").unlink()
    shutil.copy(films / "c.dcm", inbox)
    second = start(*arguments)
    assert second.stdout
    assert Path(json.loads(second.stdout.readline())["input"]).name == "c.dcm"
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE) == 130
    assert inputs(out) == ["a.dcm", "b.png", "c.dcm"]
    assert inputs(out, "failures.jsonl") == ["bad.png"]
