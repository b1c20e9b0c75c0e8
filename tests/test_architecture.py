"""Who may import whom (docs/architecture.md), read from the source: also imports inside functions count."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import msloc_edge

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = ("msloc_edge", "kernels", "export", "train")

BASE = ("errors", "types", "files", "lazy")
GROUND = (*BASE, "geometry", "bundle", "fusion", "overlap", "images", "dicom", "reading", "preprocess", "localize")
ALLOWED = {
    "": ("lazy",),
    "lazy": (),
    "errors": (),
    "types": ("lookup",),
    "lookup": (),
    "files": (),
    "bundles": (),
    "geometry": (),
    "fusion": (),
    "overlap": BASE,
    "signature": BASE,
    "versions": BASE,
    "bundle": (*BASE, "signature"),
    "archive": (*BASE, "bundle"),
    "store": (*BASE, "archive", "bundle", "signature", "versions"),
    "images": BASE,
    "dicom": (*BASE, "images"),
    "reading": (*BASE, "images", "dicom"),
    "preprocess": (*BASE, "geometry"),
    "localize": (*BASE, "fusion", "geometry", "runs"),
    "runs": ("fusion",),
    "render": (*BASE, "geometry", "result"),
    "render.page": (),
    "result": (*BASE, "geometry", "render"),  # one way only when a result is plotted
    "engines": BASE,
    "backends": (*GROUND, "engines"),
    "backends.tensorrt": (*GROUND, "backends", "engines", "kernels"),
    "backends.tensorrt_session": (*BASE, "backends", "engines", "kernels"),
    "backends.torch": (*GROUND, "backends", "kernels", "model"),
    "backends.torch_cuda": ("backends", "fusion", "kernels", "model"),
    "backends.torch_folded": (),
    "backends.torch_precision": ("model",),
    "backends.torch_window": ("geometry", "kernels", "types"),
    "pipeline": (*GROUND, "backends", "result"),
    "selftest": (*GROUND, "pipeline"),
    "environment": BASE,
    "doctor": (*GROUND, "backends", "environment"),
    "bench": (*GROUND, "backends", "environment", "model", "pipeline", "render.page"),
    "kernels": (*BASE, "geometry", "localize"),
    "model": BASE,
    "export": (*GROUND, "backends", "engines", "kernels", "model", "pipeline", "selftest"),
    "train": (*GROUND, "kernels", "model", "render.page"),
    "train.__main__": ("cli",),  # the command, as torchrun starts it
    "cli": (
        *(
            *GROUND,
            "backends",
            "engines",
            "bench",
            "environment",
            "doctor",
            "archive",
            "signature",
            "store",
            "selftest",
            "pipeline",
            "result",
            "render",
        ),
        *("result", "render", "kernels", "model", "export", "train"),
    ),
}
"""Module or package below msloc_edge -> what it may import beside itself. The longest name that fits is taken."""


def rule_for(module: str) -> str | None:
    """The key of ALLOWED that a dotted name below msloc_edge falls under."""
    parts = module.split(".")
    return next((key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in ALLOWED), None)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that a module imports, `from a import b` as a.b; what only type checkers see is left out."""
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def home(name: str) -> str:
    """Below msloc_edge: "" for the package itself, and msloc_edge.Bundle is where the class lives."""
    name = name.removeprefix("msloc_edge").removeprefix(".")
    if name == "__version__":
        return ""
    if name in msloc_edge.__all__:
        return str(getattr(msloc_edge, name).__module__).removeprefix("msloc_edge.")
    return name


def violations(modules: Mapping[str, tuple[str, bool]]) -> list[str]:
    """What is imported against the rules, by modules given as name -> (source, whether it is a package)."""
    found = []
    for module, (source, is_package) in sorted(modules.items()):
        rule = rule_for(home(module))
        if rule is None:
            found.append(f"{module} has no rule in ALLOWED")
            continue
        for name in sorted(set(imported(source, module, is_package))):
            if not within(name, "msloc_edge") or not (target := home(name)):
                continue
            if rule and within(target, rule):
                continue
            if not any(within(target, allowed) for allowed in ALLOWED[rule]):
                found.append(f"{module} imports {name}")
    return found


def package_folders() -> dict[str, Path]:
    """Package -> folder, by the map in pyproject.toml."""
    setuptools = pyproject()["tool"]["setuptools"]
    folders = {}
    for package in setuptools["packages"]:
        mapped = max((name for name in setuptools["package-dir"] if within(package, name)), key=len)
        rest = package.removeprefix(mapped).replace(".", "/").removeprefix("/")
        folders[package] = ROOT / setuptools["package-dir"][mapped] / rest
    return folders


def pyproject() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return content


def our_modules() -> dict[str, tuple[str, bool]]:
    modules = {}
    for package, folder in package_folders().items():
        for file in folder.glob("*.py"):
            is_package = file.name == "__init__.py"
            modules[package if is_package else f"{package}.{file.stem}"] = (file.read_text(), is_package)
    return modules


