"""The documentation as a site: strict, whole, and of no other host. Building it executes the notebooks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` builds; mkdocstrings follows the links of build/types, which stand here as the package's."""
    folder = tmp_path_factory.mktemp("docs")
    package = folder / "package" / "msloc_edge"
    package.mkdir(parents=True)
    for source in [*(ROOT / "msloc_edge").iterdir(), ROOT / "kernels", ROOT / "export", ROOT / "train"]:
        (package / source.name).symlink_to(source)
    config = (ROOT / "mkdocs.yml").read_text()
    own = config.replace("paths: [build/types]", f"paths: [{folder / 'package'}]")
    own = own.replace("tools/site.py", str(ROOT / "tools/site.py")) + f"docs_dir: {ROOT / 'docs'}\n"
    (folder / "mkdocs.yml").write_text(own)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", folder / "mkdocs.yml", "-d", folder / "site"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    return folder / "site"


def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix("") / "index.html").is_file(), page
    assert "make demo" in (site / "index.html").read_text()


def test_reference_comes_from_docstrings(site: Path) -> None:
    page = (site / "reference/index.html").read_text()
    for name in ("Localizer.localize", "Result.to_coco", "Box", "MslocError"):
        assert name in page
    assert "<li><code>profile</code>: name of the thresholds" in page


def test_pictures_and_linked_files_come_along(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:src|href)="([^":#?]+)[#"]', page.read_text()):
            if not target.startswith("/"):
                assert (page.parent / target).exists(), f"{page.relative_to(site)}: {target}"


def test_no_page_loads_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert not loaded, page.relative_to(site)


def test_notebooks_were_executed(site: Path) -> None:
    assert "profile normal-90" in (site / "notebooks/first-film/index.html").read_text()
    assert "epoch,size" in (site / "notebooks/own-data/index.html").read_text()
