"""docs/errors.md names every reason and warning code that the source can give, and no other."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from msloc_edge import errors
from msloc_edge.errors import MslocError

ROOT = Path(__file__).parents[1]
SOURCES = [file for top in ("msloc_edge", "kernels", "export", "train") for file in (ROOT / top).rglob("*.py")]
CODE = re.compile(r"[a-z]+(_[a-z0-9]+)*")

SECTIONS = {
    "InputError": "Input",
    "BundleError": "Bundle",
    "BackendError": "Backend",
    "OutputError": "Output",
    "ExportError": "Export and training",
    "TrainError": "Export and training",
    "BenchError": "Benchmarks",
}
HELPERS = {"_error": "InputError"}  # dicom.py: self._error("corrupt", ...)
FILM_READERS = ("raster.py", "dicom.py", "reading.py", "preprocess.py", "pipeline.py")


def reasons(source: str) -> set[tuple[str, str]]:
    """(section, code) of each SomeError("code", ...) in a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if (kind := HELPERS.get(name, name)) in SECTIONS and isinstance(first, ast.Constant):
                found.add((SECTIONS[kind], str(first.value)))
    return found


def warning_codes(source: str) -> set[str]:
    """Codes that a reader appends or puts into a tuple."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        items: Iterable[ast.expr] = ()
        if isinstance(node, ast.Tuple):
            items = node.elts
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("codes.append"):
            items = node.args
        texts = {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}
        found |= {text for text in texts if "_" in text and CODE.fullmatch(text)}
    return found


def documented() -> dict[str, list[str]]:
    """Section of docs/errors.md -> the codes of its table."""
    sections: dict[str, list[str]] = defaultdict(list)
    title = ""
    for line in (ROOT / "docs" / "errors.md").read_text().splitlines():
        if line.startswith("## "):
            title = line[3:]
        elif match := re.match(r"\| `(\w+)` \|", line):
            sections[title].append(match[1])
    return dict(sections)


def test_every_reason_is_documented_and_no_other() -> None:
    raised = {pair for file in SOURCES for pair in reasons(file.read_text())}
    assert len(raised) > 30
    tables = documented()
    assert raised == {(title, code) for title, codes in tables.items() if title != "Warnings" for code in codes}


def test_every_warning_is_documented_and_no_other() -> None:
    readers = [ROOT / "msloc_edge" / name for name in FILM_READERS]
    given = {code for file in readers for code in warning_codes(file.read_text())}
    assert given == set(documented()["Warnings"])


def test_codes_are_named_once() -> None:
    codes = [code for codes in documented().values() for code in codes]
    assert sorted(set(codes)) == sorted(codes)
    assert all(CODE.fullmatch(code) for code in codes)


def test_the_collector_sees_planted_codes() -> None:
    source = (
        'raise InputError("first_one", f"{name}")\n'
        'error = errors.BundleError(\n    "second_one", "text"\n)\n'
        'raise self._error("third_one", "a", "b", "c")\n'
        'raise ValueError("not_ours")\nraise InputError(reason, "text")'
    )
    assert reasons(source) == {("Input", "first_one"), ("Bundle", "second_one"), ("Input", "third_one")}
    source = 'codes += ("one_code",)\nself.codes.append("two_codes")\nf((*codes, "three_codes"))\nx = "not_a_code"'
    assert warning_codes(source) == {"one_code", "two_codes", "three_codes"}


def test_the_sections_are_those_of_the_tree() -> None:
    tree = {kind.__name__ for kind in MslocError.__subclasses__()}
    assert tree == set(SECTIONS)
    assert all(f"── {name} " in (errors.__doc__ or "") for name in tree)


@pytest.mark.parametrize("kind", MslocError.__subclasses__())
def test_an_error_travels_between_processes(kind: type[MslocError]) -> None:
    error = kind("a_reason", "One sentence.")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (other.reason, other.message, str(other)) == ("a_reason", "One sentence.", "One sentence.")
