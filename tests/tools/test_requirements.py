"""The table requirement, test, result: its tests exist, and its words are those of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
JUNIT = """<testsuites><testsuite timestamp="2026-11-30T22:00:00">
<testcase classname="tests.a.test_b" name="test_c[1]"/>
<testcase classname="tests.a.test_b" name="test_c[2]"><skipped message="no GPU"/></testcase>
<testcase classname="tests.a.test_b" name="test_d"><failure/></testcase>
<testcase classname="tests.test_e" name="test_f"/>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def table(script: Callable[[str], ModuleType]) -> ModuleType:
    """tools/requirements.py, which is in no package."""
    return script("tools/requirements.py")


def test_every_named_test_exists(table: ModuleType) -> None:
    listed = table.requirements()
    assert len({requirement.id for requirement in listed}) == len(listed) >= 20
    assert [test for requirement in listed for test in requirement.tests if not table.exists(test)] == []
    assert not table.exists("tools/test_requirements.py::test_nothing")


def test_a_table_by_hand(table: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    listed = [
        table.Requirement("R1", "One.", ("a/test_b.py::test_c", "a/test_b.py")),
        table.Requirement("R2", "Two.", ("x.py",)),
    ]
    page = table.page(listed, *table.run_of([tmp_path / "junit.xml"]))
    assert page.splitlines()[-3:] == [
        "| R1 | One. | `a/test_b.py::test_c` | 1 passed, 1 skipped |",
        "|  |  | `a/test_b.py` | 1 passed, 1 failed, 1 skipped |",
        "| R2 | Two. | `x.py` | not run |",
    ]
    assert "run on 2026-11-30: 2 requirements, 3 tests; cases: 2 passed, 1 failed, 2 skipped." in page


def test_the_page_lists_them(table: ModuleType) -> None:
    text = (ROOT / "docs" / "requirements.md").read_text("utf-8")
    rows = re.findall(r"^\| (R\d+)? ?\| .* \| `(.*)` \| (.*) \|$", text, re.MULTILINE)
    listed = [test for requirement in table.requirements() for test in requirement.tests]
    assert [test for _, test, _ in rows] == listed
    assert all("failed" not in result for *_, result in rows)


def test_a_run_that_is_not_there(table: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected a run of the suite in .*none\.xml, got no such file; make test"):
        table.main([str(tmp_path / "none.xml"), "--page", str(tmp_path / "page.md")])
    assert not (tmp_path / "page.md").exists()
