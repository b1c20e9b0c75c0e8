"""Writes docs/soup.md, the list of SOUP (IEC 62304), and an SBOM in CycloneDX 1.6, from what is installed here.

    make sbom        or: python tools/soup.py --page docs/soup.md --sbom build/sbom.cdx.json
    make sdk         takes an SBOM of its own: python tools/soup.py --sdk FILE

Which packages: the core and the extras of a device in pyproject.toml, and all that these bring. What each is for, and
what the C library is built with: docs/dependencies.md. Version, licence, supplier, home: the package's own metadata.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import getaddresses
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from msloc_edge import __version__
from msloc_edge._files import atomic_write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

ROOT = Path(__file__).parents[1]
DEVICE = ("dicom", "objects", "listen", "openvino", "gpu", "sign")
"""The extras of a device, whose packages are listed. All others are for those who train, export, measure and test;
jetpack6 is an older version of one in gpu."""

IN_SDK = ("OpenVINO", "oneTBB", "nlohmann-json", "DCMTK", "stb")
"""Items of the C library that the SDK holds, as files or compiled in (packaging/sdk.sh)."""

PROPERTY = "msloc-edge:soup"


@dataclass(frozen=True, slots=True)
class Soup:
    """One item of the list: what a manufacturer is to identify (IEC 62304, 8.1.2), and why it is there (5.3.3)."""

    name: str
    version: str
    licence: str
    supplier: str
    home: str
    why: str
    needs: tuple[str, ...] = field(default=(), kw_only=True)  # packages that it asks for itself

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, self.version, self.licence, self.supplier, self.home, self.why


HEAD = ("item", "version", "licence", "supplier", "home", "for")
TITLES = {"direct": "The Python package", "brought": "What these bring with them", "native": "The C library"}
INTRODUCTION = """# SOUP list

Software of unknown provenance in the sense of IEC 62304, as it was installed where this page was written. `make sbom`
writes it, and an SBOM in CycloneDX 1.6 (`build/sbom.cdx.json`), from the metadata of installed packages;
[dependencies.md](dependencies.md) says what each is for. A product runs it in the environment that it ships: versions
will differ from these, and a CUDA build of torch brings NVIDIA's libraries, which are not here. Python itself, the
operating system and drivers are the product's to add. What only trains, exports, measures or tests is not on a device,
and not in this list. A licence is what the package states; its licence file has the last word.
"""


def device_packages() -> dict[str, str]:
    """Package -> the extra that it belongs to, "" for the core, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **{extra: project["optional-dependencies"][extra] for extra in DEVICE}}
    named = [(Requirement(line), extra) for extra, lines in groups.items() for line in lines]
    found = {wanted.name: extra for wanted, extra in named if wanted.marker is None or wanted.marker.evaluate()}
    return {name: extra for name, extra in found.items() if name != project["name"]}  # an extra may name another


def tables(page: str) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """The tables of a markdown page: head -> rows."""
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = (tuple(cell.strip() for cell in line.strip()[1:-1].split("|")) for line in block.splitlines())
        found.setdefault(head, []).extend(rows)
    return found


def purposes() -> dict[str, str]:
    """Package -> what it is for, by docs/dependencies.md."""
    rows = tables((ROOT / "docs" / "dependencies.md").read_text())
    core, extras = rows["package", "for", "why this one"], rows["package", "extra", "for", "why this one"]
    return {name: why for name, why, _ in core} | {name: f"{why} (`{extra}`)" for name, extra, why, _ in extras}


def native() -> list[Soup]:
    """What the C library is built with, by docs/dependencies.md."""
    return [Soup(*cells) for cells in tables((ROOT / "docs" / "dependencies.md").read_text())[HEAD]]


def direct() -> list[Soup]:
    """The packages of pyproject.toml, as they are installed; a device need not have all of an extra's, or any."""
    reasons, here = purposes(), {canonicalize_name(found.name) for found in metadata.distributions()}
    listed = [name for name, extra in device_packages().items() if not extra or canonicalize_name(name) in here]
    return [installed(name, reasons[name]) for name in sorted(listed, key=str.lower)]


def brought(direct: Iterable[Soup]) -> list[Soup]:
    """What the direct packages need, and what that needs, as it is installed."""
    todo = list(direct)
    parents: dict[str, list[str]] = {}
    names = {canonicalize_name(soup.name) for soup in todo}
    found: list[Soup] = []
    while todo:
        soup = todo.pop(0)
        for need in soup.needs:
            key = canonicalize_name(need)
            parents.setdefault(key, []).append(soup.name)
            if key not in names:
                names.add(key)
                found.append(installed(need, ""))
                todo.append(found[-1])
    found.sort(key=lambda soup: soup.name.lower())
    return [replace(soup, why=f"needed by {', '.join(parents[canonicalize_name(soup.name)])}") for soup in found]


