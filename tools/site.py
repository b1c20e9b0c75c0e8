"""Hooks of mkdocs: README.md is the first page, and files beside docs/ that a page links to come with the site.

`Lists` is the extension of mkdocstrings that knows how our docstrings list arguments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\]\(((?:\.\./)+)([^)#]+)")
"""A link that leaves docs/."""

ARGUMENT = re.compile(r"^(\w+(?:, \w+)*) {2,}(?=\S)", re.MULTILINE)
"""The start of a line that explains one argument: its name, then at least two blanks."""


def on_files(files: Files, *, config: Any) -> Files:
    """Add the first page and every linked file of the repository."""
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    readme = (ROOT / "README.md").read_text()
    first = re.sub(r"\]\((?!https?:|docs/)([^)#]+)\)", r"](../\1)", readme).replace("](docs/", "](")
    for target in sorted({target for page in [*pages, first] for _, target in OUTSIDE.findall(page)}):
        files.append(File.generated(config, f"repository/{target}", abs_src_path=str(ROOT / target)))
    files.append(File.generated(config, "index.md", content=at_home(first)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Send links that leave docs/ to the copies that came with the site."""
    return at_home(markdown)


def at_home(markdown: str) -> str:
    """Links out of docs/ as links to `repository/`.

    >>> at_home("[header](../msloc_edge/capi/include/msloc_edge.h)")
    '[header](repository/msloc_edge/capi/include/msloc_edge.h)'
    """
    return OUTSIDE.sub(lambda link: "](" + "../" * (link[1].count("../") - 1) + "repository/" + link[2], markdown)


class Lists(griffe.Extension):
    """Make a list of the lines that explain arguments, each a name and what it means."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of `obj` for Markdown."""
        if obj.docstring:
            obj.docstring.value = ARGUMENT.sub(r"- `\1`: ", obj.docstring.value)
