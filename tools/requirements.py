"""Writes docs/requirements.md: requirement, tests, result, from tests/requirements.toml and a run of the suite.

    make test requirements        or: python tools/requirements.py build/junit.xml

Several JUnit files, of runs of parts of the suite, are taken together; of a test that is in several the last counts.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from msloc_edge import __version__
from msloc_edge._files import atomic_write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "requirements.md"
INTRODUCTION = """# Requirements

What a device's software may rely on, and the tests that show it: a part of the V-model that IEC
62304 asks for (5.2, 5.5, 5.7), for the manufacturer's own file. `tests/requirements.toml` says
which tests belong to which requirement; `make test requirements` writes this page from a run of the
suite. A test with many cases counts each of them. Skipped cases need what the machine did not have:
a GPU, a tool, films that are not in the repository; pytest names it.

Version {version}, run on {date}: {requirements} requirements, {tests} tests; cases: {cases}.

| | requirement | test | result |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A sentence, and the tests that show that it holds: FILE::FUNCTION, or FILE for all that it has."""

    id: str
    text: str
    tests: tuple[str, ...]


def requirements(path: Path = ROOT / "tests" / "requirements.toml") -> list[Requirement]:
    entries = tomllib.loads(path.read_text("utf-8"))["requirement"]
    return [Requirement(entry["id"], entry["text"], tuple(entry["tests"])) for entry in entries]


def run_of(files: Iterable[Path]) -> tuple[dict[str, dict[str, str]], str]:
    """The cases of JUnit files, test -> case -> outcome, and the day of the last run."""
    cases: dict[str, dict[str, str]] = {}
    day = ""
    for file in files:
        for suite in ElementTree.parse(file).iter("testsuite"):
            day = max(day, suite.get("timestamp", "")[:10])
            for case in suite.iter("testcase"):
                path = case.get("classname", "").removeprefix("tests.").replace(".", "/")
                name = case.get("name", "")
                cases.setdefault(f"{path}.py::{name.partition('[')[0]}", {})[name] = outcome(case)
    return cases, day


def outcome(case: ElementTree.Element) -> str:
    """The word for a case of JUnit."""
    children = {child.tag for child in case}
    return "failed" if children & {"failure", "error"} else "skipped" if "skipped" in children else "passed"


def count(test: str, cases: Mapping[str, Mapping[str, str]]) -> Counter[str]:
    """Outcomes of a test's cases."""
    own = [found for name, found in cases.items() if name == test or name.startswith(f"{test}::")]
    return Counter(outcome for found in own for outcome in found.values())


def words(outcomes: Mapping[str, int]) -> str:
    """Such as "6 passed, 1 skipped"; "not run" of none."""
    known = ("passed", "failed", "skipped")
    return ", ".join(f"{outcomes[word]} {word}" for word in known if outcomes.get(word)) or "not run"


def page(listed: Sequence[Requirement], cases: Mapping[str, Mapping[str, str]], day: str) -> str:
    tests = dict.fromkeys(test for requirement in listed for test in requirement.tests)
    total = sum((count(test, cases) for test in tests), Counter[str]())
    text = INTRODUCTION.format(
        version=__version__, date=day or "no day", requirements=len(listed), tests=len(tests), cases=words(total)
    )
    for requirement in listed:
        head = (requirement.id, requirement.text)
        for test in requirement.tests:
            text += f"| {head[0]} | {head[1]} | `{test}` | {words(count(test, cases))} |\n"
            head = ("", "")
    return text


def exists(test: str) -> bool:
    """Whether the suite has this test."""
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    return path.is_file() and (not name or bool(re.search(rf"^def {name}\(", path.read_text("utf-8"), re.MULTILINE)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write docs/requirements.md.")
    parser.add_argument("junit", type=Path, nargs="+", help="what pytest --junitxml wrote")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    if absent := [str(file) for file in options.junit if not file.is_file()]:
        sys.exit(f"expected a run of the suite in {', '.join(absent)}, got no such file; make test writes it")
    listed = requirements()
    if missing := [test for requirement in listed for test in requirement.tests if not exists(test)]:
        sys.exit(f"expected tests that the suite has, got {', '.join(missing)}; fix tests/requirements.toml")
    atomic_write(options.page, page(listed, *run_of(options.junit)).encode())


if __name__ == "__main__":
    main()
