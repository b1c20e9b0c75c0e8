"""The listener as a service that real peers meet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_peers import Listener, Orthanc, StoreScp, made_films


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty films of forty studies."""
    return list(made_films(tmp_path_factory.mktemp("films"), range(40), size=64))


def needs(*programs: str) -> None:
    """Skip where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: dcmtk, orthanc, orthanc-dicomweb)")


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., StoreScp]]:
    """Starts nodes: storescp(*options) -> StoreScp."""
    needs("storescp", "storescu")
    started: list[StoreScp] = []

    def start(*options: str, **more: Any) -> StoreScp:
        started.append(StoreScp(tmp_path / f"node{len(started)}", *options, **more))
        return started[-1]

    yield start
    for node in started:
        node.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Starts archives: orthanc(**configuration) -> Orthanc."""
    needs("Orthanc")
    started: list[Orthanc] = []

    def start(**configuration: Any) -> Orthanc:
        started.append(Orthanc(tmp_path / f"orthanc{len(started)}", **configuration))
        return started[-1]

    yield start
    for archive in started:
        archive.stop()


@pytest.fixture(scope="session")
def one_box(tiny_bundle: Path, bundle_with: Callable[..., Path]) -> Path:
    """A bundle that finds its first class on every film, as one box over all of it, and no other."""
    count = len(json.loads((tiny_bundle / "manifest.json").read_text())["classes"])
    profile = {"score": [0.0] + [1.1] * (count - 1), "map": [-1e6] * count}
    return bundle_with(profiles={"first": profile}, default_profile="first")


@pytest.fixture
def listen(tmp_path: Path, one_box: Path) -> Iterator[Callable[..., Listener]]:
    """Starts listeners, all on one spool: listen(*nodes, die_at=0, **tables) -> Listener."""
    started: list[Listener] = []

    def start(*nodes: dict[str, Any], die_at: int = 0, **tables: Any) -> Listener:
        tables = {"model": {"model": str(one_box)}, "nodes": list(nodes), **tables}
        started.append(Listener(tmp_path / "listener", tables, die_at))
        return started[-1]

    yield start
    for listener in started:
        listener.kill()


@pytest.fixture(scope="session")
def uid_of() -> Callable[[Path], str]:
    """The SOP instance UID of a film."""
    return lambda path: str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
