"""The SOUP list and the SBOM: docs/soup.md is its generator's, of the packages that pyproject.toml asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")

ROOT = Path(__file__).parents[2]
WORKPLACE = {"train", "export", "rtx", "bench", "docs", "score", "ray", "sbom", "dev"}


@pytest.fixture(scope="module")
def soup(script: Callable[[str], ModuleType]) -> ModuleType:
    """tools/soup.py, which is in no package."""
    return script("tools/soup.py")


@pytest.fixture(scope="module")
def here(soup: ModuleType) -> dict[str, list[Any]]:
    """What is installed here; a development environment has all of it."""
    found: dict[str, list[Any]] = soup.generate()
    return found


# The page


def test_the_page_is_the_generators(soup: ModuleType) -> None:
    """Versions, licences, and what packages bring are those of where it was written; all else is as it is now."""
    text = (ROOT / "docs" / "soup.md").read_text()
    rows = [[soup.Soup(*cells) for cells in part] for part in parts_of(soup, text)]
    assert soup.page(dict(zip(soup.TITLES, rows, strict=True))) == text
    direct, brought, native = rows
    assert [item.name for item in direct] == sorted(soup.device_packages(), key=str.lower)
    assert {item.name: item.why for item in direct} == soup.purposes()
    assert native == soup.native()
    names = {item.name for item in (*direct, *brought)}
    assert all(set(item.why.removeprefix("needed by ").split(", ")) <= names for item in brought)


def parts_of(soup: ModuleType, text: str) -> list[list[tuple[str, ...]]]:
    """The rows of the three tables, in order."""
    return [soup.tables(section)[soup.HEAD] for section in text.split("\n## ")[1:]]


def test_it_can_be_made_here(soup: ModuleType, here: dict[str, list[Any]]) -> None:
    names = {item.name for item in here["direct"]}
    assert {name for name, extra in soup.device_packages().items() if not extra} <= names
    assert "cryptography" in names
    for item in (*here["direct"], *here["brought"]):
        assert item.version == metadata.version(item.name)
        assert all(item.cells)
        assert not any("|" in cell or "\n" in cell for cell in item.cells)
    assert {"flatbuffers", "markdown-it-py", "mdurl"} <= {item.name for item in here["brought"]}


def test_every_extra_is_a_devices_or_a_workplaces(soup: ModuleType) -> None:
    project = soup.tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {*soup.DEVICE, *WORKPLACE, "jetpack6"}


def test_reasons_name_the_extra_that_pyproject_has(soup: ModuleType) -> None:
    packages, reasons = soup.device_packages(), soup.purposes()
    assert packages["click"] == ""
    assert packages["cryptography"] == "sign"
    assert set(packages) == set(reasons)
    for name, extra in packages.items():
        assert reasons[name].endswith(f" (`{extra}`)" if extra else reasons[name])


# Metadata


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"license_expression": "MIT AND Zlib", "license": "other", "classifier": ["License :: X"]}, "MIT AND Zlib"),
        ({"classifier": ["License :: OSI Approved :: MIT License"], "license": "mit"}, "MIT License"),
        ({"classifier": ["Topic :: X", "License :: OSI Approved :: A", "License :: Other :: B"]}, "A; B"),
        ({"classifier": ["License :: OSI Approved"], "license": "BSD"}, "BSD"),
        ({"license": "BSD"}, "BSD"),
        ({"license": "Permission is hereby granted, free of charge, to any person"}, "see its licence file"),
        ({"license": "BSD\nCopyright"}, "see its licence file"),
        ({}, "see its licence file"),
    ],
)
def test_licence(soup: ModuleType, about: dict[str, Any], expected: str) -> None:
    assert soup.licence(about) == expected


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"author": "Ann  | Co", "author_email": "Bob <b@x>"}, "Ann / Co"),
        ({"author_email": "Ann A. <a@x>, Bob <b@x>"}, "Ann A., Bob"),
        ({"author_email": "a@x"}, "a@x"),
        ({"maintainer": "Eve"}, "Eve"),
        ({"maintainer_email": "Eve <e@x>"}, "Eve"),
        ({}, "not stated"),
    ],
)
def test_supplier(soup: ModuleType, about: dict[str, Any], expected: str) -> None:
    assert soup.supplier(about) == expected


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"home_page": "https://a", "project_url": ["Homepage, https://b"]}, "https://a"),
        ({"project_url": ["Changelog, https://c", "Source Code, https://s", "Home-Page, https://b"]}, "https://b"),
        ({"project_url": ["Changelog, https://c", "source,https://s"]}, "https://s"),
        ({"project_url": ["Changelog, https://c"], "name": "x"}, "https://pypi.org/project/x/"),
    ],
)
def test_home(soup: ModuleType, about: dict[str, Any], expected: str) -> None:
    assert soup.home(about) == expected


def test_a_package_that_is_not_installed_is_named(soup: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no-such-package: expected to be installed"):
        soup.installed("no-such-package", "")


def test_a_device_without_an_extra(soup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    all_here = list(metadata.distributions())
    monkeypatch.setattr(metadata, "distributions", lambda: [d for d in all_here if d.name != "imagecodecs"])
    names = {item.name for item in soup.direct()}
    assert {"pydicom", "click"} <= names
    assert "imagecodecs" not in names


# The SBOM


def test_the_sbom(soup: ModuleType, here: dict[str, list[Any]]) -> None:
    sbom = json.loads(soup.to_json(soup.sbom(here)))  # which exits if the schema says no
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["component"]["purl"].startswith("pkg:pypi/msloc-edge@")
    components = {component["name"]: component for component in sbom["components"]}
    assert set(components) == {item.name for part in here.values() for item in part}
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{metadata.version('numpy')}"
    assert components["numpy"]["properties"] == [{"name": "msloc-edge:soup", "value": "arrays"}]
    assert components["cryptography"]["licenses"] == [{"expression": "Apache-2.0 OR BSD-3-Clause"}]
    assert components["DCMTK"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert components["TensorRT"]["purl"] == "pkg:generic/tensorrt"  # a range of versions is none
    needs = {entry["ref"].split("@")[0]: entry.get("dependsOn", []) for entry in sbom["dependencies"]}
    assert [need.split("@")[0] for need in needs["pkg:pypi/markdown-it-py"]] == ["pkg:pypi/mdurl"]
    top = {need.split("@")[0] for need in needs["pkg:pypi/msloc-edge"]}
    assert {"pkg:pypi/click", "pkg:pypi/pydicom", "pkg:generic/dcmtk"} <= top
    assert "pkg:pypi/mdurl" not in top


def test_the_schema_is_asked(soup: ModuleType, here: dict[str, list[Any]]) -> None:
    from cyclonedx.model.license import DisjunctiveLicense

    bom = soup.sbom({"direct": [], "brought": [], "native": here["native"]})
    next(iter(bom.components)).licenses.add(DisjunctiveLicense(id="No-Such-Licence-1.0"))
    with pytest.raises(SystemExit, match="the SBOM is not valid"):
        soup.to_json(bom)


def test_both_are_written(soup: ModuleType, here: dict[str, list[Any]], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(soup, "generate", lambda: here)
    page, sbom = tmp_path / "soup.md", tmp_path / "new" / "sbom.json"
    soup.main(["--page", str(page), "--sbom", str(sbom)])
    assert page.read_text() == soup.page(here)
    assert len(json.loads(sbom.read_text())["components"]) == sum(map(len, here.values()))


def test_the_sdks_sbom_names_what_it_holds_and_is_the_same_twice(
    soup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for path in (first, second):
        soup.main(["--sdk", str(path)])
    assert first.read_bytes() == second.read_bytes()
    content = json.loads(first.read_text())
    assert {component["name"] for component in content["components"]} == set(soup.IN_SDK)
    assert content["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
