"""msloc-edge models, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from click.testing import CliRunner

from msloc_edge.cli import group
from msloc_edge.render.colors import heat

PATIENCE = 120  # seconds until something that should happen counts as lost
Run = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[bytes]"]
SHIPPED = ["cxr-edge"]


pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture(scope="session")
def archive(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundle`, whose name is tiny, as a zip."""
    target = tmp_path_factory.mktemp("packed") / "tiny"
    return Path(shutil.make_archive(str(target), "zip", bundle.parent, bundle.name))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damage(folder: Path) -> None:
    (folder / "model.onnx").unlink()  # it may be a link
    (folder / "model.onnx").write_bytes(b"other")


def names(ran: Any) -> list[str]:
    return [line["name"] for line in ran.lines]


def on_a_terminal(start: Start, *arguments: object, out: int | None = None) -> str:
    """What the command writes on a terminal of true colour that is its stderr, and its stdout unless `out` is."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "120"}
    process = start(*arguments, stdout=out or follower, stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    try:
        while block := os.read(leader, 1 << 16):
            seen += block
    except OSError:  # Linux says so when nobody is left at the other end
        pass
    os.close(leader)
    assert process.wait(PATIENCE) == 0
    return seen.decode()


# list


def test_list(msloc: Run, bundle: Path, models: Path) -> None:
    msloc("models", "add", bundle, "--name", "ward")
    ran = msloc("models", "list")
    assert ran.code == 0
    shipped, ward = ran.lines
    manifest = (bundle / "manifest.json").read_bytes()
    assert ward == {
        "schema": "msloc-edge/model/1",
        "name": "ward",
        "where": "installed",
        "path": str(models / "ward"),
        "whole": True,
        "model": {"name": "tiny", "version": "0.1", "sha256": hashlib.sha256(manifest).hexdigest()},
        "classes": json.loads(manifest)["classes"],
        "input_size": {"height": 64, "width": 64},
        "bytes": sum(file.stat().st_size for file in bundle.iterdir()),
        "signature": {"key": None, "state": "signature_missing"},
    }
    assert (shipped["name"], shipped["where"]) == ("cxr-edge", "shipped")
    for text in ("cxr-edge (default)", "ward (tiny)", "64 x 64", ward["model"]["sha256"][:12], str(models)):
        assert text in ran.err


def test_a_damaged_model_is_listed(msloc: Run, bundle: Path, models: Path) -> None:
    msloc("models", "add", bundle)
    damage(models / "tiny")
    ran = msloc("models", "list")
    assert ran.code == 0
    assert names(ran) == [*SHIPPED, "tiny"]
    assert [line["whole"] for line in ran.lines] == [True, False]
    assert ran.lines[1]["reason"] == "bundle_hash"
    assert str(models / "tiny" / "model.onnx") in ran.lines[1]["message"]
    assert "bundle_hash" in ran.err


@pytest.mark.parametrize("arguments", [("list",), ("show", "cxr-edge"), ("verify",)])
def test_quiet(msloc: Run, arguments: tuple[str, ...]) -> None:
    ran = msloc("models", *arguments, "--quiet")
    assert (ran.code, names(ran), ran.err) == (0, SHIPPED, "")


@pytest.mark.parametrize("arguments", [("list",), ("show", "cxr-edge"), ("verify",)])
def test_a_terminal_shows_words_and_no_data(start: Start, arguments: tuple[str, ...]) -> None:
    assert "msloc-edge/model/1" not in on_a_terminal(start, "models", *arguments)


def test_data_comes_where_stdout_is_no_terminal_or_alone(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        on_a_terminal(start, "models", "list", out=out.fileno())
    assert json.loads((tmp_path / "out").read_text())["name"] == "cxr-edge"
    assert "msloc-edge/model/1" in on_a_terminal(start, "models", "list", "--quiet")


# show


def test_show(msloc: Run, bundle: Path) -> None:
    ran = msloc("models", "show", bundle)
    assert ran.code == 0
    [line] = ran.lines
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (line["where"], line["path"]) == ("folder", str(bundle))
    assert list(line["relevance"]) == manifest["classes"]
    assert sum(line["relevance"]["Mass"]) == pytest.approx(1, abs=1e-4)
    assert [stage["stride"] for stage in line["stages"]] == [4, 8, 16, 32]
    assert list(line["profiles"]) == ["first", "all", "none"]
    for entry in ("default_profile", "temperature", "architecture", "intended_use", "files"):
        assert line[entry] == manifest[entry]
    assert "Not for diagnosis, triage" in ran.err  # of the card
    assert "**" not in ran.err  # it is rendered
    assert "stage 4 (1/32)" in ran.err
    row = next(line for line in reversed(ran.err.splitlines()) if "● Mass" in line)
    assert row.split()[2:] == [f"{weight:.2f}" for weight in line["relevance"]["Mass"]]


def test_show_is_coloured_on_a_terminal(start: Start) -> None:
    shipped = json.loads((Path(__file__).parents[2] / "msloc_edge/bundle/models/cxr-edge/manifest.json").read_text())
    weight = shipped["relevance"][0][0]
    red, green, blue = bytes.fromhex(heat(weight)[1:])
    assert f";48;2;{red};{green};{blue}m" in on_a_terminal(start, "models", "show", "cxr-edge")


def test_show_with_a_picture(msloc: Run, tmp_path: Path) -> None:
    picture = tmp_path / "weights.png"
    ran = msloc("models", "show", "cxr-edge", "--picture", picture)
    assert ran.code == 0
    assert str(picture) in ran.err
    image = cv2.imread(str(picture))
    blue, green, red = bytes.fromhex(heat(ran.lines[0]["relevance"]["Nodule"][0])[1:])[::-1]
    assert ((image == (blue, green, red)).all(axis=2)).sum() > 1000


def test_a_picture_that_cannot_be_written(msloc: Run, tmp_path: Path) -> None:
    ran = msloc("models", "show", "cxr-edge", "--picture", tmp_path / "none" / "weights.png")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["out_unwritable"])


def test_show_what_is_damaged_or_unknown(msloc: Run, bundle: Path, models: Path) -> None:
    msloc("models", "add", bundle)
    damage(models / "tiny")
    for model, reason in (("tiny", "bundle_hash"), ("none", "bundle_missing")):
        ran = msloc("models", "show", model)
        assert (ran.code, ran.lines, ran.reasons) == (1, [], [reason])


def test_a_card_cannot_steer_the_terminal(msloc: Run, bundle_with: Callable[..., Path], tiny_bundle: Path) -> None:
    files = json.loads((tiny_bundle / "manifest.json").read_text())["files"]
    card = b"# Title\n\nred \x1b[31m alert \x07 \xff end\n"
    folder = bundle_with(
        files=files | {"model_card.md": hashlib.sha256(card).hexdigest()}, version="1\x1b]0;title\x07", name="a\x1b[2J"
    )
    (folder / "model_card.md").unlink()
    (folder / "model_card.md").write_bytes(card)
    ran = msloc("models", "show", folder)
    assert ran.code == 0
    assert "alert" in ran.err
    assert "\x1b" not in ran.err
    assert "\x07" not in ran.err


def test_a_bundle_without_a_card(msloc: Run, bundle_with: Callable[..., Path], tiny_bundle: Path) -> None:
    files = json.loads((tiny_bundle / "manifest.json").read_text())["files"]
    folder = bundle_with(files={"model.onnx": files["model.onnx"]})
    for name in files.keys() - {"model.onnx"}:
        (folder / name).unlink()
    ran = msloc("models", "show", folder)
    assert ran.code == 0
    assert "Not for diagnosis" not in ran.err
    assert "● Mass" in ran.err


# verify


def test_verify_all(msloc: Run, bundle: Path) -> None:
    msloc("models", "add", bundle)
    ran = msloc("models", "verify")
    assert (ran.code, names(ran)) == (0, [*SHIPPED, "tiny"])
    assert [line.split(":")[0] for line in ran.err.splitlines()] == names(ran)
    assert all(line["model"]["sha256"] in ran.err for line in ran.lines)


def test_verify_names_what_is_wrong_and_goes_on(msloc: Run, bundle: Path, models: Path) -> None:
    msloc("models", "add", bundle)
    damage(models / "tiny")
    ran = msloc("models", "verify", "none", "tiny", bundle, "cxr-edge")
    assert ran.code == 1
    assert ran.reasons == ["bundle_missing", "bundle_hash"]
    assert names(ran) == ["none", "tiny", str(bundle), "cxr-edge"]
    assert [line["whole"] for line in ran.lines] == [False, False, True, True]
    assert msloc("models", "verify", "cxr-edge").code == 0


# add and remove


def test_add_then_infer_then_remove(msloc: Run, bundle: Path, archive: Path, films: Path, models: Path) -> None:
    added = msloc("models", "add", archive, "--name", "ward")
    assert (added.code, names(added)) == (0, ["ward"])
    assert f"installed ward: {models / 'ward'}" in added.err
    by_name = msloc("infer", films / "a.dcm", "--model", "ward")
    by_folder = msloc("infer", films / "a.dcm", "--model", bundle)
    assert by_name.code == by_folder.code == 0
    assert by_name.lines[0]["findings"] == by_folder.lines[0]["findings"]
    assert by_name.lines[0]["model"] == added.lines[0]["model"]
    removed = msloc("models", "remove", "ward")
    assert (removed.code, removed.lines) == (0, [])
    assert str(models / "ward") in removed.err
    assert msloc("infer", films / "a.dcm", "--model", "ward").reasons == ["bundle_missing"]
    assert [path.name for path in models.iterdir()] == [".versions.json"]


def test_add_from_a_server(msloc: Run, archive: Path, serve: Callable[..., str]) -> None:
    ran = msloc("models", "add", serve(archive.read_bytes()), "--sha256", sha256(archive))
    assert (ran.code, names(ran)) == (0, ["tiny"])
    assert names(msloc("models", "list")) == [*SHIPPED, "tiny"]


def test_progress_of_a_download_is_shown_on_a_terminal(start: Start, archive: Path, serve: Callable[..., str]) -> None:
    url = serve(archive.read_bytes())
    seen = on_a_terminal(start, "models", "add", url, "--sha256", sha256(archive))
    assert "download" in seen
    assert "MB" in seen
    assert "installed tiny" in seen


@pytest.mark.parametrize("wrong", ["server", "file"])
def test_add_of_another_hash(msloc: Run, archive: Path, serve: Callable[..., str], models: Path, wrong: str) -> None:
    source = serve(archive.read_bytes()) if wrong == "server" else archive
    ran = msloc("models", "add", source, "--sha256", "0" * 64)
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["bundle_hash"])
    assert list(models.iterdir()) == []


def test_add_twice(msloc: Run, bundle: Path, archive: Path) -> None:
    assert msloc("models", "add", bundle).code == 0
    again = msloc("models", "add", archive)
    assert (again.code, again.reasons) == (1, ["out_occupied"])
    assert msloc("models", "add", archive, "--replace").code == 0
    shipped = msloc("models", "add", archive, "--name", "cxr-edge", "--replace")
    assert (shipped.code, shipped.reasons) == (1, ["out_occupied"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["https://localhost/model.zip"], "expected --sha256"),
        (["ftp://localhost/model.zip", "--sha256", "0" * 64], "expected an https, http or file URL"),
        (["{bundle}", "--sha256", "0" * 64], "the hash of an archive"),
        (["{bundle}", "--sha256", "0" * 63], "expected 64 hexadecimal digits"),
        (["{bundle}", "--sha256", "g" * 64], "expected 64 hexadecimal digits"),
        ([], "Missing argument 'SOURCE'"),
    ],
)
def test_wrong_usage(msloc: Run, bundle: Path, models: Path, arguments: list[str], says: str) -> None:
    ran = msloc("models", "add", *(argument.format(bundle=bundle) for argument in arguments))
    assert (ran.code, ran.lines) == (2, [])
    assert says in ran.err
    assert not models.exists()


def test_add_what_is_not_there(msloc: Run, tmp_path: Path) -> None:
    ran = msloc("models", "add", tmp_path / "none")
    assert (ran.code, ran.reasons) == (1, ["bundle_missing"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_download_that_is_stopped_leaves_nothing(
    start: Start, archive: Path, models: Path, serve: Callable[..., str], number: int
) -> None:
    data = archive.read_bytes()
    url = serve(data[: len(data) // 2], promised=len(data), hang=True)
    process = start("models", "add", url, "--sha256", sha256(archive))
    end = time.monotonic() + PATIENCE
    while not any(file.stat().st_size for file in models.glob(".msloc-*.tmp/archive")):
        assert time.monotonic() < end, "the download does not begin"
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, b"")
    assert b"interrupted" in err
    assert list(models.iterdir()) == []


def test_remove_what_cannot_be_removed(msloc: Run) -> None:
    for name in ("cxr-edge", "none"):
        ran = msloc("models", "remove", name)
        assert (ran.code, ran.reasons) == (1, ["bundle_missing"])
    assert msloc("models", "verify", "cxr-edge").code == 0


@pytest.mark.parametrize(
    ("subcommand", "words"),
    [
        ("list", ("--quiet",)),
        ("show", ("NAME|DIR", "--picture", "--quiet")),
        ("verify", ("[NAME|DIR]...", "--trusted-key", "--quiet")),
        ("sign", ("DIR", "--key", "--quiet")),
        ("add", ("SOURCE", "--sha256", "--name", "--replace", "--allow-rollback", "--quiet")),
        ("remove", ("NAME", "--quiet")),
    ],
)
def test_help(subcommand: str, words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(group, ["models", subcommand, "--help"])
    assert done.exit_code == 0
    assert [word for word in words if word not in done.stdout.replace(",", " ").split()] == []
    summaries = CliRunner().invoke(group, ["models", "-h"]).stdout
    assert "..." not in summaries.split("Commands:")[1]  # no summary is cut
