"""msloc-edge infer: films go in, data comes out on stdout, words on stderr, and nothing goes by silently."""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import queue
import resource
import shutil
import signal
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

from msloc_edge.cli.inputs import Names, Search
from msloc_edge.render.colors import palette, rgb

PATIENCE = 120  # seconds until something that should happen counts as lost
Run = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[bytes]"]


def json_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def is_whole_report(path: Path) -> bool:
    return path.read_text().rstrip().endswith("</html>")


def bad_films(folder: Path, good: Path) -> dict[str, str]:
    """Writes a file of every kind that is no film; returns name -> reason."""
    dicom, png = (good / "a.dcm").read_bytes(), (good / "b.png").read_bytes()
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    jpeg = cv2.imencode(".jpg", (pixels >> 8).astype(np.uint8))[1].tobytes()
    constant = cv2.imencode(".png", np.full((64, 64), 7, np.uint8))[1].tobytes()
    tiny = cv2.imencode(".png", (pixels[:8, :8] >> 8).astype(np.uint8))[1].tobytes()
    files = {
        "empty.dcm": (b"", "truncated"),
        "text.png": (b"This is a letter, not a film.\n", "not_an_image"),
        "page.jpg": (b"<html><body>404</body></html>", "not_an_image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "cut.dcm": (dicom[: len(dicom) // 2], "truncated"),
        "header.dcm": (dicom[:1000], None),
        "noise.png": (png[:8] + bytes(range(256)) * 40, None),
        "bomb.png": (png_header(60000, 60000), "too_large"),
        "flat.png": (constant, "constant"),
        "tiny.png": (tiny, "too_small"),
        "zero.dcm": (changed(dicom, Rows=0, PixelData=b""), "too_small"),
        "ct.dcm": (changed(dicom, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "wrong_modality"),
        "report.dcm": (changed(dicom, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"), "wrong_modality"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: reason or "" for name, (_, reason) in files.items()}


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is very large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def changed(dicom: bytes, **elements: Any) -> bytes:
    ds = pydicom.dcmread(pydicom.filebase.DicomBytesIO(dicom))
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    buffer = pydicom.filebase.DicomBytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


# What goes in


def test_a_file(msloc: Run, films: Path, bundle: Path) -> None:
    ran = msloc("infer", films / "a.dcm", "--model", bundle)
    assert ran.code == 0
    (line,) = ran.lines
    assert line["schema"] == "msloc-edge/result/1"
    assert line["input"] == str(films / "a.dcm")
    assert "files" not in line
    assert [finding["positive"] for finding in line["findings"]] == [True] + [False] * 7
    (box,) = line["findings"][0]["boxes"]
    assert (box["x"], box["y"], box["w"], box["h"]) == (0, 0, 64, 70)
    assert "a.dcm" in ran.err
    assert "1 film localized" in ran.err


def test_a_folder_is_searched_whole_and_sorted(msloc: Run, films: Path, bundle: Path) -> None:
    (films / "sub").mkdir()
    (films / "sub" / "IM000001").write_bytes((films / "a.dcm").read_bytes())
    for name in ("notes.txt", ".hidden.png", "DICOMDIR", "z.overlay.png", "z.heatmap.png"):
        (films / name).write_bytes(b"not to be read")
    (films / ".thumbs").mkdir()
    (films / ".thumbs" / "a.png").write_bytes(b"not to be read")
    (films / "gone.png").symlink_to(films / "nowhere.png")
    ran = msloc("infer", films, "--model", bundle)
    assert (ran.code, ran.inputs) == (0, ["a.dcm", "b.png", "c.dcm", "IM000001"])


def test_a_glob(msloc: Run, films: Path, bundle: Path) -> None:
    (films / "sub.dcm").mkdir()
    ran = msloc("infer", films / "*.dcm", "--model", bundle)
    assert (ran.code, ran.inputs) == (0, ["a.dcm", "c.dcm"])


def test_a_name_with_glob_signs_is_a_name(msloc: Run, films: Path, bundle: Path) -> None:
    (films / "b[1].png").write_bytes((films / "b.png").read_bytes())
    (films / "b1.png").write_bytes(b"")
    ran = msloc("infer", films / "b[1].png", "--model", bundle)
    assert (ran.code, ran.inputs) == (0, ["b[1].png"])


def test_stdin(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    film = (films / "a.dcm").read_bytes()
    ran = msloc("infer", "-", "--model", bundle, "--out", tmp_path / "out", stdin=film)
    assert (ran.code, ran.inputs) == (0, ["-"])
    assert ran.lines[0]["sha256"] == msloc("infer", films / "a.dcm", "--model", bundle).lines[0]["sha256"]
    assert (tmp_path / "out" / "stdin.overlay.png").exists()


def test_nothing_on_stdin(msloc: Run, bundle: Path) -> None:
    ran = msloc("infer", "-", "--model", bundle)
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["truncated"])


def test_stdin_is_read_up_to_what_a_film_can_be(msloc: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cli.session", "imaging.reading"):
        monkeypatch.setattr(f"msloc_edge.{module}.MAX_MEMORY", 1000)
    ran = msloc("infer", "-", "--model", bundle, stdin=bytes(5000))
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["too_large"])


def test_what_is_not_there_is_named(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    asked = (films / "none.png", tmp_path / "hollow", films / "*.tiff", films / "a.dcm")
    ran = msloc("infer", *asked, "--model", bundle)
    assert (ran.code, ran.inputs) == (1, ["a.dcm"])
    assert ran.reasons == ["missing", "unreadable", "missing"]
    assert "expected a film, or for `infer` a folder that holds one, got another folder" in ran.err
    assert all(str(path) in ran.err for path in asked)


def test_order_is_that_of_the_arguments(msloc: Run, films: Path, bundle: Path) -> None:
    ran = msloc("infer", films / "c.dcm", films / "b.png", films / "c.dcm", films, "--model", bundle)
    assert ran.inputs == ["c.dcm", "b.png", "c.dcm", "a.dcm", "b.png", "c.dcm"]


@pytest.mark.parametrize("name", ["scan[left].png", "x[/red]y.png", "ä ö.png", "a\nb.png", "-.png", ":warning:.png"])
def test_any_file_name(msloc: Run, films: Path, bundle: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / Path(name).parent
    folder.mkdir(exist_ok=True)
    shutil.copy(films / "b.png", tmp_path / name)
    ran = msloc("infer", tmp_path / name, "--model", bundle, "--out", tmp_path / "[/out]")
    assert (ran.code, [line["input"] for line in ran.lines]) == (0, [str(tmp_path / name)])
    assert "[/out]" in ran.err
    assert (tmp_path / "[/out]" / f"{Path(name).stem}.overlay.png").exists()


def test_a_name_that_is_no_text(msloc: Run, films: Path, bundle: Path) -> None:
    name = os.path.join(os.fsencode(films), b"latin-\xe4.png")
    shutil.copy(films / "b.png", name)
    Path(os.fsdecode(name) + ".txt").touch()
    ran = msloc("infer", os.fsdecode(name), os.fsdecode(name) + ".txt", "--model", bundle, "--out", films / "out")
    assert (ran.code, ran.reasons) == (1, ["truncated"])
    assert os.fsencode(ran.lines[0]["input"]) == name
    assert is_whole_report(films / "out" / "report.html")


def test_expand_and_names() -> None:
    assert list(Search().expand(["-", "none*", "none"])) == ["-", "none*", "none"]
    names = Names()
    paths = ["x/a.dcm", "y/a.png", "a-2.png", "z/a.dcm", "-", "a", "a-2"]
    assert [names.source(path).stem for path in paths] == ["a", "a-2", "a-2-2", "a-3", "stdin", "a-4", "a-2-3"]


# What comes out


def test_all_kinds_of_files(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    (films / "bad.png").write_bytes(b"")
    ran = msloc("infer", films, "--model", bundle, "--profile", "all", "--out", out)
    assert (ran.code, ran.inputs) == (1, ["a.dcm", "b.png", "c.dcm"])
    per_film = ("overlay.png", "heatmap.npy", "heatmap.png")
    assert {file.name for file in out.iterdir()} == {
        *(f"{stem}.{kind}" for stem in "abc" for kind in per_film),
        *("results.jsonl", "failures.jsonl", "report.html", "journal.sqlite"),
    }
    assert json_lines(out / "results.jsonl") == ran.lines
    for line, stem in zip(ran.lines, "abc", strict=True):
        assert line["files"] == {
            "overlay": f"{stem}.overlay.png",
            "heatmap": f"{stem}.heatmap.npy",
            "heatmap_png": f"{stem}.heatmap.png",
        }
        geometry = line["geometry"]
        maps = np.load(out / f"{stem}.heatmap.npy", allow_pickle=False)
        assert maps.dtype == np.float32
        assert maps.shape == (8, geometry["height"], geometry["width"])
        for plane, finding in zip(maps, line["findings"], strict=True):
            assert plane.max() == pytest.approx(finding["peak"]["value"], abs=1e-4)
        assert cv2.imread(str(out / f"{stem}.heatmap.png"), cv2.IMREAD_UNCHANGED).shape == maps.shape[1:]
        assert cv2.imread(str(out / f"{stem}.overlay.png")).ndim == 3
    (failure,) = json_lines(out / "failures.jsonl")
    assert list(failure) == ["input", "reason", "message"]
    assert (failure["input"], failure["reason"]) == (str(films / "bad.png"), "truncated")
    assert is_whole_report(out / "report.html")
    assert (out / "report.html").read_text().count('class="film"') == 3


def test_the_same_stem_twice(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    (films / "two").mkdir()
    shutil.copy(films / "b.png", films / "two" / "a.png")
    out = tmp_path / "out"
    ran = msloc("infer", films / "a.dcm", films / "two", "--model", bundle, "--out", out, "--write", "overlay")
    assert [line["files"]["overlay"] for line in ran.lines] == ["a.overlay.png", "a-2.overlay.png"]
    sizes = [cv2.imread(str(out / line["files"]["overlay"])).shape for line in ran.lines]
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        ("json", ["results.jsonl"]),
        ("overlay", ["a.overlay.png"]),
        ("heatmap", ["a.heatmap.npy", "a.heatmap.png"]),
        ("report", ["report.html"]),
        (" json , overlay,", ["a.overlay.png", "results.jsonl"]),
    ],
)
def test_some_kinds(msloc: Run, films: Path, bundle: Path, tmp_path: Path, kinds: str, names: list[str]) -> None:
    ran = msloc("infer", films / "a.dcm", "--model", bundle, "--out", tmp_path / "out", "--write", kinds)
    assert (ran.code, len(ran.lines)) == (0, 1)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(["journal.sqlite", *names])


def test_a_film_without_findings_has_its_files(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = msloc("infer", films / "a.dcm", "--model", bundle, "--profile", "none", "--out", out)
    assert ran.code == 0
    assert not any(finding["positive"] for finding in ran.lines[0]["findings"])
    assert np.load(out / "a.heatmap.npy").shape[0] == 0
    assert {"a.overlay.png", "report.html"} <= {file.name for file in out.iterdir()}
    assert "no finding" in ran.err


@pytest.mark.parametrize(
    ("options", "show", "discs"),
    [((), "3", 3), (("--show", "1"), "1", 1), (("--show", "0"), "0", 0), (("--show", "all"), "null", 4)],
)
def test_how_many_findings_are_drawn(
    msloc: Run, films: Path, bundle: Path, tmp_path: Path, options: tuple[str, ...], show: str, discs: int
) -> None:
    """Profile "all" finds every class, each as a box over all of the film: one numbered disc for each that is drawn,
    in a corner of it; the eight of them share the four corners."""
    out = tmp_path / "out"
    ran = msloc("infer", films / "b.png", "--model", bundle, "--profile", "all", "--out", out, *options)
    assert ran.code == 0
    labels = [finding["label"] for finding in ran.lines[0]["findings"]]
    assert [finding["positive"] for finding in ran.lines[0]["findings"]] == [True] * len(labels)
    picture = cv2.imread(str(out / "b.overlay.png"))
    film = picture[:, :700]  # enlarged to that; the panel is at the right
    seen = [(film == rgb(color)[::-1]).all(axis=2).sum() > 100 for color in palette(labels).values()]
    assert sum(seen) == discs
    assert f'"show":{show}' in (out / "report.html").read_text()


def test_a_gated_model_from_file_to_line(msloc: Run, films: Path, bundle_with: Callable[..., Path]) -> None:
    """The gate is set between the three films: those below it have no finding, and nothing was localized."""

    def run(film: float | None) -> list[dict[str, Any]]:
        profile = {"score": [0.0] * 8, "map": [-1e6] * 8, "film": film}
        model = bundle_with(
            abnormal={"weights": [0.5] * 8, "bias": -3.0},
            profiles={"normal-90": profile},
            default_profile="normal-90",
        )
        lines: list[dict[str, Any]] = msloc("infer", films, "--model", model).lines
        return lines

    scores = [line["abnormal"]["score"] for line in run(None)]
    lowest, middle, _ = sorted(scores)
    assert middle - lowest > 1e-4
    lines = run(middle - 1e-5)
    passed = [score > lowest for score in scores]
    assert [line["profile"] for line in lines] == ["normal-90"] * 3
    assert [line["abnormal"]["positive"] for line in lines] == passed
    for line, passes in zip(lines, passed, strict=True):
        assert {finding["positive"] for finding in line["findings"]} == {passes}
        assert {finding["peak"] is not None for finding in line["findings"]} == {passes}


def test_a_second_run_replaces_the_first(msloc: Run, films: Path, bundle: Path) -> None:
    """Into the folder of the films themselves: what the first run wrote there is no film for the second."""
    (films / "bad.png").write_bytes(b"")
    first = msloc("infer", films, "--model", bundle, "--out", films)
    assert (films / "failures.jsonl").exists()
    (films / "bad.png").unlink()
    second = msloc("infer", films, "--model", bundle, "--out", films, "--overwrite")
    assert (first.code, second.code) == (1, 0)
    assert first.inputs == second.inputs == ["a.dcm", "b.png", "c.dcm"]
    assert len(json_lines(films / "results.jsonl")) == 3
    assert not (films / "failures.jsonl").exists()


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_batches_change_nothing(msloc: Run, films: Path, bundle: Path, batch: int) -> None:
    (films / "aa.png").write_bytes(b"")
    ran = msloc("infer", films, "--model", bundle, "--batch", batch, "--workers", 3)
    assert (ran.code, ran.inputs, ran.reasons) == (1, ["a.dcm", "b.png", "c.dcm"], ["truncated"])


def test_all_classes(msloc: Run, films: Path, bundle: Path) -> None:
    ran = msloc("infer", films / "a.dcm", "--model", bundle, "--profile", "none", "--all-classes")
    assert [len(finding["boxes"]) for finding in ran.lines[0]["findings"]] == [1] * 8
    assert not any(finding["positive"] for finding in ran.lines[0]["findings"])


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_another_backend(msloc: Run, films: Path, bundle: Path, backend: str) -> None:
    pytest.importorskip(backend)
    ran = msloc("infer", films / "a.dcm", "--model", bundle, "--backend", backend)
    assert (ran.code, ran.lines[0]["backend"]) == (0, backend)


def test_quiet(msloc: Run, films: Path, bundle: Path) -> None:
    (films / "bad.png").write_bytes(b"")
    ran = msloc("infer", films, "--model", bundle, "-q")
    assert len(ran.lines) == 3
    assert ran.err == f"msloc-edge: [truncated] {ran.err.partition('] ')[2]}"
    assert ran.err.count("\n") == 1


def test_a_long_table_is_cut(msloc: Run, films: Path, bundle: Path) -> None:
    ran = msloc("infer", *[films / "b.png"] * 43, "--model", bundle, "--batch", 8)
    assert len(ran.lines) == 43
    assert "43 films localized (3 not shown)" in ran.err


def test_threads(msloc: Run, films: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked = []

    def session(model: bytes, options: onnxruntime.SessionOptions, **rest: Any) -> onnxruntime.InferenceSession:
        asked.append(options.intra_op_num_threads)
        return made(model, options, **rest)

    made = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    for options in ((), ("--threads", 1)):
        assert msloc("infer", films / "b.png", "--model", bundle, *options).code == 0
    assert asked == [0, 1]


def test_frames(msloc: Run, films: Path, bundle: Path) -> None:
    first = cv2.imread(str(films / "b.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwritemulti(str(films / "two.tiff"), [first, np.ascontiguousarray(first[::-1])])
    for frame, code, reasons in ((None, 1, ["multi_frame"]), (2, 0, []), (3, 1, ["option_invalid"])):
        chosen = () if frame is None else ("--frame", frame)
        ran = msloc("infer", films / "two.tiff", "--model", bundle, *chosen)
        assert (ran.code, ran.reasons) == (code, reasons)


# What goes wrong


def test_bad_films_do_not_hurt_the_good_ones(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    expected = bad_films(films, films)
    out = tmp_path / "out"
    ran = msloc("infer", films, films / "none.dcm", "--model", bundle, "--batch", 2, "--out", out)
    assert ran.code == 1
    assert ran.inputs == ["a.dcm", "b.png", "c.dcm"]
    assert json_lines(out / "results.jsonl") == ran.lines
    failures = {Path(line["input"]).name: line for line in json_lines(out / "failures.jsonl")}
    assert set(failures) == {*expected, "none.dcm"}
    for name, reason in (expected | {"none.dcm": "missing"}).items():
        failure = failures[name]
        assert failure["reason"] == reason or (not reason and failure["reason"] in ("corrupt", "truncated"))
        assert failure["reason"] != "internal_error"
        assert failure["message"] in ran.err
        assert name in failure["message"]
    assert ran.reasons == [line["reason"] for line in json_lines(out / "failures.jsonl")]
    assert f"3 films localized, {len(failures)} failed" in ran.err
    assert leftovers(out) == []


def test_only_bad_films(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    (films / "bad.png").write_bytes(b"")
    ran = msloc("infer", films / "bad.png", "--model", bundle, "--out", tmp_path / "out")
    assert (ran.code, ran.lines) == (1, [])
    assert json_lines(tmp_path / "out" / "results.jsonl") == []
    assert is_whole_report(tmp_path / "out" / "report.html")


@pytest.mark.parametrize("batch", [1, 4])
def test_fail_fast(msloc: Run, films: Path, bundle: Path, tmp_path: Path, batch: int) -> None:
    (films / "aa.png").write_bytes(b"")
    out = tmp_path / "out"
    ran = msloc("infer", films, "--model", bundle, "--fail-fast", "--out", out, "--batch", batch)
    assert (ran.code, ran.inputs, ran.reasons) == (1, ["a.dcm"], ["truncated"])
    assert json_lines(out / "results.jsonl") == ran.lines
    assert leftovers(out) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "no-such-model"], "bundle_missing"),
        (["--profile", "strict"], "profile_unknown"),
        (["--device", "toaster"], "backend_device"),
    ],
)
def test_what_cannot_be_set_up(msloc: Run, films: Path, bundle: Path, options: list[str], reason: str) -> None:
    ran = msloc(
        "infer", films, *(() if "--model" in options else ("--model", bundle)), *options, "--out", films / "out"
    )
    assert (ran.code, ran.lines, ran.reasons) == (1, [], [reason])
    assert len(ran.err.splitlines()) == 1
    assert not (films / "out").exists()


def test_a_damaged_model_is_refused(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes((damaged / "model.onnx").read_bytes()[:-1])
    ran = msloc("infer", films, "--model", damaged)
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["bundle_hash"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--write", "json,paper"], "report, sr, seg, pm, gsps, sc, got 'json,paper'"),
        (["--write", ""], "expected some of"),
        (["--write", "overlay"], "add --out DIR"),
        (["--backend", "abacus"], "'abacus' is not one of"),
        (["--batch", "0"], "0 is not in the range"),
        (["--workers", "many"], "'many' is not a valid integer"),
        (["--frame", "0"], "0 is not in the range"),
        (["--threads", "0"], "0 is not in the range"),
        (["--overwrite"], "--overwrite needs a folder: add --out DIR"),
        (["--show", "x"], "expected a whole number of at least 0, or all, got 'x'"),
        (["--show", "-1"], "expected a whole number of at least 0, or all, got '-1'"),
        (["--show", "1.5"], "expected a whole number of at least 0, or all, got '1.5'"),
        (["--watch"], "--watch expects folders"),
        (["--out", __file__], "is a file"),
    ],
)
def test_wrong_usage(msloc: Run, films: Path, bundle: Path, options: list[str], says: str) -> None:
    ran = msloc("infer", films / "a.dcm", "--model", bundle, *options)
    assert (ran.code, ran.lines) == (2, [])
    assert says in " ".join(ran.err.split())


@pytest.mark.parametrize("options", [["-", "--watch"], [".", "--watch", "--out", "o", "--write", "report"]])
def test_wrong_usage_of_watch(msloc: Run, bundle: Path, options: list[str], tmp_path: Path) -> None:
    ran = msloc("infer", *options, "--model", bundle)
    assert (ran.code, ran.lines) == (2, [])
    assert "--watch" in ran.err


def test_json_without_a_folder_is_stdout(msloc: Run, films: Path, bundle: Path) -> None:
    ran = msloc("infer", films / "a.dcm", "--model", bundle, "--write", "json")
    assert (ran.code, len(ran.lines)) == (0, 1)


# Where it cannot be written


def test_the_folder_cannot_be_made(msloc: Run, films: Path, bundle: Path) -> None:
    ran = msloc("infer", films, "--model", bundle, "--out", films / "a.dcm" / "out")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["out_unwritable"])


@pytest.mark.parametrize("name", ["results.jsonl", "report.html", "failures.jsonl"])
def test_a_folder_in_the_place_of_a_file(msloc: Run, films: Path, bundle: Path, tmp_path: Path, name: str) -> None:
    """Found before the first film, not after the last."""
    (tmp_path / "out" / name).mkdir(parents=True)
    ran = msloc("infer", films, "--model", bundle, "--out", tmp_path / "out")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["out_unwritable"])
    assert name in ran.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name]


def test_one_picture_that_cannot_be_written(msloc: Run, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "b.overlay.png").mkdir(parents=True)
    ran = msloc("infer", films, "--model", bundle, "--out", out)
    assert (ran.code, ran.inputs, ran.reasons) == (1, ["a.dcm", "c.dcm"], ["out_unwritable"])
    assert str(films / "b.png") in ran.err
    assert json_lines(out / "results.jsonl") == ran.lines
    assert [line["input"] for line in json_lines(out / "failures.jsonl")] == [str(films / "b.png")]
    assert leftovers(out) == []
    assert is_whole_report(out / "report.html")


def many(films: Path, count: int) -> Path:
    """A folder of links to one film."""
    folder = films / "many"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05}.png").hardlink_to(films / "b.png")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_the_disk_fills_up(msloc: Run, films: Path, bundle: Path, small_disk: Path) -> None:
    folder, out = many(films, 30), small_disk / "out"
    ran = msloc("infer", folder, "--model", bundle, "--out", out, "--write", "json", "--batch", 4)
    assert ran.code == 1
    assert set(ran.reasons) == {"disk_full"}
    assert 5 < len(ran.lines) < 30
    assert len(ran.lines) + len({line for line in ran.err.splitlines() if "disk_full" in line}) == 30
    assert json_lines(out / "results.jsonl") == ran.lines
    assert leftovers(out) == []


def test_the_disk_is_full_for_pictures(msloc: Run, films: Path, bundle: Path, small_disk: Path) -> None:
    """The map of the first film, 64 x 59 float32, leaves no room for a second."""
    out = small_disk / "out"
    (small_disk / "other").write_bytes(bytes(36_000))
    ran = msloc("infer", films, "--model", bundle, "--out", out, "--write", "json,heatmap")
    assert (ran.code, ran.inputs, ran.reasons) == (1, ["a.dcm"], ["disk_full", "disk_full"])
    assert json_lines(out / "results.jsonl") == ran.lines
    assert np.load(out / "a.heatmap.npy").shape == (1, 64, 59)
    assert [Path(line["input"]).name for line in json_lines(out / "failures.jsonl")] == ["b.png", "c.dcm"]
    assert not (out / "b.heatmap.npy").exists()
    assert leftovers(out) == []


def test_the_disk_is_full_at_the_start(msloc: Run, films: Path, bundle: Path, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(88_000))
    ran = msloc("infer", films, "--model", bundle, "--out", small_disk / "out", "--write", "json,report")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["disk_full"])
    assert {file.name for file in (small_disk / "out").iterdir()} <= {"journal.sqlite"}


def test_a_file_that_may_not_grow(start: Start, films: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    process = start(*("infer", many(films, 20), "--model", bundle, "--out", out, "--write", "json"), preexec_fn=limit)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert process.returncode == 1
    assert b"[out_unwritable]" in stderr
    assert b"Traceback" not in stderr
    assert 1 <= len(lines) < 20
    assert json_lines(out / "results.jsonl") == lines
    assert len(json_lines(out / "failures.jsonl")) == 20 - len(lines)
    assert leftovers(out) == []


def test_stdout_is_full(start: Start, films: Path, bundle: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start("infer", films, "--model", bundle, "-q", stdout=full)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr.startswith(b"msloc-edge: [disk_full] stdout")
    assert stderr.count(b"\n") == 1


def test_the_reader_goes_away(start: Start, films: Path, bundle: Path) -> None:
    process = start("infer", many(films, 60), "--model", bundle, "-q")
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(PATIENCE) == 1
    assert stderr == b""


# The script itself


def test_the_script(start: Start, films: Path, bundle: Path) -> None:
    (films / "bad.png").write_bytes(b"")
    process = start("infer", films, "--model", bundle)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert [Path(json.loads(line)["input"]).name for line in stdout.splitlines()] == ["a.dcm", "b.png", "c.dcm"]
    assert b"[truncated]" in stderr
    assert b"\x1b" not in stderr  # no colours and no progress where nobody watches


def test_the_script_takes_stdin(start: Start, films: Path, bundle: Path) -> None:
    process = start("infer", "-", "--model", bundle, "-q")
    stdout, stderr = process.communicate((films / "a.dcm").read_bytes(), timeout=PATIENCE)
    assert (process.returncode, stderr) == (0, b"")
    assert json.loads(stdout)["input"] == "-"


def test_usage_of_the_script(start: Start) -> None:
    process = start("infer")
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (2, b"")
    assert b"Missing argument" in stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_is_interrupted(start: Start, films: Path, bundle: Path, tmp_path: Path, stop: signal.Signals) -> None:
    out, count = tmp_path / "out", 400
    process = start("infer", many(films, count), "--model", bundle, "--out", out, "--batch", 4)
    assert process.stdout
    first = [process.stdout.readline() for _ in range(3)]
    process.send_signal(stop)
    rest, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert stderr.strip() == b"msloc-edge: interrupted; what was finished is whole"
    printed = [json.loads(line) for line in b"".join([*first, rest]).splitlines()]
    written = json_lines(out / "results.jsonl")
    assert 3 <= len(written) < count
    assert abs(len(written) - len(printed)) <= 1  # one film may be between its two writings
    assert all((out / file).stat().st_size for line in written for file in line["files"].values())
    assert is_whole_report(out / "report.html")
    assert leftovers(out) == []


def test_waiting_for_stdin_is_interrupted(start: Start, bundle: Path) -> None:
    process = start("infer", "-", "--model", bundle)
    assert process.stdin
    assert process.stderr
    process.stdin.write(bytes(1_000_000))  # more than a pipe holds: this returns when the film is being read
    time.sleep(0.5)
    for _ in range(5):  # a signal that comes just between two reads is seen at the next one only
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE / 5)
            break
    assert process.returncode == 130
    assert process.stderr.read().strip() == b"msloc-edge: interrupted; what was finished is whole"


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "what should happen did not"
        time.sleep(0.02)


# Watching


class Watcher:
    """`infer --watch` on a folder, its lines as they come."""

    def __init__(self, start: Start, folder: Path, *options: object) -> None:
        self.process = start("infer", folder, "--watch", *options)
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def next(self) -> str:
        """The file name of the next film that comes out."""
        return Path(json.loads(self._lines.get(timeout=PATIENCE))["input"]).name

    def stop(self, number: signal.Signals) -> tuple[int, bytes]:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert self.process.stderr
        assert self._lines.empty()
        return code, self.process.stderr.read()


def test_watch(start: Start, films: Path, bundle: Path) -> None:
    """Results go into the watched folder itself: they must not come back as films."""
    inbox = films / "inbox"
    (inbox / "sub").mkdir(parents=True)
    shutil.copy(films / "a.dcm", inbox / "before.dcm")
    out = inbox / "out"
    watcher = Watcher(start, inbox, "--model", bundle, "--out", out)
    assert watcher.next() == "before.dcm"

    shutil.copy(films / "b.png", inbox / "sub" / "new.png")
    assert watcher.next() == "new.png"
    assert [Path(line["input"]).name for line in json_lines(out / "results.jsonl")] == ["before.dcm", "new.png"]

    (inbox / "bad.png").write_bytes(b"no film")
    wait_until((out / "failures.jsonl").exists)

    (inbox / "empty.png").touch()  # only begun: nothing to say yet
    data = (films / "c.dcm").read_bytes()
    with (inbox / "slow.dcm").open("wb", buffering=0) as file:
        for at in range(0, len(data), len(data) // 8):
            file.write(data[at : at + len(data) // 8])
            time.sleep(0.1)
    assert watcher.next() == "slow.dcm"

    (inbox / "sub" / "new.png").unlink()
    shutil.copy(films / "a.dcm", inbox / "last.dcm")
    assert watcher.next() == "last.dcm"

    code, stderr = watcher.stop(signal.SIGINT)
    assert code == 130
    assert b"Traceback" not in stderr
    assert b"[not_an_image]" in stderr
    assert b"4 films localized" in stderr
    results = [Path(line["input"]).name for line in json_lines(out / "results.jsonl")]
    assert results == ["before.dcm", "new.png", "slow.dcm", "last.dcm"]
    assert {Path(line["input"]).name for line in json_lines(out / "failures.jsonl")} <= {"bad.png", "slow.dcm"}
    assert (out / "last.overlay.png").exists()
    assert not (out / "report.html").exists()
    assert leftovers(out) == []


def test_watch_takes_a_film_again_when_its_sender_had_only_paused(start: Start, films: Path, bundle: Path) -> None:
    inbox = films / "inbox"
    inbox.mkdir()
    watcher = Watcher(start, inbox, "--model", bundle, "--out", films / "out", "--write", "json")
    data = (films / "c.dcm").read_bytes()
    with (inbox / "film.dcm").open("wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        wait_until((films / "out" / "failures.jsonl").exists)
        file.write(data[len(data) // 2 :])
    assert watcher.next() == "film.dcm"
    assert watcher.stop(signal.SIGTERM)[0] == 130
    assert [line["reason"] for line in json_lines(films / "out" / "failures.jsonl")] == ["truncated"]


def test_watch_stops_at_a_failure_when_asked(start: Start, films: Path, bundle: Path) -> None:
    inbox = films / "inbox"
    inbox.mkdir()
    process = start("infer", inbox, "--watch", "--fail-fast", "--model", bundle)
    (inbox / "bad.png").write_bytes(b"no film")
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (1, b"")
    assert b"[not_an_image]" in stderr


def test_the_shipped_model_is_the_default(msloc: Run, films: Path) -> None:
    from msloc_edge.bundle import DEFAULT_MODEL, shipped_models

    if DEFAULT_MODEL not in shipped_models():
        pytest.skip(f"{DEFAULT_MODEL} is not in this checkout")
    ran = msloc("infer", films / "a.dcm")
    assert (ran.code, ran.lines[0]["model"]["name"]) == (0, DEFAULT_MODEL)


def test_the_shipped_model_finds_what_the_example_films_show(msloc: Run) -> None:
    """What `make demo` does: of the phantoms' eleven findings at most two are missed or seen elsewhere."""
    examples = Path(__file__).parents[2] / "examples"
    truth = {
        str(folder / line["file"]): line["regions"]
        for folder in (examples / "png", examples / "dicom")
        for line in map(json.loads, (folder / "truth.jsonl").read_text().splitlines())
    }
    ran = msloc("infer", examples)
    assert ran.code == 0, ran.err
    assert {line["input"] for line in ran.lines} == set(truth)
    hits = []
    for line in ran.lines:
        found = {finding["label"]: finding for finding in line["findings"]}
        for label in {region["label"] for region in truth[line["input"]]}:
            peak = found[label]["peak"] if found[label]["positive"] else {"x": -1, "y": -1}
            boxes = [region["box"] for region in truth[line["input"]] if region["label"] == label]
            hits.append(any(0 <= peak["x"] - b["x"] <= b["w"] and 0 <= peak["y"] - b["y"] <= b["h"] for b in boxes))
    assert len(hits) == 11
    assert sum(hits) >= 9