def test_the_arrows_hold() -> None:
    modules = our_modules()
    assert {"msloc_edge", "msloc_edge.cli.infer", "msloc_edge.kernels.fuse_cams.reference"} <= set(modules)
    assert violations(modules) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("localize", "from msloc_edge.geometry import Geometry", None),
        ("localize", "import numpy, os.path", None),
        ("localize", "import msloc_edge", None),
        ("localize", "from msloc_edge import __version__", None),
        ("localize", "from msloc_edge.pipeline import Localizer", "msloc_edge.pipeline.Localizer"),
        ("localize", "from msloc_edge import pipeline", "msloc_edge.pipeline"),
        ("localize", "from msloc_edge import Localizer", "msloc_edge.Localizer"),
        ("localize", "from . import bundle", "msloc_edge.bundle"),
        ("localize", "from .bundle import Bundle", "msloc_edge.bundle.Bundle"),
        ("localize", "def f():\n    import msloc_edge.cli.infer", "msloc_edge.cli.infer"),
        ("localize", "if TYPE_CHECKING:\n    from msloc_edge.cli import main", None),
        ("localize", "if TYPE_CHECKING:\n    pass\nelse:\n    import msloc_edge.cli", "msloc_edge.cli"),
        ("localize", "import importlib\nimportlib.import_module('msloc_edge.train')", "msloc_edge.train"),
        ("pipeline", "from msloc_edge.backends.torch import TorchBackend", None),
        ("pipeline", "from msloc_edge.train import fit", "msloc_edge.train.fit"),
        ("pipeline", "from msloc_edge.model import build", "msloc_edge.model.build"),
        ("backends.torch", "from msloc_edge.kernels.fuse_cams import reference", None),
        ("backends.openvino", "from msloc_edge.kernels import fuse_cams", "msloc_edge.kernels.fuse_cams"),
        ("backends.base", "import msloc_edge.model", "msloc_edge.model"),
        ("train.loop", "from msloc_edge.export import export_bundle", "msloc_edge.export.export_bundle"),
        ("train.loop", "from msloc_edge.cli import main", "msloc_edge.cli.main"),
        ("train.__main__", "from msloc_edge.cli import main", None),
        ("export.bundle", "from msloc_edge.train import fit", "msloc_edge.train.fit"),
        ("export.bundle", "from ..train.loop import fit", "msloc_edge.train.loop.fit"),
        ("render.report", "from msloc_edge.bundle import Bundle", "msloc_edge.bundle.Bundle"),
        ("render.report", "from msloc_edge.render.colors import palette", None),
        ("cli.train", "from msloc_edge.train import fit", None),
        ("model.head", "from msloc_edge.cli import main", "msloc_edge.cli.main"),
        ("types", "from msloc_edge.errors import InputError", "msloc_edge.errors.InputError"),
    ],
)  # fmt: skip
def test_the_checker_sees_a_planted_import(module: str, source: str, found: str | None) -> None:
    name = f"msloc_edge.{module}"
    expected = [] if found is None else [f"{name} imports {found}"]
    assert violations({name: (source, False)}) == expected


def test_the_checker_asks_for_a_rule() -> None:
    assert violations({"msloc_edge.novelty": ("", False)}) == ["msloc_edge.novelty has no rule in ALLOWED"]


def test_relative_imports_of_a_package() -> None:
    source = "from . import infer\nfrom ..cli import infer\nfrom .. import pipeline"
    assert set(imported(source, "msloc_edge.cli", True)) == {"msloc_edge.cli.infer", "msloc_edge.pipeline"}


def test_every_package_is_in_the_wheel() -> None:
    """A folder that pyproject.toml does not list works in a checkout and is missing for every user."""
    on_disk = {file.parent for top in TOP_FOLDERS for file in (ROOT / top).rglob("__init__.py")}
    assert set(package_folders().values()) == on_disk


def test_every_module_is_in_a_package() -> None:
    loose = {
        str(file.relative_to(ROOT))
        for top in TOP_FOLDERS
        for file in (ROOT / top).rglob("*.py")
        if not (file.parent / "__init__.py").exists()
        and not (file.parent / "CMakeLists.txt").exists()  # a script of the C++ build
    }
    assert loose == set()


def test_files_beside_the_code_are_in_the_wheel() -> None:
    listed = pyproject()["tool"]["setuptools"]["package-data"]
    folders = package_folders()
    for package, patterns in listed.items():
        for pattern in patterns:
            assert package == "msloc_edge.bundles" or list(folders[package].glob(pattern)), f"{package}: {pattern}"
    kept = {file for package, patterns in listed.items() for p in patterns for file in folders[package].glob(p)}
    beside = {
        file
        for folder in folders.values()
        for file in folder.iterdir()
        if file.suffix in (".html", ".css", ".js", ".typed")
    }
    assert beside <= kept