def installed(name: str, why: str) -> Soup:
    """A package by its own metadata."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        sys.exit(f"{name}: expected to be installed, since msloc-edge or a package that is here needs it; pip check")
    about = found.metadata.json
    needs = tuple(sorted({need.name for need in map(Requirement, found.requires or ()) if wanted(need)}))
    return Soup(name, found.version, licence(about), supplier(about), home(about), why, needs=needs)


def wanted(need: Requirement) -> bool:
    """Whether a requirement holds here, where no extra of its package is asked for."""
    return need.marker is None or need.marker.evaluate({"extra": ""})


def licence(about: Mapping[str, Any]) -> str:
    """PEP 639's expression, else what the classifiers say, else a short licence field, else where to look."""
    if expression := about.get("license_expression"):
        return str(expression)
    named = [line.split(" :: ") for line in about.get("classifier", ()) if line.startswith("License :: ")]
    if classified := [parts[-1] for parts in named if parts[-1] != "OSI Approved"]:
        return "; ".join(classified)
    text = str(about.get("license", ""))
    return text if 0 < len(text) <= 40 and "\n" not in text else "see its licence file"


def supplier(about: Mapping[str, Any]) -> str:
    """Author, else maintainer: a name, else an address."""
    for role in ("author", "maintainer"):
        pairs = getaddresses([str(about.get(f"{role}_email", ""))])
        names = [about.get(role), ", ".join(name for name, _ in pairs if name), ", ".join(mail for _, mail in pairs)]
        if name := next(filter(None, names), None):
            return plain(str(name))
    return "not stated"


def home(about: Mapping[str, Any]) -> str:
    urls = dict(re.split(r",\s*", line, maxsplit=1) for line in about.get("project_url", ()))
    known = {re.sub(r"\W", "", label).lower(): url for label, url in urls.items()}
    labels = ("homepage", "source", "sourcecode", "repository", "documentation")
    found = about.get("home_page") or next((known[label] for label in labels if label in known), None)
    return plain(str(found or f"https://pypi.org/project/{about['name']}/"))


def plain(text: str) -> str:
    """One line that can stand in a cell of a table."""
    return " ".join(text.replace("|", "/").split())


def page(parts: Mapping[str, Sequence[Soup]]) -> str:
    """docs/soup.md: a table for each of direct, brought, native."""
    lines = [INTRODUCTION]
    for part, title in TITLES.items():
        rows = [HEAD, ("---",) * len(HEAD), *(soup.cells for soup in parts[part])]
        lines += [f"## {title}\n", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def sbom(parts: Mapping[str, Sequence[Soup]]) -> Bom:
    """The same as a bill of materials, with who needs whom."""
    from cyclonedx.contrib.this.builders import this_component
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import ComponentType

    bom = Bom(serial_number=uuid5(NAMESPACE_URL, repr(sorted(parts.items()))))
    bom.metadata.tools.components.add(this_component())
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):  # of a package that is to be the same whoever builds it
        bom.metadata.timestamp = datetime.fromtimestamp(int(epoch), timezone.utc)
    ours = Soup("msloc-edge", __version__, "Apache-2.0", "msloc-edge", "", "")
    root = bom.metadata.component = component(ours, ComponentType.APPLICATION, "pypi")
    packages = {canonicalize_name(soup.name): soup for part in ("direct", "brought") for soup in parts[part]}
    parsed = {name: component(soup, ComponentType.LIBRARY, "pypi") for name, soup in packages.items()}
    natives = [component(soup, ComponentType.LIBRARY, "generic") for soup in parts["native"]]
    for item in (*parsed.values(), *natives):
        bom.components.add(item)
    for name, soup in packages.items():
        bom.register_dependency(parsed[name], [parsed[canonicalize_name(need)] for need in soup.needs])
    bom.register_dependency(root, [parsed[canonicalize_name(soup.name)] for soup in parts["direct"]] + natives)
    return bom


def component(soup: Soup, kind: Any, registry: str) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.component import Component
    from cyclonedx.model.contact import OrganizationalEntity
    from packageurl import PackageURL

    name = canonicalize_name(soup.name)
    purl = PackageURL(registry, name=name, version=None if " " in soup.version else soup.version)  # not for a range
    return Component(
        name=soup.name,
        version=soup.version,
        type=kind,
        bom_ref=str(purl),
        purl=purl,
        supplier=OrganizationalEntity(name=soup.supplier),
        licenses=[LicenseFactory().make_from_string(soup.licence)],
        external_references=[ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(soup.home))]
        * bool(soup.home),
        properties=[Property(name=PROPERTY, value=soup.why)] * bool(soup.why),
    )


def to_json(bom: Bom) -> str:
    """CycloneDX 1.6, held against its own schema. Exits with what the schema does not allow."""
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the SBOM is not valid: {error}")
    return text


def generate() -> dict[str, list[Soup]]:
    ours = direct()
    return {"direct": ours, "brought": brought(ours), "native": native()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the SOUP list and the SBOM of this environment.")
    parser.add_argument("--page", type=Path, help="the SOUP list")
    parser.add_argument("--sbom", type=Path, help="the SBOM of the Python package and the C library")
    parser.add_argument("--sdk", type=Path, help="the SBOM of what the SDK holds")
    parser.add_argument("--without", metavar="ITEM", help="an item that this SDK does not hold")
    paths = parser.parse_args(arguments)
    if paths.page or paths.sbom:
        parts = generate()
        write(paths.page, page(parts))
        write(paths.sbom, to_json(sbom(parts)) + "\n")
    in_sdk = [soup for soup in native() if soup.name in IN_SDK and soup.name != paths.without]
    write(paths.sdk, to_json(sbom({"direct": [], "brought": [], "native": in_sdk})) + "\n")


def write(path: Path | None, text: str) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.encode())


if __name__ == "__main__":
    main()
