"""The examples and commands of the documentation, run as a reader would, from the repository's root."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from msloc_edge.cli import group

ROOT = Path(__file__).parents[1]


def examples(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))


def run_examples(page: str, folder: Path) -> list[str]:
    """Run a page's examples in a folder, beside the films of examples/; gives the lines that they print."""
    (folder / "examples").symlink_to(ROOT / "examples")
    command = [sys.executable, "-W", "error", "-c", examples(page)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_page_of_dicom_runs(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    assert len(run_examples("docs/dicom.md", tmp_path)) == 2
    assert (tmp_path / "report.dcm").is_file()
    made = {"phantom": ("sr", "seg", "pm", "gsps", "sc"), "from-line": ("sr", "gsps", "sc")}
    names = {f"{stem}.{kind}.dcm" for stem, kinds in made.items() for kind in kinds}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_the_python_page_runs(tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    lines = run_examples("docs/python.md", tmp_path)
    assert re.fullmatch(r"\w+ [01]\.\d\d at \d+, \d+: \d+ x \d+", lines[0]), "a box of the first film"
    assert len([line for line in lines if re.fullmatch(r"\w+ [01]\.\d{3} at [01]\.\d{3}: [+-]\d+\.\d\d", line)]) == 3
    assert any(line.startswith("constant - array: expected") for line in lines)
    assert any(line.startswith("missing.png missing.png: expected a file") for line in lines)
    assert len([line for line in lines if ".dcm " in line]) == len(list((ROOT / "examples").rglob("*.dcm")))
    assert (tmp_path / "overlay.png").stat().st_size > 10_000


def commands(page: Path) -> list[str]:
    """What stands behind msloc-edge in a page's code, one command a line."""
    code = [line for line in page.read_text().splitlines() if line.startswith("    ")]
    return [found[1] for line in code if (found := re.match(r"    (?:\S*/)?msloc-edge (.+)", line))]


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words call, and the words behind its name."""
    command: click.Command = group
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found
        command = found
    return command, words


@pytest.mark.parametrize("line", commands(ROOT / "README.md"))
def test_a_command_of_the_readme_is_taken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command, words = resolved(shlex.split(line, comments=True))
    command.make_context("msloc-edge", words)  # raises UsageError for a word that is none of its own


@pytest.mark.parametrize("page", sorted(page.name for page in (ROOT / "docs").glob("*.md") if commands(page)))
def test_options_of_every_page_are_there(page: str) -> None:
    for line in commands(ROOT / "docs" / page):
        command, words = resolved(line.split())
        known = {name for option in command.params for name in option.opts + option.secondary_opts}
        named = {found[0] for word in words if (found := re.search(r"--[a-z][a-z0-9-]*", word))}
        assert named <= known, line


def test_the_first_commands_of_the_readme_run(tmp_path: Path) -> None:
    """Those that need neither a download nor minutes, in a folder that has nothing but the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    quick = [line for line in commands(ROOT / "README.md") if re.match(r"(infer examples/d|models list|eval)", line)]
    assert len(quick) == 4
    for line in quick:
        words = [sys.executable, "-m", "msloc_edge", *shlex.split(line, comments=True)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    films = [file for file in (ROOT / "examples").glob("*/phantom*") if file.suffix in (".dcm", ".png")]
    assert len((tmp_path / "out" / "results" / "results.jsonl").read_text().splitlines()) == len(films) == 7
    assert (tmp_path / "out" / "eval" / "eval.html").is_file()
