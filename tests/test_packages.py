"""The packages of pyproject.toml are those on disk, and what import-linter cannot see: imports by a string."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import msloc_edge

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
TOP_FOLDERS = ("msloc_edge", "kernels", "export", "train")
ABOVE = {"cli": (), "train": ("cli", "export"), "export": ("cli", "train")}
"""Rooms above the runtime -> the rooms that they must not import; a room of the runtime imports none of the three."""


def folders() -> dict[str, Path]:
    """Package -> folder, by the map in pyproject.toml."""
    homes = SETUPTOOLS["package-dir"]
    found = {}
    for package in SETUPTOOLS["packages"]:
        home = max((name for name in homes if f"{package}.".startswith(f"{name}.")), key=len)
        found[package] = ROOT.joinpath(homes[home], *package.removeprefix(home).split("."))
    return found


def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of every package."""
    files = {f"{package}.{file.stem}": file for package, folder in folders().items() for file in folder.glob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in files.items()}


def strings(source: str) -> Iterator[str]:
    """Strings that are dotted names below msloc_edge."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"^msloc_edge(?:\.\w+)+$", node.value)


def lazy_names(source: str) -> Iterator[str]:
    """Names that are taken from msloc_edge itself, which imports their modules when they are first used."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "msloc_edge":
            yield from (alias.name for alias in node.names if alias.name in msloc_edge.__all__)


def test_every_package_is_in_the_wheel() -> None:
    on_disk = {file.parent for top in TOP_FOLDERS for file in (ROOT / top).rglob("__init__.py")}
    assert set(folders().values()) == on_disk


def test_every_module_is_in_a_package() -> None:
    on_disk = {file for top in TOP_FOLDERS for file in (ROOT / top).rglob("*.py")}
    loose = on_disk - set(modules().values())
    assert {file for file in loose if not (file.parent / "CMakeLists.txt").exists()} == set()  # else: of the C++ build


def test_files_beside_the_code_are_in_the_wheel() -> None:
    listed = {
        (package, pattern): set(folders()[package].glob(pattern))
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
    }
    assert all(listed.values()), listed
    beside = {file for folder in folders().values() for file in folder.iterdir() if file.suffix in (".css", ".js")}
    beside |= {file for folder in folders().values() for file in folder.glob("*.html")}
    assert beside <= set().union(*listed.values())


def test_imports_by_a_string_name_modules_and_keep_the_arrows() -> None:
    known = modules()
    for name, file in known.items():
        room = f"{name}.".split(".")[1]
        for target in strings(file.read_text()):
            assert target in known, f"{name} names {target}, which is no module"
            assert target.split(".")[1] not in ABOVE.get(room, tuple(ABOVE)), f"{name} must not import {target}"


def test_no_room_of_the_runtime_imports_by_a_lazy_name() -> None:
    for name, file in modules().items():
        assert f"{name}.".split(".")[1] in ABOVE or not set(lazy_names(file.read_text())), name


def test_hidden_imports_are_seen() -> None:
    source = 'f("msloc_edge.train.loop")\nfrom msloc_edge import Localizer, __version__\nx = "see msloc_edge.cli"'
    assert (set(strings(source)), set(lazy_names(source))) == ({"msloc_edge.train.loop"}, {"Localizer"})
