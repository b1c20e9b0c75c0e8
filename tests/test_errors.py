"""Reason and warning codes: those that the source gives are those of the tables, and docs/errors.md is their page."""

from __future__ import annotations

import ast
import copy
import pickle
import re
import runpy
from collections.abc import Iterable
from pathlib import Path

import pytest

from msloc_edge import errors
from msloc_edge.errors import REASONS, WARNINGS, MslocError
from msloc_edge.imaging import gate

ROOT = Path(__file__).parents[1]
SOURCES = [file for top in ("msloc_edge", "kernels", "export", "train") for file in (ROOT / top).rglob("*.py")]
CODE = re.compile(r"[a-z]+(_[a-z0-9]+)*")

KINDS = {kind.__name__ for kind in MslocError.__subclasses__()}
HELPERS = {"error": "InputError"}  # dicom/header.py: header.error("corrupt", ...)
FILM_READERS = [*(ROOT / "msloc_edge" / "imaging").rglob("*.py"), ROOT / "msloc_edge" / "pipeline.py"]


def raised(source: str) -> set[tuple[str, str]]:
    """(code, class) of each SomeError("code", ...) in a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(code := node.args[0], ast.Constant):
            name = ast.unparse(node.func).rpartition(".")[2]
            if (kind := HELPERS.get(name, name)) in KINDS:
                found.add((str(code.value), kind))
    return found


def warned(source: str) -> set[str]:
    """Codes that a reader appends or puts into a tuple."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        items: Iterable[ast.expr] = ()
        if isinstance(node, ast.Tuple):
            items = node.elts
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("codes.append", "header.warn")):
            items = node.args
        texts = {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}
        found |= {text for text in texts if "_" in text and CODE.fullmatch(text)}
    return found


def test_every_reason_is_in_the_table_and_no_other() -> None:
    found = {pair for file in SOURCES for pair in raised(file.read_text())}
    assert found == {(code, kind.__name__) for code, reason in REASONS.items() for kind in reason.errors}


def test_every_warning_is_in_the_table_and_no_other() -> None:
    found = {code for file in FILM_READERS for code in warned(file.read_text())}
    assert found | {*gate.REASONS, *gate.RULES} == set(WARNINGS)  # some of these are one word


def test_the_collectors_see_planted_codes() -> None:
    source = (
        'raise InputError("first_one", f"{name}")\n'
        'error = errors.BundleError(\n    "second_one", "text"\n)\n'
        'raise header.error("third_one", "a", "b", "c")\n'
        'raise ValueError("not_ours")\nraise InputError(reason, "text")'
    )
    planted = {("first_one", "InputError"), ("second_one", "BundleError"), ("third_one", "InputError")}
    assert raised(source) == planted
    source = 'codes += ("one_code",)\nself.codes.append("two_codes")\nf((*codes, "three_codes"))\nx = "not_a_code"'
    assert warned(source) == {"one_code", "two_codes", "three_codes"}


def test_the_page_is_current() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "errors.py"))
    assert (ROOT / "docs" / "errors.md").read_text() == tool["page"](), "make pages writes it"
    former = [old for codes in tool["FORMER"].values() for old in codes]
    assert set(tool["FORMER"]) <= set(REASONS)
    assert sorted(set(former)) == sorted(former)
    assert not set(former) & set(REASONS)


def test_codes_are_spelled_alike_and_mean_one_thing() -> None:
    assert all(CODE.fullmatch(code) for code in (*REASONS, *WARNINGS))
    assert not set(REASONS) & set(WARNINGS)


def test_the_tree_is_drawn() -> None:
    assert all(f"── {name} " in (errors.__doc__ or "") for name in KINDS)


@pytest.mark.parametrize("kind", MslocError.__subclasses__())
def test_an_error_travels_between_processes(kind: type[MslocError]) -> None:
    error = kind("a_reason", "One sentence.")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (other.reason, other.message, str(other)) == ("a_reason", "One sentence.", "One sentence.")
